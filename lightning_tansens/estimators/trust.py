"""Old names of the estimators, until nothing imports them."""

from lightning_tansens._peers.trust import *  # noqa: F403

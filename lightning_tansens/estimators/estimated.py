"""Old names of the estimators, until nothing imports them."""

from lightning_tansens._peers.estimated import *  # noqa: F403

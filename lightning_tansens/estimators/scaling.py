"""Old names of the estimators, until nothing imports them."""

from lightning_tansens._peers.scaling import *  # noqa: F403

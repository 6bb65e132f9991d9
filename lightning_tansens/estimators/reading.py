"""Old names of the estimators, until nothing imports them."""

from lightning_tansens._peers.reading import *  # noqa: F403

"""Old names of the estimators, until nothing imports them."""

from lightning_tansens._peers.calibration.ridge import *  # noqa: F403

"""Old names of the estimators, until nothing imports them."""

from lightning_tansens._peers.calibration.options import *  # noqa: F403

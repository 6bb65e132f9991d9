"""An estimator that is fitted, at each measurement, on perturbed copies of the labelled reference."""

from lightning_tansens._peers.calibration.calibrator import CALIBRATED, calibrated_estimates
from lightning_tansens._peers.calibration.features import Feature, check_features, feature_measures, feature_peers
from lightning_tansens._peers.calibration.options import Calibration
from lightning_tansens._peers.calibration.perturbations import Contrast, Masked, Noise, Perturbed

__all__ = [
    "CALIBRATED",
    "Calibration",
    "Contrast",
    "Feature",
    "Masked",
    "Noise",
    "Perturbed",
    "calibrated_estimates",
    "check_features",
    "feature_measures",
    "feature_peers",
]

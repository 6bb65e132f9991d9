"""An estimator that is fitted, at each measurement, on perturbed copies of the labelled reference."""

from lightning_tansens.calibration.calibrator import CALIBRATED, calibrated_estimates
from lightning_tansens.calibration.features import Feature, feature_measures, feature_peers, known_features
from lightning_tansens.calibration.options import Calibration
from lightning_tansens.calibration.perturbations import Noise, Perturbed

__all__ = [
    "CALIBRATED",
    "Calibration",
    "Feature",
    "Noise",
    "Perturbed",
    "calibrated_estimates",
    "feature_measures",
    "feature_peers",
    "known_features",
]

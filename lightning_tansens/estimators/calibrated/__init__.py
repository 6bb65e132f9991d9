"""An estimator that is fitted, at each measurement, on labelled, perturbed copies of the reference."""

from lightning_tansens.estimators.calibrated.estimator import Calibrated, Feature
from lightning_tansens.estimators.calibrated.perturbations import Contrast, Masked, Noise, Perturbed, Transform

__all__ = ["Calibrated", "Contrast", "Feature", "Masked", "Noise", "Perturbed", "Transform"]

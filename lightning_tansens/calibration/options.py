"""How an estimator is calibrated: a choice that YAML can make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from lightning_tansens.calibration.features import Feature
from lightning_tansens.calibration.perturbations import Noise, Transform
from lightning_tansens.checks import check_callable, check_choice, check_numbers

#: With fewer copies than this a fit has nothing to be judged by.
MIN_COPIES = 3


@dataclass(frozen=True)
class Calibration:
    """Chooses the perturbed copies of the reference and the features on which the ``calibrated`` estimator is fitted.

    Each copy is measured like a set of its own, which costs as much as a test set with labels.

    Args:
        noise_scales: One copy for each: Gaussian noise, in units of a sample's own standard deviation.
        transforms: One copy for each: a callable on one sample (a tensor without the batch's dimension) that keeps its
            shape, for example a blur. Use such as change the data the way they will change.
        features: "entropy", "confidence", "sensitivity" (needs EmpiricalSensitivity), "active_nodes" (needs
            ActiveNodeSensitivity); None for all of them that are measured.

    Raises:
        ValueError: If there are fewer than three copies, a scale is negative or a feature unknown.
        TypeError: If a transform is no callable.

    Example:
        >>> len(Calibration(transforms=[lambda image: image.flip(-1)]).copies())
        7

    """

    noise_scales: Sequence[float] = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    transforms: Sequence[Transform] = ()
    features: Sequence[Feature] | None = None

    def __post_init__(self) -> None:
        for name in ("noise_scales", "transforms"):
            if isinstance(getattr(self, name), (str, bytes)) or not isinstance(getattr(self, name), Sequence):
                raise TypeError(f"{name}: expected a list, but got {getattr(self, name)!r}")
        for scale in self.noise_scales:
            check_numbers(at_least=0, noise_scales=scale)
        for transform in self.transforms:
            if transform is None:
                raise TypeError("transforms: expected callables on a sample, but got None")
            check_callable("transforms", transform)
        if len(self.noise_scales) + len(self.transforms) < MIN_COPIES:
            raise ValueError(
                f"noise_scales: expected {MIN_COPIES} copies or more to fit on, but got {len(self.noise_scales)} scales and "
                f"{len(self.transforms)} transforms; add some"
            )
        if self.features is not None:
            if isinstance(self.features, (str, bytes)) or not isinstance(self.features, Sequence) or not self.features:
                raise TypeError(f"features: expected a list of features or None, but got {self.features!r}")
            for feature in self.features:
                check_choice("features", feature, get_args(Feature))

    def copies(self) -> list[Transform]:
        """Returns what makes each copy out of a sample."""
        return [*(Noise(scale) for scale in self.noise_scales), *self.transforms]

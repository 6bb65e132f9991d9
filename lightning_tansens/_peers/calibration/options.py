"""How an estimator is calibrated: a choice that YAML can make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from lightning_tansens._peers.calibration.features import Feature
from lightning_tansens._peers.calibration.perturbations import Contrast, Masked, Noise, Transform
from lightning_tansens.checks import check_callable, check_choice, check_numbers, check_share

#: With fewer copies than this a fit has nothing to be judged by.
MIN_COPIES = 3


@dataclass(frozen=True)
class Calibration:
    """Chooses the perturbed copies of the reference and the features on which the ``calibrated`` estimator is fitted.

    Each copy is measured like a set of its own, which costs as much as a test set with labels.

    Args:
        noise_scales: One copy for each: Gaussian noise, in units of a sample's own standard deviation.
        masked_shares: One copy for each: this share of a sample's entries is replaced by its mean.
        contrasts: One copy for each: a sample's differences from its mean are multiplied by this factor.
        transforms: One copy for each: a callable on one sample (a tensor without the batch's dimension) that keeps its
            shape, for example a blur. Use such as change the data the way they will change.
        features: "entropy", "confidence", "sensitivity" (needs EmpiricalSensitivity), "active_nodes" (needs
            ActiveNodeSensitivity). On average the first two alone did better in trials than with the others.

    Raises:
        ValueError: If there are fewer than three copies, a number is out of its range or a feature unknown.
        TypeError: If a transform is no callable.

    Example:
        >>> len(Calibration(transforms=[lambda image: image.flip(-1)]).copies())
        7

    """

    noise_scales: Sequence[float] = (0.2, 0.7)
    masked_shares: Sequence[float] = (0.1, 0.3)
    contrasts: Sequence[float] = (0.25, 0.5)
    transforms: Sequence[Transform] = ()
    features: Sequence[Feature] = ("entropy", "confidence")

    def __post_init__(self) -> None:
        for name in ("noise_scales", "masked_shares", "contrasts", "transforms"):
            if isinstance(getattr(self, name), (str, bytes)) or not isinstance(getattr(self, name), Sequence):
                raise TypeError(f"{name}: expected a list, but got {getattr(self, name)!r}")
        for scale in self.noise_scales:
            check_numbers(at_least=0, noise_scales=scale)
        for share in self.masked_shares:
            check_share("masked_shares", share)
        for factor in self.contrasts:
            check_numbers(at_least=0, contrasts=factor)
        for transform in self.transforms:
            if transform is None:
                raise TypeError("transforms: expected callables on a sample, but got None")
            check_callable("transforms", transform)
        if (count := len(self.copies())) < MIN_COPIES:
            raise ValueError(
                f"noise_scales: expected {MIN_COPIES} copies or more to fit on, with those of masked_shares, contrasts and "
                f"transforms, but got {count}; add some"
            )
        if isinstance(self.features, (str, bytes)) or not isinstance(self.features, Sequence) or not self.features:
            raise TypeError(f"features: expected a list of features, but got {self.features!r}")
        for feature in self.features:
            check_choice("features", feature, get_args(Feature))

    def copies(self) -> list[Transform]:
        """Returns what makes each copy out of a sample."""
        return [
            *(Noise(scale) for scale in self.noise_scales),
            *(Masked(share) for share in self.masked_shares),
            *(Contrast(factor) for factor in self.contrasts),
            *self.transforms,
        ]

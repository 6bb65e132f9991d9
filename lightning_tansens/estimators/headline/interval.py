"""The interval of the headline's estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lightning_tansens.estimators.headline.calibration import Calibration
from lightning_tansens.estimators.headline.transport import Array

#: Of a normal distribution, for 95 %.
QUANTILE = 1.96

#: Copies count more, the nearer they are: the kernel reaches the third nearest, and no less far than this.
NEAREST, NARROWEST = 3, 0.15

#: How much of each part of the variance counts, in the order of :class:`Spread`; fitted on the development networks.
SHARES = (1.0, 0.7, 1.0, 1.0)


@dataclass(frozen=True)
class Spread:
    """The variance of an estimate's logarithm: of sampling, on nearby copies, within the first head and between both."""

    sampling: float
    copies: float
    within: float
    between: float

    @property
    def half(self) -> float:
        """Half of the 95 % interval."""
        parts = (self.sampling, self.copies, self.within, self.between)
        return QUANTILE * math.sqrt(sum(share * part for share, part in zip(SHARES, parts, strict=True)))


def nearby(signature: Array, seen: Array, squares: Array) -> tuple[Array, float]:
    r"""Returns the mean square error of nearby copies, and how far the third nearest one is.

    .. math:: \frac{\sum_m k_m e_m^2}{\sum_m k_m}, \qquad k_m = \exp\big(-\|s - s_m\|^2 / 2 h^2\big)

    with h the distance of the third nearest copy, or 0.15 if that is nearer, for signatures s, shape (G,), and s_m, shape
    (M, G), and the squares e_m² for error and loss, shape (M, 2).

    """
    distances = np.square(signature - seen).sum(1)
    third = float(np.sort(distances)[NEAREST - 1])
    kernel = np.exp(-distances / 2 / max(third, NARROWEST**2))
    return kernel @ squares / kernel.sum(), math.sqrt(third)


def variance_of_sampling(ratios: Array, calibration: Calibration, samples: int) -> Array:
    r"""Returns the variance of the logarithms of error and loss over the draw of both sets' samples, shape (2,).

    .. math:: \sigma^2 \, \frac{v(\hat r l)}{v(l)} \, \Big(\frac1N + \frac1{N_{ref}}\Big) \Big/ (\hat r l)^2

    with the variance σ² that the regression estimator leaves, v(l) = l (1 − l) for the error, l² for the loss, and the
    estimates' ratios r to the reference's level l.
    """
    level, count = calibration.level, calibration.count
    values = ratios * level
    own = max(level[0] * (1 - level[0]), 0.2 / count)
    scale = np.array([values[0] * (1 - values[0]) / own, ratios[1] ** 2])
    residual = np.maximum(calibration.regression.residual, [0.5 / count, 0])
    return np.asarray(residual * scale * (1 / count + 1 / samples) / values**2)

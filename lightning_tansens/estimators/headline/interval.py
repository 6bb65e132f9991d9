"""The interval of the headline's estimate."""

import math
import operator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from lightning_tansens.estimators.headline.calibration import Calibration
from lightning_tansens.estimators.outputs import Array

#: The quantile of a normal distribution for 95 %.
QUANTILE = 1.96

#: Copies count more, the nearer they are: the kernel reaches the third nearest, and no less far than this.
NEAREST, NARROWEST = 3, 0.15

#: Errors on copies grow with the estimated change; one smaller than this counts as if it were as large. No square error
#: grows more than fourfold.
SMALLEST_CHANGE, MOST = 0.3, 4.0

#: How much of each part of the variance counts, in the order of :class:`Spread`; fitted on the development networks.
SHARES = (1.4, 0.25, 0.5, 1.0)

#: The variance grows from this share on with the novelty of a set; so much of each end's copies then counts for the other.
KNOWN, UNSURE = 0.8, 0.2

#: Error rates keep this distance from zero and one where their logits are taken, and their slopes from one.
EDGE, STEEPEST = 1e-4, 0.02


@dataclass(frozen=True)
class Spread:
    """The variance of an estimate: of sampling, on nearby copies, within the first head and between both.

    It is the variance of an error rate's logit, so that the interval stays between zero and one, and of a loss's logarithm.
    """

    sampling: float  #: Of the draw of both sets' samples.
    #: On nearby copies that were estimated too high, and too low; each moves one end of the interval.
    copies: tuple[float, float]
    within: float  #: Of the first head's candidates.
    between: float  #: Of the two heads.
    shares: tuple[float, float, float, float] = SHARES  #: How much of each counts.
    #: How little the inputs of copies explain those of the set, from 0 to 1 (:meth:`Resemblance.novelty`); None if unknown.
    #: The less they do, the less they tell how far estimates are off, and to which side.
    novelty: float | None = None

    @property
    def reach(self) -> tuple[float, float]:
        r"""How far the 95 % interval reaches down and up.

        .. math:: 1.96 \sqrt{(0.8 + \nu) \, (c_1 \sigma_{sampling}^2 + c_2 (\sigma_\pm^2 + 0.2 \, \nu \, \sigma_\mp^2) +
                  c_3 \sigma_{within}^2 + c_4 \sigma_{between}^2)}

        with the shares c and the novelty ν.
        """
        grown, mixed = (1.0, 0.0) if self.novelty is None else (KNOWN + self.novelty, UNSURE * self.novelty)
        high, low = self.copies
        down, up = (
            math.sqrt(grown * sum(map(operator.mul, self.shares, (self.sampling, copies, self.within, self.between))))
            for copies in (high + mixed * low, low + mixed * high)
        )
        return QUANTILE * down, QUANTILE * up


def on_scale(ratios: Array, level: Array) -> Array:
    """Returns the logits of error rates and the logarithms of losses, shape (..., Q); the loss is the last quantity.

    Args:
        ratios: Logarithms of ratios to the reference's level, shape (..., Q).
        level: The reference's error rate and loss, or its loss alone, shape (Q,).
    """
    errors = logit(np.clip(np.exp(ratios[..., :-1]) * level[:-1], EDGE, 1 - EDGE))
    return np.concatenate([errors, ratios[..., -1:]], -1)


def off_scale(values: Array, level: Array) -> Array:
    """Returns the ratios to the reference's level of what :func:`on_scale` gives."""
    return np.concatenate([expit(values[..., :-1]) / level[:-1], np.exp(values[..., -1:])], -1)


def nearby(signature: Array, change: Array, seen: Array, changes: Array, errors: Array) -> Array:
    r"""Returns the mean square errors of nearby copies, of those estimated too high and too low, shape (2, 2).

    .. math:: \sigma_\pm^2 = 2 \, \frac{\sum_m k_m \rho_m^2 \, [\pm \rho_m > 0]}{\sum_m k_m}, \qquad
              \rho_m^2 = e_m^2 \min\Big(\frac{a^2 + c^2}{a_m^2 + c^2}, 4\Big), \qquad
              k_m = \exp\big(-(\|s - s_m\|^2 + (a - a_m)^2) / 2 h^2\big)

    with h the distance of the third nearest copy, or 0.15 if that is nearer. An error counts in proportion to the
    estimated change a, with c = 0.3. Errors on copies mostly go one way: large changes are under-estimated.

    Args:
        signature: s, shape (G,).
        change: The estimated log ratios a of error and loss, shape (2,).
        seen: The copies' s_m, shape (M, G).
        changes: Their a_m, by fits without their kind, shape (M, 2).
        errors: Their e_m, estimate less truth, shape (M, 2).

    Returns:
        By quantity, those for too high and for too low estimates.
    """
    distances = np.square(signature - seen).sum(1)[:, None] + np.square(change - changes)
    third = np.sort(distances, 0)[NEAREST - 1]
    kernel = np.exp(-distances / 2 / np.maximum(third, NARROWEST**2))
    size = np.minimum((change**2 + SMALLEST_CHANGE**2) / (changes**2 + SMALLEST_CHANGE**2), MOST)
    squares = np.stack([np.square(np.maximum(sign * errors, 0)) for sign in (1, -1)], 2)
    return np.asarray(2 * np.einsum("mq,mqs->qs", kernel * size, squares) / kernel.sum(0)[:, None])


def variance_of_sampling(ratios: Array, calibration: Calibration, samples: int) -> Array:
    r"""Returns the variances of the logarithms of error and loss over the draw of both sets' samples, shape (2,).

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


def slopes(values: Array) -> Array:
    """Returns the derivatives by the logarithm of an error rate of its logit, and of a loss of its logarithm, shape (Q,)."""
    return np.append(1 / np.maximum(1 - values[:-1], STEEPEST), 1.0)

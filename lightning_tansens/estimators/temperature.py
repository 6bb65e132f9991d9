"""One temperature for a classifier's probabilities, fitted on labels."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

#: Temperatures between exp(-LOGARITHM) and exp(LOGARITHM) are tried.
LOGARITHM = 2.5


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature."""

    value: float
    stderr: float  # of log T, over the draw of the labelled samples; nan where it is not known


def fit_temperature(scores: NDArray[Any], labels: NDArray[Any]) -> Temperature:
    r"""Fits the temperature of least negative log likelihood (Guo et al., ICML 2017) to scores z (N, C) and labels y (N,).

    .. math:: \min_T -\frac1N \sum_n \log \mathrm{softmax}_{y_n}(z_n / T)

    It is convex in 1/T, and found by Newton's method, between :math:`e^{-2.5}` and :math:`e^{2.5}`. The standard error is a
    sandwich estimate.

    Example:
        >>> scores = np.log(np.array([[0.9, 0.1]] * 4))
        >>> round(fit_temperature(scores, np.array([0, 0, 0, 1])).value, 2)  # three of four are right, not nine of ten
        2.0
    """
    own = scores[np.arange(len(labels)), labels]
    low, high = math.exp(-LOGARITHM), math.exp(LOGARITHM)
    inverse, slopes, curvature, done = 1.0, np.zeros(len(labels)), 0.0, False
    for _ in range(30):
        probabilities = softmax(inverse * scores, axis=1)
        means = (probabilities * scores).sum(1)
        slopes, curvature = means - own, float((probabilities * np.square(scores - means[:, None])).sum(1).mean())
        # a step of at most a factor of two, within what is tried
        step = float(slopes.mean()) / curvature if curvature > 0 else 0.0
        moved = min(max(inverse - step, inverse / 2, low), 2 * inverse, high)
        done, inverse = abs(moved - inverse) < 1e-6 * inverse, moved
        if done:
            break
    known = done and curvature > 0 and low < inverse < high and len(labels) > 1
    spread = float(slopes.std()) / math.sqrt(len(labels)) / (curvature * inverse) if known else math.nan
    return Temperature(1 / inverse, spread)

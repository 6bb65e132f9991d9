"""Standard errors of means and of ratios of means."""

import math
from typing import Any

from numpy.typing import NDArray

from lightning_tansens.record import Estimate


def error_of_mean(values: NDArray[Any]) -> float:
    r"""Returns the standard error of a mean, :math:`\sqrt{\frac{1}{N(N-1)} \sum_n (x_n - \bar x)^2}`; nan for N < 2.

    Example:
        >>> import numpy as np
        >>> error_of_mean(np.array([1.0, 3.0]))
        1.0
    """
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def binomial_error(share: float, count: float) -> float:
    """Returns the standard error of a share of ``count`` independent samples; nan for none."""
    return math.sqrt(max(share * (1 - share), 0.0) / count) if count else math.nan


def root_of_squares(*errors: float) -> float | None:
    """Returns the root of the sum of squares of independent errors; None where one of them is not known."""
    total = sum(error**2 for error in errors)
    return math.sqrt(total) if math.isfinite(total) else None


def scaled(wrong: float, target: NDArray[Any], reference: NDArray[Any], wrongs: NDArray[Any]) -> Estimate:
    r"""Scales the reference's loss or error rate by a ratio of means.

    .. math:: \hat w = w \, \frac{\bar t}{\bar r}, \qquad
              \mathrm{se}^2 = \hat w^2 \Big(\mathrm{se}^2\big[\tfrac{t_n}{\bar t}\big]
              + \mathrm{se}^2\big[\tfrac{w_n}{\bar w} - \tfrac{r_n}{\bar r}\big]\Big)

    with one number for each sample of the target (t) and of the reference (r, whose mean is positive), and the loss or error
    w_n of each sample of the reference. The error is by the delta method; what was found on the same sample is taken as a
    pair.

    Example:
        >>> import numpy as np
        >>> scaled(0.5, np.array([0.2, 0.4]), np.array([0.1, 0.2]), np.array([0.0, 1.0])).value
        1.0
    """
    of_target, of_reference, of_wrongs = float(target.mean()), float(reference.mean()), float(wrongs.mean())
    value = wrong * of_target / of_reference
    if not value or not of_wrongs:
        return Estimate(value)
    pairs = wrongs / of_wrongs - reference / of_reference
    relative = root_of_squares(error_of_mean(target / of_target), error_of_mean(pairs))
    return Estimate(value, None if relative is None else abs(value) * relative)

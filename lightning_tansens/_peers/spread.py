"""Variances of means, from sums."""

from __future__ import annotations

import math

from torch import Tensor


def variance_of_mean(total: Tensor | float, squares: Tensor | float, count: Tensor | float) -> float:
    r"""Computes the variance of a mean, :math:`\frac{1}{N(N-1)} \sum_n (x_n - \bar x)^2`, from sums.

    Args:
        total: Σ x_n.
        squares: Σ x_n².
        count: N.

    Returns:
        The variance; nan for fewer than two samples.

    Example:
        >>> variance_of_mean(4.0, 10.0, 2)  # of 1 and 3
        1.0

    """
    total, squares, count = float(total), float(squares), float(count)
    if count < 2:
        return math.nan
    return max(squares - total**2 / count, 0.0) / (count * (count - 1))


def standard_error(*variances: float) -> float | None:
    """Returns the root of the sum of independent variances; None where one of them is not known."""
    total = sum(variances)
    return math.sqrt(total) if math.isfinite(total) else None

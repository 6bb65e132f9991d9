"""Correlation coefficients of two series."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import stats

#: With two points a correlation is ±1 whatever they are.
MIN_POINTS = 3


def correlations(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Returns Pearson's and Spearman's coefficients over the places that both have; nothing where undefined.

    Args:
        first: One series; nan for a missing value.
        second: The other one, of the same length.

    Example:
        >>> correlations([1, 2, 3], [1, 2, 4])["spearman"]
        1.0

    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < MIN_POINTS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        found = {"pearson": stats.pearsonr(x, y).statistic, "spearman": stats.spearmanr(x, y).statistic}
    return {kind: float(value) for kind, value in found.items() if np.isfinite(value)}

"""How closely what is measured follows the generalisation gap over the epochs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from lightning_tansens.show.keys import ACTUAL, Keys

#: With two points a correlation is ±1 whatever they are.
MIN_POINTS = 3


def gap_correlations(
    history: Sequence[Mapping[str, float]], reference: str, targets: Sequence[str], keys: Keys | None = None
) -> dict[str, float]:
    r"""Computes the correlations over time of the generalisation gap with everything measured on a target set.

    .. math:: \mathrm{gap}_t = |l(X_{te}; \theta_t) - l(X_{ref}; \theta_t)|

    (Section 5 of Rácz et al. 2023, which reports Pearson's coefficient). Coefficients are left out where there are fewer
    than three measurements or where one of the two does not change.

    Args:
        history: One row of logged values a measurement, in order; rows without a gap are passed over.
        reference: The reference's name.
        targets: The names of the target sets; one without a true loss is passed over.
        keys: How the values are named; None for ``tansens/…``.

    Returns:
        ``<prefix>/pearson/<measure>/<set>`` and ``<prefix>/spearman/<measure>/<set>``, followed by the part (layer,
        output, class) where the measure has parts; each between −1 and 1.

    Example:
        >>> rows = [{"tansens/train_loss": 1, "tansens/test_loss/actual": 1 + t, "tansens/m/test": t**2} for t in range(4)]
        >>> {key: f"{value:.2f}" for key, value in gap_correlations(rows, "train", ["test"]).items()}
        {'tansens/pearson/m/test': '0.96', 'tansens/spearman/m/test': '1.00'}

    """
    keys = keys or Keys()
    found = {}
    for target in targets:
        losses = keys.labelled(reference, "loss"), keys.estimate(target, "loss", ACTUAL)
        rows = [row for row in history if all(key in row for key in losses)]
        gaps = [abs(row[losses[1]] - row[losses[0]]) for row in rows]
        for name in _measured_on(target, rows[-1] if rows else {}, keys.prefix):
            key = keys.value(name)
            points = [(row[key], gap) for row, gap in zip(rows, gaps, strict=True) if key in row]
            for kind, value in correlations(*zip(*points, strict=True)).items():
                found[keys.value(kind, name)] = value
    return found


def correlations(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Returns Pearson's and Spearman's coefficients of two series, or nothing where they are not defined."""
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(x) < MIN_POINTS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        both = {"pearson": stats.pearsonr(x, y).statistic, "spearman": stats.spearmanr(x, y).statistic}
    return {kind: float(value) for kind, value in both.items() if np.isfinite(value)}


def _measured_on(target: str, row: Mapping[str, float], prefix: str) -> list[str]:
    """The names ``<measure>/<set>`` and ``<measure>/<set>/<part>`` in a row of logged values."""
    names = [key.removeprefix(f"{prefix}/") for key in row if key.startswith(f"{prefix}/")]
    own = ("pearson", "spearman", "class_loss")
    return [name for name in names if name.split("/")[1:2] == [target] and name.split("/")[0] not in own]

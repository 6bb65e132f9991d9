"""How closely what is measured follows the generalisation gap over the epochs."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from lightning_tansens.record import Record, SetRecord

#: With two points a correlation is ±1 whatever they are.
MIN_POINTS = 3


def correlations(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Returns Pearson's and Spearman's coefficients over the places where neither is nan; nothing where undefined.

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


def gap_correlations(records: Sequence[Record], target: str) -> dict[str, float]:
    r"""Computes the correlations over time of the generalisation gap with everything measured on a target.

    .. math:: \mathrm{gap}_t = |l(X_{te}; \theta_t) - l(X_{ref}; \theta_t)|

    (Section 5 of Rácz et al. 2023, which reports Pearson's coefficient). Coefficients are left out where fewer than
    three measurements have a gap or where one of the two does not change.

    Returns:
        By ``pearson/<value>`` and ``spearman/<value>``, followed by the part (layer, output, class) of a measure with parts:
        :attr:`SetRecord.correlations <lightning_tansens.record.SetRecord>`.

    Example:
        >>> from lightning_tansens.record import MeasureRecord
        >>> def record(t):
        ...     found = {"m": MeasureRecord({"m": float(t**2)})}
        ...     return Record(t, t, SetRecord("train", loss=1.0), {"test": SetRecord("test", loss=1.0 + t, measures=found)})
        >>> {name: f"{value:.2f}" for name, value in gap_correlations([record(t) for t in range(4)], "test").items()}
        {'pearson/m': '0.96', 'spearman/m': '1.00'}
    """
    points: list[tuple[float, Mapping[str, float]]] = []
    for record in records:
        measured = record.targets.get(target)
        if measured is not None and measured.loss is not None and record.reference.loss is not None:
            points.append((abs(measured.loss - record.reference.loss), _measured(measured)))
    if not points:
        return {}
    found = {}
    for name in points[-1][1]:
        both = [(values[name], gap) for gap, values in points if name in values]
        for kind, coefficient in correlations(*zip(*both, strict=True)).items():
            found[f"{kind}/{name}"] = coefficient
    return found


def _measured(one: SetRecord) -> dict[str, float]:
    """Returns all measured values, by name, and by ``<measure>/<part>``."""
    found = {name: value for measure in one.measures.values() for name, value in measure.values.items()}
    for key, measure in one.measures.items():
        found |= {f"{key}/{part}": value for part, value in measure.parts.items()}
    return {**found, **one.scores}

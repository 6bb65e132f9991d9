"""Errors of the estimators, with confidence intervals by a paired bootstrap over the sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from results import FITTED_ON, Row, Set

from lightning_tansens.estimators import Calibrated
from lightning_tansens.record import TRIVIAL

DRAWS = 2000


@dataclass(frozen=True)
class Rank:
    """An estimator's place.

    Attributes:
        estimator: Its name.
        mae: Its mean absolute error, over the sets and the networks.
        ratio: That over the trivial estimate's, with a confidence interval of 95 %.
        best: The share of the bootstrap's draws in which it has the least error.
        undefined: The share of the sets and networks of which it has no estimate; there it is given the trivial one.

    """

    estimator: str
    mae: float
    ratio: tuple[float, float, float]
    best: float
    undefined: float


def ranking(rows: Sequence[Row], seed: int = 0) -> list[Rank]:
    """Ranks the estimators of one quantity by their mean absolute error; sets are drawn anew, with all networks on them.

    Args:
        rows: Estimates of one quantity.
        seed: Seed of the draws.

    """
    errors, undefined = error_table(rows)
    sets = list(dict.fromkeys(row.on for row in rows))
    means = {name: np.array([np.mean(found[on]) for on in sets]) for name, found in errors.items()}
    draws = np.random.default_rng(seed).integers(len(sets), size=(DRAWS, len(sets)))
    drawn = {name: values[draws].mean(1) for name, values in means.items()}
    least = np.array(list(drawn))[np.argmin(np.stack(list(drawn.values())), axis=0)]
    ranks = []
    for name, values in means.items():
        low, high = np.quantile(drawn[name] / drawn[TRIVIAL], [0.025, 0.975])
        ratio = (float(values.mean() / means[TRIVIAL].mean()), float(low), float(high))
        ranks.append(Rank(name, float(values.mean()), ratio, float((least == name).mean()), undefined[name]))
    return sorted(ranks, key=lambda rank: rank.mae)


def error_table(rows: Iterable[Row]) -> tuple[dict[str, dict[Set, list[float]]], dict[str, float]]:
    """Returns each estimator's absolute errors by set, one for each network, and the share of those it does not have."""
    of_points: dict[tuple[object, Set], dict[str, float]] = {}
    for row in rows:
        of_points.setdefault((row.network, row.on), {})[row.estimator] = abs(row.estimate - row.actual)
    names = dict.fromkeys(name for found in of_points.values() for name in found)
    errors: dict[str, dict[Set, list[float]]] = {name: {} for name in names}
    for (_, on), found in of_points.items():
        for name in names:
            errors[name].setdefault(on, []).append(found.get(name, found[TRIVIAL]))
    undefined = {name: float(np.mean([name not in found for found in of_points.values()])) for name in names}
    return errors, undefined


def family_errors(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Returns each estimator's mean absolute error on each family; that of the calibrated one where it was not fitted."""
    errors, _ = error_table(rows)
    families = list(dict.fromkeys(row.on[0] for row in rows))
    found = {
        name: {of: float(np.mean([np.mean(values) for on, values in of_name.items() if on[0] == of])) for of in families}
        for name, of_name in errors.items()
    }
    for family in FITTED_ON:
        if Calibrated.key in found and family in families:
            found[Calibrated.key][family] = math.nan
    return found


def paired_difference(rows: Sequence[Row], first: str, second: str, seed: int = 0) -> tuple[float, float, float]:
    """Returns the difference of two estimators' errors, first − second, with an interval by drawing whole families anew."""
    errors, _ = error_table(rows)
    families = list(dict.fromkeys(row.on[0] for row in rows))
    of_families = []
    for family in families:
        pairs = [np.mean(errors[first][on]) - np.mean(errors[second][on]) for on in errors[first] if on[0] == family]
        of_families.append((np.sum(pairs), len(pairs)))
    sums, counts = np.array(of_families).T
    draws = np.random.default_rng(seed).integers(len(families), size=(DRAWS, len(families)))
    low, high = np.quantile(sums[draws].sum(1) / counts[draws].sum(1), [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)

"""The charts of a run's page: which logged values belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import get_args

from lightning_tansens.metrics.base import Measure, SensitivityMeasure
from lightning_tansens.show.keys import ACTUAL, TRIVIAL, Keys, Quantity

#: For each category and each chart, its kind ("Multiline" or "Margin") and its keys, as TensorBoard wants them: a line for
#: each regular expression, or the three keys of a value with a band.
Layout = dict[str, dict[str, list[object]]]


def make_layout(row: Mapping[str, float], keys: Keys | None = None, correlated: bool = False) -> Layout:
    """Groups the values of a measurement into charts, one for each question.

    Args:
        row: The values of the run's first measurement, by key.
        keys: How they are named; None for ``tansens/…``.
        correlated: Whether correlations with the gap will follow, which take three measurements.

    Returns:
        The charts: for each test set the estimates of loss and accuracy against the truth, each estimate with its standard
        error, each measure on all sets, the share of each layer, active nodes, correlations, and what a measurement costs.

    Example:
        >>> row = {"tansens/train_loss": 1.0, "tansens/test_loss/trivial": 1.0, "tansens/seconds": 0.1}
        >>> [chart for charts in make_layout(row).values() for chart in charts]
        ['test loss', 'seconds a measurement takes']

    """
    keys = keys or Keys()
    estimates: dict[str, list[object]] = {}
    bands: dict[str, list[object]] = {}
    trust: dict[str, list[object]] = {}
    for target in keys.targets(row):
        for quantity in get_args(Quantity):
            names = list(keys.estimates(row, target, quantity))
            if not names:
                continue
            # the truth has its line also without labels: TensorBoard shows a chart twice if runs differ in its lines
            lines = [keys.estimate(target, quantity, name) for name in [ACTUAL, *names]]
            estimates[f"{target} {quantity}"] = _lines(lines)
            trusted = [keys.trusted(key) for key in lines if keys.trusted(key) in row]
            if trusted:
                trust[f"{target} {quantity}: 1 if there is no reason for doubt"] = _lines(trusted)
            for key in lines:
                if keys.stderr(key) in row:
                    name = key.rpartition("/")[2]
                    bands[f"{target} {quantity}: {name} ± its standard error"] = [
                        "Margin",
                        [key, f"{key}_lower", f"{key}_upper"],
                    ]
    measures: dict[str, list[object]] = {}
    shares: dict[str, list[object]] = {}
    nodes: dict[str, list[object]] = {}
    for name, sets in _values_on_sets(row, keys).items():
        charts = nodes if name.startswith("active_nodes") else measures
        charts[name] = _lines(keys.value(name, set_name) for set_name in sets)
        for set_name in sets:
            parts = [key for key in row if key.startswith(keys.value(name, set_name) + "/")]
            if parts:
                shares[f"{name} of {set_name}, by part"] = _lines(parts)
    coefficients = [rf"^{re.escape(keys.value(kind))}/" for kind in ("pearson", "spearman")]
    correlations: dict[str, list[object]] = {}
    if correlated:
        correlations["with the generalisation gap"] = ["Multiline", coefficients]
    cost: dict[str, list[object]] = {}
    if keys.value("seconds") in row:
        cost["seconds a measurement takes"] = _lines([keys.value("seconds")])
    layout = {
        "estimated against actual": estimates,
        "standard errors": bands,
        "trusted or not": trust,
        "sensitivities": measures,
        "active nodes": nodes,
        "layers, outputs, classes": shares,
        "correlations": correlations,
        "cost": cost,
    }
    return {f"{keys.prefix}: {category}": charts for category, charts in layout.items() if charts}


def compared_keys(sets: Iterable[str], measures: Iterable[Measure], keys: Keys) -> list[str]:
    """Returns the keys by which runs are compared: of the estimates, and of the truth.

    Args:
        sets: The names of the test sets.
        measures: What is measured.
        keys: How values are named.

    """
    names = [ACTUAL, TRIVIAL, *(measure.key for measure in measures if isinstance(measure, SensitivityMeasure))]
    return [keys.estimate(target, quantity, name) for target in sets for quantity in get_args(Quantity) for name in names]


def _values_on_sets(row: Mapping[str, float], keys: Keys) -> dict[str, list[str]]:
    """The sets on which each named value was taken."""
    reference = keys.reference(row)
    known = [*([reference] if reference else []), *keys.targets(row)]
    found: dict[str, list[str]] = {}
    for key in row:
        name, _, set_name = key.removeprefix(f"{keys.prefix}/").partition("/")
        if set_name in known and key.startswith(f"{keys.prefix}/"):
            found.setdefault(name, []).append(set_name)
    return found


def _lines(names: Iterable[str]) -> list[object]:
    return ["Multiline", [f"^{re.escape(name)}$" for name in names]]

"""Groups logged values into charts."""

import re
from collections.abc import Iterable, Mapping, Sequence

from lightning_tansens.record import HEADLINE, TRIVIAL, Record
from lightning_tansens.show.keys import ACTUAL, Keys
from lightning_tansens.show.words import SHOWN, headline

#: For each category and each chart, its kind ("Multiline" or "Margin") and its keys, as TensorBoard wants them: a line for
#: each regular expression, or the three keys of a value with a band.
Layout = Mapping[str, Mapping[str, list[object]]]


def make_layout(record: Record, keys: Keys | None = None, correlated: bool = False) -> Layout:
    """Groups the values of a measurement into charts, one for each question.

    Args:
        record: The run's first measurement.
        keys: How the values are named; None for ``tansens/…``.
        correlated: Whether correlations with the gap will follow, which take three measurements.

    Returns:
        The charts: for each target what stands for its accuracy and its loss, with the interval; all estimates against the
        truth and the reference's own value; each measure on all sets, the parts of each measure, correlations, and what a
        measurement costs.

    Example:
        >>> from lightning_tansens.record import Estimate, SetRecord
        >>> test = SetRecord("test", estimates={"loss": {"trivial": Estimate(1.0)}})
        >>> record = Record(0, 9, SetRecord("train", loss=1.0), {"test": test}, seconds={"total": 0.1})
        >>> [chart for charts in make_layout(record).values() for chart in charts]
        ['loss of test', 'seconds a measurement takes']
    """
    keys = keys or Keys()
    answers: dict[str, list[object]] = {}
    estimates: dict[str, list[object]] = {}
    for target in record.targets.values():
        for quantity in SHOWN:
            title = f"{quantity} of {target.name}"
            if quantity not in target.estimates:
                continue
            stands, awaited = headline(target, quantity), target.missing.get(HEADLINE)
            late = stands is None and awaited is not None and awaited.too_early
            key = keys.estimate(target.name, quantity, HEADLINE if stands is None else stands[0])
            if late or (stands is not None and stands[1].low is not None):
                answers[f"{title}, with 95 % interval"] = ["Margin", [key, *keys.interval(key)]]
            # the truth has its line also without labels: TensorBoard shows a chart twice if runs differ in its lines
            names = dict.fromkeys([ACTUAL, *target.estimates[quantity], *([HEADLINE] if late else [])])
            lines = {name: keys.estimate(target.name, quantity, name) for name in names}
            lines[TRIVIAL] = keys.labelled(record.reference.name, quantity)
            estimates[title] = _lines(lines.values())
    parts: dict[str, list[object]] = {}
    on_sets: dict[str, list[str]] = {}
    for one in record.sets:
        for name in [*(name for measure in one.measures.values() for name in measure.values), *one.scores]:
            on_sets.setdefault(name, []).append(keys.value(name, one.name))
        of_parts: dict[str, Iterable[object]] = {key: measure.parts for key, measure in one.measures.items()}
        for key, found in {**of_parts, "class_loss": one.class_losses}.items():
            if found:
                parts[f"{key} of {one.name}, by part"] = _lines(keys.value(key, one.name, str(part)) for part in found)
    values = {name: _lines(lines) for name, lines in on_sets.items()}
    nodes = {name: chart for name, chart in values.items() if name.startswith("active_nodes")}
    coefficients: list[object] = [rf"^{re.escape(keys.value(kind))}/" for kind in ("pearson", "spearman")]
    layout: dict[str, dict[str, list[object]]] = {
        "the unlabelled sets": answers,
        "estimated against actual": estimates,
        "sensitivities": {name: chart for name, chart in values.items() if name not in nodes},
        "active nodes": nodes,
        "layers, outputs, classes": parts,
        "correlations": {"with the generalisation gap": ["Multiline", coefficients]} if correlated else {},
        "cost": {"seconds a measurement takes": _lines([keys.value("seconds")])} if "total" in record.seconds else {},
    }
    return {f"{keys.prefix}: {category}": charts for category, charts in layout.items() if charts}


def compared_keys(
    targets: Sequence[str], estimators: Sequence[str], keys: Keys, labelled: bool, record: Record | None = None
) -> list[str]:
    """Returns the keys by which runs are compared: the headline, the truth, the reference's own, then other estimates.

    Before the first measurement, whose ``record`` knows the sets and what is estimated, these are all keys that may come.
    """
    quantities, own = list(SHOWN), []
    if record is not None:
        targets = list(record.targets)
        own = [keys.labelled(record.reference.name, of) for of in SHOWN if record.reference.labelled(of) is not None]
        quantities = [of for of in SHOWN if any(target.estimates.get(of) for target in record.targets.values())]
    first = [*([HEADLINE] if HEADLINE in estimators else []), *([ACTUAL] if labelled else [])]
    others = [name for name in estimators if name not in (HEADLINE, TRIVIAL)]

    def of(names: Sequence[str]) -> list[str]:
        return [keys.estimate(target, quantity, name) for name in names for quantity in quantities for target in targets]

    return [*of(first), *own, *of(others)]


def _lines(names: Iterable[str]) -> list[object]:
    return ["Multiline", [f"^{re.escape(name)}$" for name in names]]

"""What a run says on the console: a line for each set, a table at the end, a bar while it takes long."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tqdm.auto import tqdm

from lightning_tansens.record import Estimate, Record, SetRecord
from lightning_tansens.show.keys import HEADLINE, QUANTITIES, TRIVIAL, Quantity
from lightning_tansens.show.scorecard import Scorecard

#: Columns of a terminal.
WIDTH = 80

#: Which single estimator is shown without it, the best of the benchmark first.
_BEST_KNOWN: dict[Quantity, tuple[str, ...]] = {
    "loss": ("entropy_ratio", "entropy_difference", "calibrated"),
    "accuracy": ("atc_confidence", "cot", "atc_entropy", "cbpe", "calibrated"),
}

_TRUTH = "true"


def headline(one: SetRecord, quantity: Quantity) -> tuple[str, Estimate] | None:
    """Returns the name and the estimate that stand for a set's loss or accuracy; None where nothing is estimated.

    Args:
        one: What was found on the set.
        quantity: "loss" or "accuracy".

    """
    found = one.estimates.get(quantity, {})
    names = [name for name in (HEADLINE, *_BEST_KNOWN[quantity], *found) if name in found and name != TRIVIAL]
    name = next(iter([*names, *found]), None)
    return None if name is None else (name, found[name])


def measurement_line(record: Record) -> str:
    """Says what a measurement has found: the reference's own values, and a line for each target.

    Args:
        record: The measurement.

    Returns:
        Lines of at most 80 columns. A target has its estimates with their intervals and a verdict; without a headline it has
        the best single estimator's, with its name. Where labels are compared, the truth stands below.

    Example:
        >>> loss = {"trivial": Estimate(2.92), "estimate": Estimate(3.61, low=2.98, high=4.34, verdict="worse")}
        >>> test = SetRecord("test", loss=3.7, estimates={"loss": loss})
        >>> print(measurement_line(Record(9, 90, SetRecord("val", loss=2.92), {"test": test}, seconds={"total": 0.61})))
        epoch 9  val: loss 2.92                                                    0.6 s
          test    loss 3.61 [2.98, 4.34]  worse
            true  loss 3.70

    """
    own = [
        f"{quantity} {_said(quantity, value)}"
        for quantity in _SHOWN
        if (value := record.reference.labelled(quantity)) is not None
    ]
    head = f"epoch {record.epoch}  {record.reference.name}: {', '.join(own) or 'no loss'}"
    if "total" in record.seconds:
        head = f"{head:<{WIDTH - 8}}{record.seconds['total']:6.1f} s"
    rows, verdicts = [], []
    for target in record.targets.values():
        shown = {quantity: headline(target, quantity) for quantity in _SHOWN}
        rows.append([f"  {target.name}", *(_estimated(quantity, found) for quantity, found in shown.items())])
        verdicts.append(_judged(record, [found[1] for found in shown.values() if found]))
        truth = {quantity: value for quantity in _SHOWN if (value := target.labelled(quantity)) is not None}
        if truth:
            rows.append([f"    {_TRUTH}", *(f"{of} {_said(of, truth[of])}" if of in truth else "" for of in _SHOWN)])
            verdicts.append("")
    lines = [head]
    for line, verdict in zip(_aligned(rows, str.ljust), verdicts, strict=True):
        beside = f"{line}  {verdict}".rstrip()
        lines += [beside] if len(beside) <= WIDTH else [line.rstrip(), f"    {verdict}"]
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)


def summary_table(history: Sequence[Record]) -> str:
    r"""Says how the estimates did over a run: the last of each, and its mean absolute error over the measurements.

    .. math:: MAE(m) = \frac{1}{|E_m|} \sum_{e \in E_m} |\hat l_m(e) - l(e)|

    over the measurements :math:`E_m` that have both the estimate and the truth.

    Args:
        history: The records of a run.

    Returns:
        A table of 80 columns for each target, with a row for each estimator; the columns of errors are there where labels
        were compared. "ratio" is the error over the trivial estimate's: below one, the estimator helped.

    Example:
        >>> loss = {"trivial": Estimate(1.0), "empirical": Estimate(1.25)}
        >>> test = SetRecord("test", loss=1.5, estimates={"loss": loss})
        >>> print(summary_table([Record(0, 9, SetRecord("val", loss=1.0), {"test": test})]))
        test, epoch 0    loss   error  ratio
        trivial        1.0000  0.5000   1.00
        empirical      1.2500  0.2500   0.50
        true           1.5000

    """
    targets = dict.fromkeys(target for record in history for target in record.targets)
    return "\n\n".join(_table_of(history, target) for target in targets)


def aligned_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligns cells: the first column to the left, the others to the right; columns of empty cells are left out.

    Args:
        rows: The cells, row by row; the first row is the heading.

    Example:
        >>> print(aligned_table([["set", "loss"], ["test", "1.25"]]))
        set   loss
        test  1.25

    """
    kept = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return "\n".join(line.rstrip() for line in _aligned(list(zip(*kept, strict=True)), str.rjust))


def slow_progress(total_batches: int, description: str, after_seconds: float = 3, enabled: bool = True) -> tqdm:
    """Returns a context manager that shows a bar if its block takes long, and takes it away afterwards.

    Args:
        total_batches: The number of calls of ``update()`` to come.
        description: What is going on.
        after_seconds: From when on the bar is shown.
        enabled: Whether it may be shown at all: on rank 0, where the user wants bars.

    Example:
        >>> with slow_progress(2, "measuring") as progress:
        ...     for _ in range(2):
        ...         _ = progress.update()

    """
    return tqdm(
        total=total_batches,
        desc=description,
        delay=after_seconds,
        disable=not enabled,
        leave=False,
        dynamic_ncols=True,
    )


#: The order on the console: the accuracy is what most people look for.
_SHOWN: tuple[Quantity, ...] = ("accuracy", "loss")


def _estimated(quantity: Quantity, found: tuple[str, Estimate] | None) -> str:
    if found is None:
        return ""
    name, estimate = found
    said = f"{quantity} {_said(quantity, estimate.value)}"
    if estimate.low is not None and estimate.high is not None:
        said += f" [{_said(quantity, estimate.low)}, {_said(quantity, estimate.high)}]"
    return said if name == HEADLINE else f"{said} ({name})"


def _judged(record: Record, estimates: Sequence[Estimate]) -> str:
    """The first verdict, and the first doubt about any of the estimates."""
    verdict = next((estimate.verdict for estimate in estimates if estimate.verdict is not None), None)
    said = f"like {record.reference.name}" if verdict == "like the reference" else verdict
    doubt = next((doubt for estimate in estimates for doubt in estimate.doubts), None)
    return ": ".join(filter(None, [said, doubt]))


def _table_of(history: Sequence[Record], target: str) -> str:
    last = next(record for record in reversed(history) if target in record.targets)
    found = last.targets[target]
    scores = {(s.quantity, s.estimator): s for s in Scorecard.from_history(history).compute() if s.set_name == target}
    estimates = [one.estimates for record in history if (one := record.targets.get(target)) is not None]
    names = dict.fromkeys(name for each in estimates for of in each.values() for name in of)
    rows = [[f"{target}, epoch {last.epoch}"], *([name] for name in names), [_TRUTH]]
    for quantity in QUANTITIES:
        rows[0] += [quantity, "error", "ratio"]
        for cells, name in zip(rows[1:-1], names, strict=True):
            estimate, score = found.estimates.get(quantity, {}).get(name), scores.get((quantity, name))
            cells.append(_fixed(None if estimate is None else estimate.value))
            cells += [_fixed(None if score is None else score.mae), _fixed(None if score is None else score.mae_ratio, 2)]
        rows[-1] += [_fixed(found.labelled(quantity)), "", ""]
    return aligned_table(rows if any(rows[-1][1:]) else rows[:-1])


def _aligned(rows: Sequence[Sequence[str]], align: Callable[[str, int], str]) -> list[str]:
    """The lines of a table, padded: the first column to the left, the others as asked; without empty columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = list(zip((str.ljust, *[align] * (len(widths) - 1)), widths, strict=False))
    return ["  ".join(by(cell, width) for cell, (by, width) in zip(row, columns, strict=True) if width) for row in rows]


def _said(quantity: Quantity, value: float) -> str:
    return f"{value:.2f}" if quantity == "accuracy" else f"{value:#.3g}".rstrip(".")


def _fixed(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"

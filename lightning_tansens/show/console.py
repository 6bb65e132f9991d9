"""Texts for the console: a line for each set, a table at the end, and a bar while something takes long."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from lightning_tansens.record import HEADLINE, TRIVIAL, Quantity, Record
from lightning_tansens.show.keys import ALL_SETS
from lightning_tansens.show.scorecard import Scorecard
from lightning_tansens.show.words import SHOWN, SetAnswer, answer, said, shortened

#: Columns of a terminal.
WIDTH = 80

#: How long something takes before a bar shows how far it is.
SECONDS_BEFORE_BAR = 3.0

#: Columns for the name of a set, so that values and verdict have room.
_NAME = 12

_TRUTH = "true"


def measurement_text(record: Record) -> str:
    """Returns what a measurement found: the reference's values, and a line for each target.

    Returns:
        Lines of at most 80 columns. A target has its estimates with their intervals and a verdict; without a headline it has
        the best single estimator's, with its name. Where labels are compared, the truth stands below.

    Example:
        >>> from lightning_tansens.record import Estimate, SetRecord
        >>> loss = {"trivial": Estimate(2.92), "estimate": Estimate(3.61, low=2.98, high=4.34, verdict="worse")}
        >>> test = SetRecord("test", loss=3.7, estimates={"loss": loss})
        >>> print(measurement_text(Record(9, 90, SetRecord("val", loss=2.92), {"test": test}, seconds={"total": 0.61})))
        epoch 9  val: loss 2.92                                                    0.6 s
          test    loss 3.61 [2.98, 4.34]  worse
            true  loss 3.70
    """
    head = f"epoch {record.epoch}  {_own_values(record)}"
    if "total" in record.seconds:
        head = f"{head:<{WIDTH - 8}}{record.seconds['total']:6.1f} s"
    rows, verdicts = [], []
    short = shortened(record.targets, _NAME)
    for name, target in record.targets.items():
        found = answer(record, name)
        values = [f"{of} {found.value(of)}" if of in found.estimates else "" for of in SHOWN]
        rows.append([f"  {short[name]}", *values])
        said_of_it, joint = [found.verdict, *found.doubts[:1]], ": " if found.kind in ("unsure", None) else ", but "
        if not found.estimates and (why := target.missing.get(HEADLINE)) is not None:
            said_of_it = ["no estimate yet"] if why.too_early else ["no estimate", why.reason]
        verdicts.append(joint.join(filter(None, said_of_it)))
        truth = {quantity: value for quantity in SHOWN if (value := target.labelled(quantity)) is not None}
        if truth:
            rows.append([f"    {_TRUTH}", *(f"{of} {said(of, truth[of])}" if of in truth else "" for of in SHOWN)])
            verdicts.append("")
    lines = [head]
    for line, verdict in zip(_aligned(rows, str.ljust), verdicts, strict=True):
        beside = f"{line}  {verdict}".rstrip()
        lines += [beside] if len(beside) <= WIDTH or not verdict else [line.rstrip(), f"    {verdict}"]
    return "\n".join(map(_cut, lines))


def summary_table(records: Sequence[Record], scorecard: Path | None = None) -> str:
    r"""Returns the last estimates of a run, and their mean errors where the truth is known.

    .. math:: \mathrm{off} = \frac{1}{|E|} \sum_{e \in E} |\hat l(e) - l(e)|

    over all sets and all measurements :math:`E` that have both the estimate and the truth.

    Returns:
        A table of 80 columns with a row for each set: its last estimates with their intervals, how much they differ from the
        reference's own values, and the verdict. Where labels were compared, a line says how far the estimates were off, and
        one where the scores of all estimators are: in the file ``scorecard``, if there is one.

    Example:
        >>> from lightning_tansens.record import Estimate, SetRecord
        >>> loss = {"trivial": Estimate(1.0), "estimate": Estimate(1.25, low=1.1, high=1.4, verdict="worse")}
        >>> test = SetRecord("test", loss=1.5, estimates={"loss": loss})
        >>> print(summary_table([Record(0, 9, SetRecord("val", loss=1.0), {"test": test})]))
        epoch 0  val: loss 1.00
          set                loss  vs val  verdict
          test  1.25 [1.10, 1.40]   +0.25    worse
        mean error: loss 0.250; with val's own values: 0.500
        the scores of all estimators: monitor.scorecard
    """
    if not records:
        return ""
    last = records[-1]
    found = {name: answer(last, name) for name in last.targets}
    lines = [_cut(f"epoch {last.epoch}  {_own_values(last)}"), *(_last_estimates(last, found) if found else ())]
    errors = _off(records, found)
    lines += errors
    if errors:
        here = scorecard is not None and scorecard.is_relative_to(Path.cwd())
        where = scorecard.relative_to(Path.cwd()) if scorecard is not None and here else scorecard
        lines.append(f"the scores of all estimators: {where or 'monitor.scorecard'}")
    return "\n".join(lines)


def aligned_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligns the cells of rows, the heading first: the first column to the left, the others to the right.

    Columns of empty cells are left out.

    Example:
        >>> print(aligned_table([["set", "loss"], ["test", "1.25"]]))
        set   loss
        test  1.25
    """
    kept = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return "\n".join(line.rstrip() for line in _aligned(list(zip(*kept, strict=True)), str.rjust))


def slow_progress(total_batches: int, description: str, enabled: bool = True) -> tqdm:
    """Returns a context manager that shows a bar if its block takes long, and takes it away afterwards.

    Args:
        total_batches: The number of calls of ``update()`` to come.
        description: What is going on.
        enabled: Whether it may be shown at all: on rank 0, where the user wants bars.

    Example:
        >>> with slow_progress(2, "measuring") as progress:
        ...     for _ in range(2):
        ...         _ = progress.update()
    """
    look = {"desc": description, "delay": SECONDS_BEFORE_BAR, "leave": False, "dynamic_ncols": True}
    return tqdm(total=total_batches, disable=not enabled, **look)


def _last_estimates(record: Record, found: Mapping[str, SetAnswer]) -> list[str]:
    """The rows of the sets below their heading. Where they are too long, verdicts stand on lines of their own."""
    rows, short = [], shortened(found, _NAME)
    for name, one in found.items():
        cells = [cell for of in SHOWN for cell in (one.value(of), _change(record, one, of))]
        rows.append([f"  {short[name]}", *cells, one.mark if one.estimates else "no estimate"])
    lines: list[str] = []
    for change in (f"vs {record.reference.name}", "change"):
        headings = ["  set", *(heading for of in SHOWN for heading in (of, change)), "verdict"]
        lines = aligned_table([headings, *rows]).split("\n")
        if max(map(len, lines)) <= WIDTH:
            return lines
    head, *others = aligned_table([row[:-1] for row in (headings, *rows)]).split("\n")
    pairs = [(_cut(line), f"    {row[-1]}") for line, row in zip(others, rows, strict=True)]
    return [_cut(head), *(line for pair in pairs for line in pair if line.strip())]


def _own_values(record: Record) -> str:
    own = [f"{of} {said(of, value)}" for of in SHOWN if (value := record.reference.labelled(of)) is not None]
    return f"{record.reference.name}: {', '.join(own) or 'no loss'}"


def _change(record: Record, found: SetAnswer, quantity: Quantity) -> str:
    own = record.reference.labelled(quantity)
    if own is None or quantity not in found.estimates:
        return ""
    decimals = len(said(quantity, own).partition(".")[2])
    change = round(found.estimates[quantity][1].value - own, decimals) + 0.0  # no minus before a zero
    return f"{change:+.{decimals}f}"


def _off(records: Sequence[Record], found: Mapping[str, SetAnswer]) -> list[str]:
    """How far what stands for the sets was off the truth, and the reference's own value, in one line."""
    scores = {(one.quantity, one.set_name, one.estimator): one for one in Scorecard.from_records(records).compute()}
    own, reference = [], []
    for quantity in SHOWN:
        stands = next((one.estimates[quantity][0] for one in found.values() if quantity in one.estimates), "")
        sets = dict.fromkeys(on for of, on, name in scores if (of, name) == (quantity, stands))
        every = ALL_SETS if ALL_SETS in sets else next(iter(sets), "")
        score, trivial = (scores.get((quantity, every, name)) for name in (stands, TRIVIAL))
        if score is not None and score.mae is not None:
            own.append(f"{quantity} {said(quantity, score.mae)}")
            if trivial is not None and trivial.mae is not None and stands != TRIVIAL:
                reference.append(said(quantity, trivial.mae))
    than = f"; with {records[-1].reference.name}'s own values: {', '.join(reference)}" if reference else ""
    return [f"mean error: {', '.join(own)}{than}"] if own else []


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _aligned(rows: Sequence[Sequence[str]], align: Callable[[str, int], str]) -> list[str]:
    """The lines of a table, padded: the first column to the left, the others as asked; without empty columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = list(zip((str.ljust, *[align] * (len(widths) - 1)), widths, strict=False))
    return ["  ".join(by(cell, width) for cell, (by, width) in zip(row, columns, strict=True) if width) for row in rows]

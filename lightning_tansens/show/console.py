"""What a run says on the console: a line for each measurement, a table at the end, a bar while it takes long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm.auto import tqdm

from lightning_tansens.estimators.trust import Reason
from lightning_tansens.show.keys import ACTUAL, TRIVIAL, Keys, Quantity
from lightning_tansens.show.scorecard import Scorecard

Row = Mapping[str, float]


def measurement_line(row: Row, keys: Keys | None = None, doubts: Mapping[str, Sequence[Reason]] | None = None) -> str:
    """Says what a measurement has found: the first measure's estimates, beside the trivial ones and the truth.

    Args:
        row: An entry of a monitor's ``history``.
        keys: How the values are named; None for ``tansens/…``.
        doubts: For each estimate, by key, the reasons not to trust it.

    Returns:
        One line for each test set; the last one ends with the seconds.

    Example:
        >>> row = {"epoch": 3, "tansens/test_loss/trivial": 1.1, "tansens/test_loss/empirical": 1.234}
        >>> measurement_line({**row, "tansens/test_loss/actual": 1.31, "tansens/seconds": 0.4})
        'epoch 3: test loss 1.23 (empirical; trivial 1.10, actual 1.31), 0.4 s'

    """
    keys = keys or Keys()
    parts = [", ".join(_said_of(row, target, keys, doubts or {})) for target in keys.targets(row)] or ["no estimate"]
    seconds = row.get(keys.value("seconds"))
    if seconds is not None:
        parts[-1] += f", {seconds:.1f} s"
    return "\n".join(f"epoch {row['epoch']:.0f}: {part}" for part in parts)


def summary_table(history: Sequence[Row], keys: Keys | None = None) -> str:
    r"""Says how the estimates did over a run: the last of each, and its mean absolute error over the measurements.

    .. math:: MAE(m) = \frac{1}{|E_m|} \sum_{e \in E_m} |\hat l_m(e) - l(e)|

    over the measurements :math:`E_m` that have both the estimate and the truth. Beside it stands its ratio to that of the
    trivial estimate over the same measurements: below one, the measure was worth something.

    Args:
        history: A monitor's ``history``.
        keys: How the values are named; None for ``tansens/…``.

    Returns:
        A table for each test set; the columns that need the truth are there where it was logged. All that is known of the
        errors is in :func:`scorecard_table`.

    Example:
        >>> row = {"epoch": 0, "tansens/test_loss/trivial": 1.0, "tansens/test_loss/empirical": 1.25}
        >>> print(summary_table([{**row, "tansens/test_loss/actual": 1.5}]))
        test, epoch 0    loss     MAE  MAE / trivial
        trivial        1.0000  0.5000           1.00
        empirical      1.2500  0.2500           0.50
        actual         1.5000

    """
    keys = keys or Keys()
    targets = dict.fromkeys(target for row in history for target in keys.targets(row))
    return "\n\n".join(_table_of(history, target, keys) for target in targets)


def scorecard_table(scorecard: Scorecard) -> str:
    """Writes a scorecard as an aligned table, for each quantity; nothing where there is no score.

    Args:
        scorecard: The scorecard.

    Example:
        >>> scorecard = Scorecard()
        >>> scorecard.update("trivial", "loss", "test", 0, 1.0, 1.5)
        >>> print(scorecard_table(scorecard)[:48])
        loss  estimator  points  undefined     MAE     b

    """
    tables = []
    for quantity in _QUANTITIES:
        rows = [row for row in scorecard.to_rows() if row.pop("quantity") == quantity]
        if rows:
            head = [quantity, *list(rows[0])[1:]]
            tables.append(aligned_table([head, *([_said(value) for value in row.values()] for row in rows)]))
    return "\n\n".join(tables)


def aligned_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligns cells: the first column to the left, the others to the right; columns of empty cells are left out.

    Args:
        rows: The cells, row by row; the first row is the heading.

    Example:
        >>> print(aligned_table([["set", "loss"], ["test", "1.25"]]))
        set   loss
        test  1.25

    """
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for first, *others in zip(*columns, strict=True):
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def say(trainer: pl.Trainer, text: str) -> None:
    """Prints on standard output, from rank 0, above the progress bar if there is one.

    Args:
        trainer: The Trainer.
        text: One or more lines.

    """
    if not trainer.is_global_zero:
        return
    bar = trainer.progress_bar_callback
    if bar is None or isinstance(bar, TQDMProgressBar):
        tqdm.write(text)  # TQDMProgressBar.print does the same, but drops the text while no bar is active
    else:
        bar.print(text)


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


def _said_of(row: Row, target: str, keys: Keys, doubts: Mapping[str, Sequence[Reason]]) -> list[str]:
    """The loss and the accuracy of a test set; which measure estimates them is said once."""
    said: list[str] = []
    names = keys.estimates(row, target, "loss")
    name = next((name for name in names if name != TRIVIAL), TRIVIAL)
    for quantity in _QUANTITIES:
        estimates, actual = keys.estimates(row, target, quantity), keys.actual(row, target, quantity)
        if name not in estimates:
            continue
        error = row.get(keys.stderr(keys.estimate(target, quantity, name)))
        beside = {TRIVIAL: estimates.get(TRIVIAL), ACTUAL: actual}
        if said and actual is not None:
            del beside[TRIVIAL]  # the line would be too long
        known = [f"{other} {_short(value)}" for other, value in beside.items() if value is not None and other != name]
        inside = "; ".join(filter(None, ["" if said else name, ", ".join(known)]))
        said.append(
            ("" if said else f"{target} ")
            + f"{quantity} {_short(estimates[name])}"
            + ("" if error is None else f" ± {error:.1g}")
            + (f" ({inside})" if inside else "")
        )
    reasons = doubts.get(keys.estimate(target, "loss", name), ())
    if said and reasons:
        said[-1] += f" [not trusted: {'; '.join(reason.value for reason in reasons)}]"
    return said


def _table_of(history: Sequence[Row], target: str, keys: Keys) -> str:
    scores = {(s.quantity, s.set_name, s.estimator): s for s in Scorecard.from_history(history, keys).compute()}
    last = next(row for row in reversed(history) if target in keys.targets(row))
    names = dict.fromkeys(name for row in history for name in keys.estimates(row, target, "loss"))
    rows = [[f"{target}, epoch {last['epoch']:.0f}"], *([name] for name in names), [ACTUAL]]
    for quantity in _QUANTITIES:
        rows[0] += [quantity, "± stderr", "MAE", f"MAE / {TRIVIAL}"]
        for cells, name in zip(rows[1:-1], names, strict=True):
            key = keys.estimate(target, quantity, name)
            score = scores.get((quantity, target, name))
            errors = (score.mae, score.mae_ratio) if score is not None else (None, None)
            cells += [_fixed(last.get(key)), _fixed(last.get(keys.stderr(key))), _fixed(errors[0]), _fixed(errors[1], 2)]
        rows[-1] += [_fixed(keys.actual(last, target, quantity)), "", "", ""]
    return aligned_table(rows if any(rows[-1][1:]) else rows[:-1])


_QUANTITIES: tuple[Quantity, ...] = ("loss", "accuracy")


def _short(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _said(value: str | float | None) -> str:
    return _fixed(value) if isinstance(value, float) else str("" if value is None else value)


def _fixed(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"

"""Where the rows go: to the console, to a CSV file, to TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from lightning_tansens.show.console import aligned_table
from lightning_tansens.show.keys import ACTUAL, Keys, Quantity

Row = Mapping[str, float]

_QUANTITIES: tuple[Quantity, ...] = ("loss", "accuracy")


def table(rows: Sequence[Row], keys: Keys) -> str:
    """Returns a table for each test set and quantity, with one row a checkpoint.

    Args:
        rows: Logged values with ``epoch`` and ``step``.
        keys: How the values are named.

    Example:
        >>> row = {"epoch": 1, "step": 6, "tansens/test_loss/trivial": 0.5, "tansens/test_loss/actual": 0.75}
        >>> print(table([row], Keys()))
        test loss
        epoch  step  trivial  actual
        1         6   0.5000  0.7500

    """
    tables = []
    for target in dict.fromkeys(target for row in rows for target in keys.targets(row)):
        for quantity in _QUANTITIES:
            # the first row has the fewest
            names = list(dict.fromkeys(name for row in reversed(rows) for name in keys.estimates(row, target, quantity)))
            if not names:
                continue
            cells = [["epoch", "step", *names, ACTUAL]]
            for row in rows:
                values = [row.get(keys.estimate(target, quantity, name)) for name in [*names, ACTUAL]]
                shown = ["" if value is None else f"{value:.4f}" for value in values]
                cells.append([f"{row['epoch']:.0f}", f"{row['step']:.0f}", *shown])
            tables.append(f"{target} {quantity}\n{aligned_table(cells)}")
    return "\n\n".join(tables)


def write_csv(path: Path, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Writes one row a checkpoint; a value that it does not have is left empty.

    Args:
        path: The file; its folder is made.
        names: What each row begins with, the checkpoint's file.
        rows: The values by key.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = dict.fromkeys(["checkpoint", "epoch", "step", *(key for row in rows for key in row)])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows({"checkpoint": name, **row} for name, row in zip(names, rows, strict=True))


def write_events(folder: Path, rows: Sequence[Row]) -> None:
    """Writes an event file of TensorBoard, with each value at its checkpoint's step.

    Args:
        folder: The folder; it is made.
        rows: The values by key, with ``epoch`` and ``step``.

    """
    with SummaryWriter(str(folder)) as writer:
        for row in rows:
            for key, value in row.items():
                if key != "step":
                    writer.add_scalar(key, value, int(row["step"]))

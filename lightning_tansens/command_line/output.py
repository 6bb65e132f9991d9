"""Where the records go: to the console, to a CSV file, to TensorBoard."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from lightning_tansens.record import Record
from lightning_tansens.show.console import aligned_table
from lightning_tansens.show.keys import ACTUAL, QUANTITIES


def table(records: Sequence[Record]) -> str:
    """Returns a table for each test set and quantity, with one row a record.

    Example:
        >>> from lightning_tansens.record import Estimate, SetRecord
        >>> test = SetRecord("test", loss=0.75, estimates={"loss": {"trivial": Estimate(0.5)}})
        >>> print(table([Record(1, 6, SetRecord("val", loss=0.5), {"test": test})]))
        test loss
        epoch  step  trivial  actual
        1         6   0.5000  0.7500
    """
    tables = []
    for target in dict.fromkeys(name for record in records for name in record.targets):
        for quantity in QUANTITIES:
            found = [record.targets[target].estimates.get(quantity, {}) for record in records]
            names = dict.fromkeys(name for estimates in reversed(found) for name in estimates)  # the first has the fewest
            cells = [["epoch", "step", *names, ACTUAL]]
            for record, estimates in zip(records, found, strict=True):
                values = [estimates[name].value if name in estimates else None for name in names]
                values.append(record.targets[target].labelled(quantity))
                shown = ["" if value is None else f"{value:.4f}" for value in values]
                cells.append([str(record.epoch), str(record.step), *shown])
            if names:
                tables.append(f"{target} {quantity}\n{aligned_table(cells)}")
    return "\n\n".join(tables)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes values by key, one row a checkpoint, into a file whose folder is made; what a row lacks is left empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def write_events(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes an event file of TensorBoard into a folder, with each value at its checkpoint's ``step``."""
    with SummaryWriter(str(folder)) as writer:
        for row in rows:
            for key, value in row.items():
                if key != "step":
                    writer.add_scalar(key, value, int(row["step"]))

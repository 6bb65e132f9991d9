"""The rows of the benchmark, and groups of them."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: The calibrated estimator is fitted on noise, holes and less contrast, so that no estimator is scored on the like of them.
FITTED_ON = ("gaussian_noise", "erasing", "contrast", "brighter", "darker")

#: The name under which the training images are measured; they are no test set.
TRAIN = "train"

#: A network: data set, architecture, regime and seed.
Network = tuple[str, str, str, int]

#: A set: family and severity.
Set = tuple[str, int]


@dataclass(frozen=True)
class Row:
    """What an estimator says of a network on a set, or a feature of both the set and the reference."""

    network: Network
    on: Set
    estimator: str
    quantity: str
    estimate: float
    actual: float
    stderr: float | None = None
    trusted: bool | None = None


def open_table(path: Path, mode: Literal["r", "w"] = "r") -> io.TextIOWrapper:
    """Opens a CSV file as text, compressed if its name ends in .gz. The same text always makes the same bytes."""
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.GzipFile(path, f"{mode}b", mtime=0), encoding="utf-8", newline="")
    return path.open(mode, encoding="utf-8", newline="")


def read_rows(path: Path) -> list[Row]:
    """Reads the benchmark's CSV, compressed or not; costs are left out."""
    with open_table(path) as file:
        return [_row(cells) for cells in csv.DictReader(file) if cells["quantity"] != "cost"]


def _row(cells: dict[str, str]) -> Row:
    return Row(
        (cells["dataset"], cells["network"], cells["regime"], int(cells["seed"])),
        (cells["family"], int(cells["severity"])),
        cells["estimator"],
        cells["quantity"],
        float(cells["estimate"]),
        float(cells["actual"]),
        float(cells["stderr"]) if cells["stderr"] else None,
        bool(float(cells["trusted"])) if cells["trusted"] else None,
    )


def scored(rows: Iterable[Row], quantity: str) -> list[Row]:
    """Returns the estimates of a quantity, without the families that an estimator is fitted on and the training images."""
    return [row for row in rows if row.quantity == quantity and row.on[0] not in (*FITTED_ON, TRAIN)]

"""What the runs have written: their histories as numbers, and the names of the estimates."""

from __future__ import annotations

import csv
from pathlib import Path

#: The runs by the names of their files.
RUNS = {
    "cifar10": "CIFAR-10, SGD",
    "mnist": "MNIST, SGD",
    "cifar10_adam": "CIFAR-10, Adam",
    "cifar10_batchnorm": "CIFAR-10, SGD, BatchNorm",
    "cifar10_dropout": "CIFAR-10, SGD, Dropout",
}

#: The six estimates of Figure 3 and Table 1, by the keys of the measures.
PAPER_ESTIMATES = {
    "empirical": "empirical (Eq. 8)",
    "layer_norm": "layer-wise norm (Eq. 6, log)",
    "active_nodes": "active nodes (Eq. 7)",
    "input_output": "input–output (Eq. 9)",
    "spectral_norm": "spectral norm (Eq. 11)",
    "fisher_rao": "Fisher–Rao (Eq. 10)",
}

Row = dict[str, float]


def read_history(file: Path) -> list[Row]:
    """Reads what a monitor has logged; a value that is missing has no key."""
    with file.open(newline="") as stream:
        rows = [
            {key.removeprefix("tansens/"): float(value) for key, value in row.items() if value}
            for row in csv.DictReader(stream)
        ]
    if not rows:
        raise ValueError(f"{file}: expected a row for each measurement, but got none; run main.py fit --history_csv {file}")
    return rows


def finished_runs(folder: Path) -> dict[str, list[Row]]:
    """Reads the histories of those runs whose files are there, by the runs' names."""
    histories = {name: read_history(file) for name in RUNS if (file := folder / f"{name}.csv").exists()}
    if not histories:
        raise FileNotFoundError(
            f"{folder}: expected the history of a run, one of {[f'{name}.csv' for name in RUNS]}, but found none; "
            "run main.py fit --history_csv first"
        )
    return histories


def write_rows(file: Path, rows: list[dict[str, float | str]]) -> None:
    """Writes a table of which every row has the same columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(
            {key: f"{cell:.5g}" if isinstance(cell, float) else cell for key, cell in row.items()} for row in rows
        )

"""Histories as CSV files: one row a measurement, one column a key."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_tansens.record import Estimate, MeasureRecord, Quantity, Record, SetRecord

QUANTITIES: tuple[Quantity, ...] = ("loss", "accuracy")
REFERENCES = ("train", "val", "reference")
PREFIX = "tansens/"


def write_csv(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes one row a measurement; a value that was not logged is left empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = list(dict.fromkeys(key for row in history for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows({key: f"{value:.7g}" for key, value in row.items()} for row in history)


def read_records(path: str | Path) -> list[Record]:
    """Makes records of what :func:`write_csv` wrote: measures, losses, accuracies and estimates with their errors."""
    with open(path, newline="") as file:
        return [_record({key: float(cell) for key, cell in row.items() if cell}) for row in csv.DictReader(file)]


def _record(row: Mapping[str, float]) -> Record:
    values = {key.removeprefix(PREFIX): value for key, value in row.items() if key.startswith(PREFIX)}
    reference = next(name for name in REFERENCES if f"{name}_loss" in values)
    targets = [key.removesuffix("_loss/trivial") for key in values if key.endswith("_loss/trivial")]
    sets = {name: _set(name, values) for name in (reference, *targets)}
    weights = {
        name: MeasureRecord({name: value}) for name, value in values.items() if "/" not in name and "_loss" not in name
    }
    reference_loss, accuracy = values[f"{reference}_loss"], values.get(f"{reference}_accuracy")
    own = SetRecord(reference, loss=reference_loss, accuracy=accuracy, measures=sets.pop(reference).measures)
    return Record(int(row["epoch"]), int(row["step"]), own, sets, weights)


def _set(name: str, values: Mapping[str, float]) -> SetRecord:
    estimates: dict[Quantity, dict[str, Estimate]] = {}
    for quantity in QUANTITIES:
        start = f"{name}_{quantity}/"
        found = {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
        names = [
            key
            for key in found
            if key != "actual" and not key.endswith(("_stderr", "_trusted", "_reliable", "_low", "_high"))
        ]
        if names:
            ends = ("_stderr", "_low", "_high")
            estimates[quantity] = {key: Estimate(found[key], *(found.get(key + end) for end in ends)) for key in names}
    measures: dict[str, MeasureRecord] = {}
    for key, value in values.items():
        measure, on, part = (*key.split("/", 2), "", "")[:3]
        if on == name and not measure.endswith(tuple(f"_{quantity}" for quantity in QUANTITIES)):
            known = measures.get(measure, MeasureRecord(stderr=values.get(f"{measure}/{name}_stderr")))
            if part:
                measures[measure] = MeasureRecord(known.values, {**known.parts, part: value}, known.stderr)
            else:
                measures[measure] = MeasureRecord({**known.values, measure: value}, known.parts, known.stderr)
    truth = [values.get(f"{name}_{quantity}/actual") for quantity in QUANTITIES]
    return SetRecord(name, loss=truth[0], accuracy=truth[1], measures=measures, estimates=estimates)

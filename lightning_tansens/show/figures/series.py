"""Takes series of numbers out of records."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.record import Estimate, Quantity, Record, SetRecord

#: The records of a run, in order.
Records = Sequence[Record]

Series = NDArray[np.float64]


def check_records(records: Records) -> None:
    """Raises TypeError unless these are records, and ValueError if there are none."""
    if not isinstance(records, Sequence) or not all(isinstance(record, Record) for record in records):
        of = f" of {type(records[0]).__name__}" if isinstance(records, Sequence) and len(records) else ""
        raise TypeError(
            f"records: expected the records of a monitor, a list of Record, but got {type(records).__name__}{of}; pass "
            "monitor.records"
        )
    if not records:
        raise ValueError("records: expected a record for each measurement, but got none; draw after the first measurement")


def series(values: Iterable[float | None]) -> Series:
    """Returns numbers as an array, nan where one is missing."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def epochs(records: Records) -> Series:
    """Returns the epochs of the measurements, shape (T,)."""
    return series(record.epoch for record in records)


def targets_of(records: Records) -> list[str]:
    """Returns the names of all targets, in the order in which they were measured."""
    return list(dict.fromkeys(target for record in records for target in record.targets))


def check_target(records: Records, target: str) -> None:
    """Raises ValueError if no record has a target."""
    known = targets_of(records)
    if target not in known:
        raise ValueError(f"target: expected one of the test sets {known}, but got {target!r}")


def on_set(records: Records, name: str) -> list[SetRecord]:
    """Returns what each measurement found on the reference or a target; an empty record where it was not measured."""
    return [next((one for one in record.sets if one.name == name), SetRecord(name)) for record in records]


def estimates(records: Records, target: str, quantity: Quantity) -> dict[str, list[Estimate | None]]:
    """Returns the estimates of a target's loss or accuracy at each measurement, by estimator, the trivial one first."""
    found = [one.estimates.get(quantity, {}) for one in on_set(records, target)]
    return {name: [each.get(name) for each in found] for name in dict.fromkeys(name for each in found for name in each)}


def truth_of(records: Records, target: str, quantity: Quantity) -> Series:
    """Returns the true loss or accuracy of a target, shape (T,); raises ValueError if labels were not compared."""
    truth = series(one.labelled(quantity) for one in on_set(records, target))
    if np.isnan(truth).all():
        raise ValueError(
            f"records: expected the true {quantity} of {target!r}, but got none; pass compare_with_labels=True to the "
            "monitor"
        )
    return truth


def measured(records: Records, name: str, set_name: str | None = None) -> tuple[Series, Series]:
    """Returns the values of a measure, or of another value by its name, and their standard errors, shapes (T,).

    They are of a set, or, for None, of the weights alone. Standard errors are known of a measure's main value alone.
    """
    values, errors = [], []
    for record, one in zip(records, on_set(records, set_name or ""), strict=True):
        measures = record.weights if set_name is None else one.measures
        found = next(((key, measure) for key, measure in measures.items() if name in measure.values), None)
        values.append(one.scores.get(name) if found is None else found[1].values[name])
        errors.append(found[1].stderr if found is not None and found[0] == name else None)
    return series(values), series(errors)


def measured_on(records: Records, name: str, target: str) -> Series:
    """Returns the values of a measure on a target, or those of the weights where it needs no data, shape (T,).

    Raises ValueError, with the nearest names, if it was not measured.
    """
    values = next((found for on in (None, target) if not np.isnan(found := measured(records, name, on)[0]).all()), None)
    if values is None:
        known = {value for record in records for of in record.weights.values() for value in of.values}
        for one in on_set(records, target):
            known |= {*one.scores, *(value for of in one.measures.values() for value in of.values)}
        near = get_close_matches(name, sorted(known), n=4, cutoff=0)
        raise ValueError(f"measure: expected what was measured on {target!r}, but got {name!r}; the nearest are {near}")
    return values

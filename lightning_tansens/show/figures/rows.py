"""Series of numbers out of the rows that a monitor has recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.monitor.correlations import correlations
from lightning_tansens.show.keys import ACTUAL, Keys, Quantity

#: A monitor's ``history``; the rows of a CSV file, whose cells are text and may be empty, do as well.
History = Sequence[Mapping[str, float]]

Series = NDArray[np.float64]


def check_history(history: History) -> None:
    """Refuses what are no recorded rows.

    Raises:
        TypeError: If the history is no sequence of mappings.
        ValueError: If it is empty, or a row does not say its epoch.

    """
    if not isinstance(history, Sequence) or not all(isinstance(row, Mapping) for row in history):
        raise TypeError(
            f"history: expected the rows of a monitor's history, a list of dicts, but got {type(history).__name__}"
        )
    if not history:
        raise ValueError("history: expected a row for each measurement, but got none; draw after the first measurement")
    if not all("epoch" in row for row in history):
        raise ValueError(
            "history: expected rows with their 'epoch', but got one without; pass the monitor's history as it is"
        )


def column(history: History, key: str) -> Series:
    """Returns the values of a key, shape (T,); nan where a row has none."""
    return np.array([np.nan if row.get(key, "") in ("", None) else float(row[key]) for row in history], dtype=np.float64)


def known_column(history: History, key: str, argument: str) -> Series:
    """Returns the values of a key of which there must be one.

    Raises:
        ValueError: If no row has the key; the message has the nearest ones.

    """
    values = column(history, key)
    if np.isnan(values).all():
        near = get_close_matches(key, sorted({name for row in history for name in row}), n=4, cutoff=0)
        raise ValueError(f"{argument}: expected {key!r} among the logged keys, but got none; the nearest are {near}")
    return values


def targets_of(history: History, keys: Keys) -> list[str]:
    """Returns the names of all test sets, in the order in which they were logged."""
    return list(dict.fromkeys(target for row in history for target in keys.targets(row)))


def check_target(history: History, target: str, keys: Keys) -> None:
    """Refuses a test set that was not logged.

    Raises:
        ValueError: If no row has estimates of it.

    """
    known = targets_of(history, keys)
    if target not in known:
        hint = "" if known else f"; is the prefix of the keys {keys.prefix!r}?"
        raise ValueError(f"target: expected one of the test sets {known}, but got {target!r}{hint}")


def reference_of(history: History, keys: Keys) -> str:
    """Returns the name of the reference.

    Raises:
        ValueError: If no row has the loss of one.

    """
    name = next((name for row in history if (name := keys.reference(row)) is not None), None)
    if name is None:
        raise ValueError(
            f"history: expected the loss of a reference, such as {keys.labelled('train', 'loss')!r}, but got none; pass the "
            "monitor's history as it is, and keys with its prefix"
        )
    return name


def estimates_of(history: History, target: str, quantity: Quantity, keys: Keys) -> list[str]:
    """Returns the names of all estimates of a test set's loss or accuracy, the trivial one first, without the truth."""
    return list(dict.fromkeys(name for row in history for name in keys.estimates(row, target, quantity)))


def truth_of(history: History, target: str, quantity: Quantity, keys: Keys) -> Series:
    """Returns the true loss or accuracy of a test set, shape (T,).

    Raises:
        ValueError: If it was not logged.

    """
    key = keys.estimate(target, quantity, ACTUAL)
    truth = column(history, key)
    if np.isnan(truth).all():
        raise ValueError(
            f"history: expected the true {quantity} of {target!r}, {key!r}, but got none; pass compare_with_labels=True to "
            "the monitor"
        )
    return truth


def gap_of(history: History, target: str, keys: Keys) -> Series:
    """Returns the generalisation gap, abs(true test loss − reference loss), shape (T,)."""
    check_target(history, target, keys)
    reference = column(history, keys.labelled(reference_of(history, keys), "loss"))
    return np.abs(truth_of(history, target, "loss", keys) - reference)


def parts_of(history: History, key: str) -> list[str]:
    """Returns the names of the parts of a value, which are logged as ``<key>/<part>``, in the order of logging."""
    start = key + "/"
    return list(dict.fromkeys(name[len(start) :] for row in history for name in row if name.startswith(start)))


def correlated(first: Series, second: Series) -> dict[str, float]:
    """Returns Pearson's and Spearman's coefficients over the measurements that have both; nothing where undefined."""
    both = np.isfinite(first) & np.isfinite(second)
    return correlations(first[both].tolist(), second[both].tolist())

"""Names the values that are logged; only here does a record become strings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lightning_tansens.record import TRIVIAL, Estimate, MeasureRecord, Quantity, Record, SetRecord

#: Names that the monitor uses for the reference; a target cannot have them.
REFERENCE_NAMES = ("train", "val", "reference")

#: The truth, where labels are compared.
ACTUAL = "actual"

#: The name under which a score over all sets stands.
ALL_SETS = "all"

#: What is estimated, in the order in which it is logged.
QUANTITIES: tuple[Quantity, ...] = ("loss", "accuracy")

_STDERR, _LOW, _HIGH, _RELIABLE = _ENDINGS = ("_stderr", "_low", "_high", "_reliable")


@dataclass(frozen=True)
class Keys:
    """Makes keys.

    Args:
        prefix: What every key begins with.

    Example:
        >>> keys = Keys()
        >>> keys.estimate("test", "loss", "empirical"), keys.value("empirical", "test", "layer")
        ('tansens/test_loss/empirical', 'tansens/empirical/test/layer')

    """

    prefix: str = "tansens"

    def value(self, name: str, set_name: str | None = None, part: str | None = None) -> str:
        """Returns the key of a measure's value, of the weights alone, on a set, or on a part of the network or the set."""
        return "/".join(filter(None, [self.prefix, name, set_name, part]))

    def labelled(self, set_name: str, quantity: Quantity) -> str:
        """Returns the key of the reference's loss or accuracy."""
        return f"{self.prefix}/{set_name}_{quantity}"

    def estimate(self, target: str, quantity: Quantity, name: str) -> str:
        """Returns the key of an estimate, of the trivial one, or of the truth."""
        return f"{self.labelled(target, quantity)}/{name}"

    @property
    def answer(self) -> str:
        """The key of the picture and of the table that come first: loggers sort by name, and digits before letters."""
        return f"0_{self.prefix}/unlabelled_sets"

    def stderr(self, key: str) -> str:
        """Returns the key of a value's standard error."""
        return key + _STDERR

    def interval(self, key: str) -> tuple[str, str]:
        """Returns the keys of the ends of an estimate's interval."""
        return key + _LOW, key + _HIGH

    def reliable(self, key: str) -> str:
        """Returns the key that says whether an estimate is reliable: 1 or 0."""
        return key + _RELIABLE


def flat_row(record: Record, keys: Keys | None = None, brief: bool = False) -> dict[str, float]:
    """Returns everything in a record under its key, after ``epoch`` and ``step``.

    Args:
        record: The measurement.
        keys: How the values are named; None for ``tansens/…``.
        brief: Whether to leave out standard errors, whether estimates are reliable, the times of parts, and the trivial
            estimates, which are the reference's own values.

    Example:
        >>> test = SetRecord("test", estimates={"loss": {"trivial": Estimate(1.5)}}, loss=1.75)
        >>> flat_row(Record(3, 41, SetRecord("val", loss=1.5), {"test": test}))  # doctest: +NORMALIZE_WHITESPACE
        {'epoch': 3, 'step': 41, 'tansens/val_loss': 1.5, 'tansens/test_loss/trivial': 1.5,
         'tansens/test_loss/trivial_reliable': 1.0, 'tansens/test_loss/actual': 1.75}

    """
    return {"epoch": record.epoch, "step": record.step, **dict(_values(record, keys or Keys(), brief))}


def check_set_names(names: Iterable[object]) -> None:
    """Raises ValueError if two values would be logged under one key because of how the targets are named.

    Args:
        names: The names of all targets.

    Raises:
        ValueError: If a name is empty, has a slash, is reserved, ends like a key of a standard error or an interval, or
            differs from another one only by characters that some loggers leave out.

    Example:
        >>> check_set_names(["test", "blurred digits"])

    """
    reserved = (*REFERENCE_NAMES, ALL_SETS, "class")
    seen: dict[str, object] = {}
    for name in names:
        if not isinstance(name, str) or not name or "/" in name or name in reserved:
            raise ValueError(
                f"test_dataloaders: expected names without '/' other than {list(REFERENCE_NAMES)}, which are the "
                f"reference's, {ALL_SETS!r}, which is all sets together, and 'class', of which there are losses, but got "
                f"{name!r}; rename that set"
            )
        if name.endswith(_ENDINGS):
            raise ValueError(
                f"test_dataloaders: expected names that end in none of {list(_ENDINGS)}, which stand for standard errors, "
                f"intervals and reliability, but got {name!r}; rename that set"
            )
        shown = re.sub(r"[^-A-Za-z0-9_. ]", "", name)  # as MLflow does
        if shown in seen:
            raise ValueError(
                "test_dataloaders: expected names that differ in letters or digits, but some loggers show both "
                f"{seen[shown]!r} and {name!r} as {shown!r}; rename one of the sets"
            )
        seen[shown] = name


def _values(record: Record, keys: Keys, brief: bool) -> Iterator[tuple[str, float]]:
    sets = list(record.sets)
    for measure in dict.fromkeys([*(key for one in sets for key in one.measures), *record.weights]):
        yield from _measured(record.weights.get(measure), measure, None, keys, brief)
        for one in sets:
            yield from _measured(one.measures.get(measure), measure, one.name, keys, brief)
    for one in sets:
        for label, loss in one.class_losses.items():
            yield keys.value("class_loss", one.name, str(label)), loss
        for name, score in one.scores.items():
            yield keys.value(name, one.name), score
    for quantity in QUANTITIES:
        yield from _labelled(record.reference, quantity, keys.labelled(record.reference.name, quantity), keys, brief)
    for target in record.targets.values():
        for quantity, estimates in target.estimates.items():
            for name, estimate in estimates.items():
                if not (brief and name == TRIVIAL):
                    yield from _estimated(estimate, keys.estimate(target.name, quantity, name), keys, brief)
        for quantity in QUANTITIES:
            yield from _labelled(target, quantity, keys.estimate(target.name, quantity, ACTUAL), keys, brief)
        for name, coefficient in target.correlations.items():
            kind, value, *part = name.split("/", 2)
            yield keys.value(f"{kind}/{value}", target.name, *part), coefficient
    for name, seconds in record.seconds.items():
        if name == "total" or not brief:
            yield keys.value("seconds" if name == "total" else f"{name}_seconds"), seconds


def _measured(
    found: MeasureRecord | None, measure: str, set_name: str | None, keys: Keys, brief: bool
) -> Iterator[tuple[str, float]]:
    if found is None:
        return
    for name, value in found.values.items():
        yield keys.value(name, set_name), value
    for part, value in found.parts.items():
        yield keys.value(measure, set_name, part), value
    if found.stderr is not None and not brief:
        yield keys.stderr(keys.value(measure, set_name)), found.stderr


def _labelled(one: SetRecord, quantity: Quantity, key: str, keys: Keys, brief: bool) -> Iterator[tuple[str, float]]:
    value, stderr = one.labelled(quantity), one.labelled_stderr(quantity)
    if value is not None:
        yield key, value
        if stderr is not None and not brief:
            yield keys.stderr(key), stderr


def _estimated(estimate: Estimate, key: str, keys: Keys, brief: bool) -> Iterator[tuple[str, float]]:
    low, high = keys.interval(key)
    error = None if brief else estimate.stderr
    found = {key: estimate.value, keys.stderr(key): error, low: estimate.low, high: estimate.high}
    yield from ((name, value) for name, value in found.items() if value is not None)
    if not brief:
        yield keys.reliable(key), float(estimate.reliable)

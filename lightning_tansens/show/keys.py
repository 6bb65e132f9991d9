"""Names the values that are logged; only here does a record become strings."""

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

#: A key, its value, None where it is not known, and whether it is among the brief ones.
Value = tuple[str, float | None, bool]

_STDERR, _LOW, _HIGH, _RELIABLE = _ENDINGS = ("_stderr", "_low", "_high", "_reliable")


@dataclass(frozen=True)
class Keys:
    """Makes keys.

    Example:
        >>> keys = Keys()
        >>> keys.estimate("test", "loss", "empirical"), keys.value("empirical", "test", "layer")
        ('tansens/test_loss/empirical', 'tansens/empirical/test/layer')
    """

    prefix: str = "tansens"  #: What every key begins with.

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

    def interval(self, key: str) -> tuple[str, str]:
        """Returns the keys of the ends of an estimate's interval."""
        return key + _LOW, key + _HIGH


def flat_row(record: Record, keys: Keys | None = None, brief: bool = False) -> dict[str, float]:
    """Returns everything in a record under its key, after ``epoch`` and ``step``.

    Args:
        record: The measurement.
        keys: How the values are named; None for ``tansens/…``.
        brief: Whether to leave out standard errors, whether an estimate is reliable, the times of parts, and the trivial
            estimates, which are the reference's own values.

    Example:
        >>> test = SetRecord("test", estimates={"loss": {"estimate": Estimate(1.5)}}, loss=1.75)
        >>> flat_row(Record(3, 41, SetRecord("val", loss=1.5), {"test": test}))  # doctest: +NORMALIZE_WHITESPACE
        {'epoch': 3, 'step': 41, 'tansens/val_loss': 1.5, 'tansens/test_loss/estimate': 1.5,
         'tansens/test_loss/estimate_reliable': 1.0, 'tansens/test_loss/actual': 1.75}
    """
    found = _values(record, keys or Keys())
    row = {key: value for key, value, is_brief in found if value is not None and (is_brief or not brief)}
    return {"epoch": record.epoch, "step": record.step, **row}


def check_set_names(names: Iterable[object]) -> None:
    """Raises ValueError if two values would be logged under one key because of how the targets are named.

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


def _values(record: Record, keys: Keys) -> Iterator[Value]:
    sets = list(record.sets)
    for measure in dict.fromkeys([*(key for one in sets for key in one.measures), *record.weights]):
        for name, measures in ((None, record.weights), *((one.name, one.measures) for one in sets)):
            found = measures.get(measure, MeasureRecord())
            yield from ((keys.value(value, name), number, True) for value, number in found.values.items())
            yield from ((keys.value(measure, name, part), number, True) for part, number in found.parts.items())
            yield keys.value(measure, name) + _STDERR, found.stderr, False
    for one in sets:
        yield from ((keys.value("class_loss", one.name, str(label)), loss, True) for label, loss in one.class_losses.items())
        yield from ((keys.value(name, one.name), score, True) for name, score in one.scores.items())
    for quantity in QUANTITIES:
        yield from _labelled(record.reference, quantity, keys.labelled(record.reference.name, quantity))
    for target in record.targets.values():
        for quantity, estimates in target.estimates.items():
            for name, estimate in estimates.items():
                yield from _estimated(estimate, keys, keys.estimate(target.name, quantity, name), name != TRIVIAL)
        for quantity in QUANTITIES:
            yield from _labelled(target, quantity, keys.estimate(target.name, quantity, ACTUAL))
        for name, coefficient in target.correlations.items():
            kind, value, *part = name.split("/", 2)
            yield keys.value(f"{kind}/{value}", target.name, *part), coefficient, True
    for name, seconds in record.seconds.items():
        yield keys.value("seconds" if name == "total" else f"{name}_seconds"), seconds, name == "total"


def _labelled(one: SetRecord, quantity: Quantity, key: str) -> Iterator[Value]:
    yield key, one.labelled(quantity), True
    yield key + _STDERR, one.labelled_stderr(quantity), False


def _estimated(estimate: Estimate, keys: Keys, key: str, is_brief: bool) -> Iterator[Value]:
    low, high = keys.interval(key)
    yield key, estimate.value, is_brief
    yield key + _STDERR, estimate.stderr, False
    yield low, estimate.low, is_brief
    yield high, estimate.high, is_brief
    yield key + _RELIABLE, None if estimate.reliable is None else float(estimate.reliable), False

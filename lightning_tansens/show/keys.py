"""The names under which values are logged: made here, and found again here in what was logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: Names that the monitor uses for the reference; a test set cannot have them.
REFERENCE_NAMES = ("train", "val", "reference")

#: The estimate that takes the reference's own value; every test set has it.
TRIVIAL = "trivial"

#: The truth, where labels were used.
ACTUAL = "actual"

#: What is estimated of a test set.
Quantity = Literal["loss", "accuracy"]

_STDERR, _TRUSTED = "_stderr", "_trusted"


@dataclass(frozen=True)
class Keys:
    """Makes keys, and finds in a row of logged values what belongs to which.

    A row is an entry of a monitor's ``history``: values by key.

    Args:
        prefix: What every key begins with.

    Example:
        >>> keys = Keys()
        >>> keys.estimate("test", "loss", "empirical")
        'tansens/test_loss/empirical'
        >>> row = {"tansens/val_loss": 1.5, "tansens/test_loss/trivial": 1.5, "tansens/test_loss/empirical": 1.75}
        >>> keys.targets(row), keys.reference(row), keys.estimates(row, "test", "loss")
        (['test'], 'val', {'trivial': 1.5, 'empirical': 1.75})

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

    def stderr(self, key: str) -> str:
        """Returns the key of a value's standard error."""
        return key + _STDERR

    def trusted(self, key: str) -> str:
        """Returns the key of whether an estimate is trusted: 1 or 0."""
        return key + _TRUSTED

    def targets(self, row: Mapping[str, float]) -> list[str]:
        """Returns the names of the test sets, in the order in which they were logged."""
        start, end = f"{self.prefix}/", f"_loss/{TRIVIAL}"
        return [key[len(start) : -len(end)] for key in row if key.startswith(start) and key.endswith(end)]

    def reference(self, row: Mapping[str, float]) -> str | None:
        """Returns the name of the reference."""
        return next((name for name in REFERENCE_NAMES if self.labelled(name, "loss") in row), None)

    def estimates(self, row: Mapping[str, float], target: str, quantity: Quantity) -> dict[str, float]:
        """Returns the estimates of a test set's loss or accuracy by name, the trivial one first, without the truth."""
        start = self.estimate(target, quantity, "")
        found = {key[len(start) :]: value for key, value in row.items() if key.startswith(start)}
        return {name: value for name, value in found.items() if name != ACTUAL and not name.endswith((_STDERR, _TRUSTED))}

    def actual(self, row: Mapping[str, float], target: str, quantity: Quantity) -> float | None:
        """Returns the true loss or accuracy of a test set, where its labels were used."""
        return row.get(self.estimate(target, quantity, ACTUAL))

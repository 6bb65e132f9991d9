"""The file of one network: its outputs at every snapshot of the training, on every set."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators import Inputs, Outputs, Trajectory

#: The labelled reference, its perturbed copies, targets to estimate, and pools that targets are drawn from.
Role = Literal["reference", "copy", "target", "pool"]


@dataclass(frozen=True)
class SetInfo:
    """What a set is.

    Args:
        name: Its name, unique in a file.
        role: What it is used for.
        family: The kind of shift; empty for the reference and pools.
        pool: The pool whose samples a target is drawn from; empty for a set with outputs of its own.

    """

    name: str
    role: Role
    family: str = ""
    pool: str = ""


@dataclass
class NetworkOutputs:
    """All outputs of one network.

    Args:
        sets: The sets, in the order in which they are scored.
        epochs: When each of the S snapshots was taken, in epochs.
        outputs: By set, shape (S, N, C), float16; targets that are drawn from a pool have none.
        labels: By set, shape (N,).
        rows: By target that is drawn from a pool, the samples' places in it.
        inputs: By set, the entries that a monitor would see, shape (N, E), float16; none of targets that are drawn.
        channels: The channel of each of these, of images, shape (E,).
        measures: By set, what :func:`~sensitivities.measured` found after the last snapshot, shape (N, K).

    """

    sets: list[SetInfo]
    epochs: NDArray[np.float64]
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    labels: dict[str, NDArray[Any]] = field(default_factory=dict)
    rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    inputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    channels: NDArray[np.int64] | None = None
    measures: dict[str, NDArray[Any]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes one compressed file; an interrupted call leaves none."""
        kinds = ("outputs", "labels", "rows", "inputs", "measures")
        arrays = {f"{kind}/{name}": value for kind in kinds for name, value in getattr(self, kind).items()}
        if self.channels is not None:
            arrays["channels"] = self.channels
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, sets=json.dumps([asdict(one) for one in self.sets]), epochs=self.epochs, **arrays)
        os.replace(part, path)

    @classmethod
    def load(cls, path: Path) -> NetworkOutputs:
        """Reads what :meth:`save` wrote."""
        with np.load(path) as file:
            found = cls([SetInfo(**one) for one in json.loads(str(file["sets"]))], file["epochs"])
            for key in file.files:
                kind, _, name = key.partition("/")
                if name:
                    getattr(found, kind)[name] = file[key]
            if "channels" in file.files:
                found.channels = file["channels"]
        return found

    @property
    def is_table(self) -> bool:
        """Whether the inputs are rows of a table, from which the headline takes other copies than from images."""
        return "ColumnNoise" in {one.family for one in self.sets}

    def of_role(self, role: Role) -> Iterator[SetInfo]:
        return (one for one in self.sets if one.role == role)

    def numbers(self, one: SetInfo) -> NDArray[Any] | None:
        """Returns the targets of a regression, shape (N,); None where labels are classes."""
        found = self.labels[one.pool or one.name]
        return None if found.dtype.kind in "iu" else found[self.rows[one.name] if one.pool else slice(None)]

    def measured(self, one: SetInfo, moments: Collection[int], first: int | None = None) -> Mapping[int, Outputs]:
        """Returns a set's labelled outputs at some snapshots, each with the trajectory of those before it.

        Args:
            one: The set.
            moments: The snapshots.
            first: How many of its first samples; None for all.

        """
        source = one.pool or one.name
        chosen = self.rows[one.name][:first] if one.pool else slice(first)
        labels, is_classifier = self.labels[source][chosen], self.numbers(one) is None
        trajectory, found = Trajectory(), {}
        known = self.inputs.get(source)
        seen = None if known is None else Inputs(known[chosen].astype(np.float32), self.is_table, channels=self.channels)
        for number in range(max(moments) + 1):
            now = Outputs.of(self.outputs[source][number, chosen], labels, earlier=trajectory, is_classifier=is_classifier)
            if number in moments:
                found[number] = replace(now, inputs=seen)
            trajectory = trajectory.updated(now)
        return found

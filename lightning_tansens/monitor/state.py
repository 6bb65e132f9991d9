"""The state of a monitor, in a checkpoint and on its way back from a spawned process."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import Tensor

from lightning_tansens.estimators import Trajectory
from lightning_tansens.record import Record


@dataclass
class MonitorState:
    """The state of a run of the monitor."""

    records: list[Record] = field(default_factory=list)  #: The measurements so far.
    #: The values of the measures of the weights at the previous measurement.
    weights_before: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    memories: Mapping[str, Any] = field(default_factory=dict)  #: What the measures remember, by set and measure.
    trajectories: Mapping[str, Any] = field(default_factory=dict)  #: What earlier measurements said of the samples, by set.
    measured_step: int | None = None  #: The step of the last measurement; None before the first.
    loaded: bool = False  #: Whether a checkpoint brought it.

    def to_dict(self) -> dict[str, Any]:
        """Returns only builtins and tensors, which ``torch.load`` reads with ``weights_only``."""
        return {
            "records": [record.state() for record in self.records],
            "weights_before": dict(self.weights_before),
            "memories": dict(self.memories),
            "trajectories": dict(self.trajectories),
            "measured_step": self.measured_step,
        }

    def at_start(self) -> MonitorState:
        """Returns the state before the run's first measurement: only what the measures remember of its start."""
        memories = {
            name: {key: {part: value for part, value in memory.items() if part != "last"} for key, memory in found.items()}
            for name, found in self.memories.items()
        }
        return MonitorState(memories=memories)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> MonitorState:
        """Returns the state that :meth:`to_dict` described.

        Raises:
            ValueError: If a field is missing or holds something else.

        Example:
            >>> MonitorState.from_dict(MonitorState(measured_step=9).to_dict()).measured_step
            9
        """
        read: dict[str, Any] = {}
        for name, reader in _READERS.items():
            if name not in state:
                raise ValueError(
                    f"expected the state of a TangentSensitivityMonitor, but {name!r} is missing from it, which has "
                    f"{list(state)}; pass weights alone, or take the state out of the checkpoint"
                )
            try:
                read[name] = reader(state[name])
            except (TypeError, KeyError, AttributeError, ValueError) as error:
                shown = repr(state[name])
                raise ValueError(
                    f"expected the state of a TangentSensitivityMonitor, but its {name!r} is no such thing: "
                    f"{shown[:80]}{'…' if len(shown) > 80 else ''}; take the state out of the checkpoint"
                ) from error
        return cls(**read, loaded=True)


class Mailbox:
    """A file in which a spawned process leaves its state: Lightning sends weights and metrics back, but no callbacks."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"lightning_tansens_{uuid.uuid4().hex}.pt"

    def send(self, trainer: pl.Trainer, state: MonitorState) -> None:
        """Leaves the state, on rank 0 of a run whose processes were spawned."""
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher) and trainer.is_global_zero:
            with contextlib.suppress(OSError):  # a full disk costs the parent its copy, not the training
                torch.save(state.to_dict(), self._path)

    def receive(self, state: MonitorState) -> None:
        """Takes the records that a spawned process left, once, in the process that made this mailbox."""
        if os.getpid() == self._owner and self._path.exists():
            state.records = MonitorState.from_dict(torch.load(self._path, weights_only=True)).records
            self._path.unlink()


def _nested(value: Any, depth: int, *kinds: type) -> Any:
    """Returns mappings within mappings whose innermost values are of some kind, and raises TypeError for anything else."""
    expected: Any = Mapping if depth else kinds
    if not isinstance(value, expected) or isinstance(value, bool):
        raise TypeError(type(value).__name__)
    for held in value.values() if depth else ():
        _nested(held, depth - 1, *kinds)
    return value


def _trajectories(value: Any) -> Any:
    names = {"samples", *(part.name for part in fields(Trajectory))}
    if not all(set(found) == names for found in _nested(value, 1, Mapping).values()):
        raise ValueError(f"expected {names}")
    return value


#: What reads a field of a state, and raises if it is something else.
_READERS: dict[str, Callable[[Any], Any]] = {
    "records": lambda value: [Record.from_state(record) for record in _nested(value, 0, list)],
    "weights_before": lambda value: _nested(value, 2, float),
    "memories": lambda value: _nested(value, 3, Tensor),
    "trajectories": _trajectories,
    "measured_step": lambda value: _nested(value, 0, int, type(None)),
}

"""Brings a monitor's state from a spawned process back to the one that started it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from lightning_tansens.monitor.state import MonitorState


class Mailbox:
    """A file in which a spawned process leaves its state: Lightning sends weights and metrics back, but no callbacks."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"lightning_tansens_{uuid.uuid4().hex}.pt"

    def send(self, trainer: pl.Trainer, state: MonitorState) -> None:
        """Leaves the state, on rank 0 of a run whose processes were spawned.

        Args:
            trainer: The Trainer.
            state: The state.

        """
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher) and trainer.is_global_zero:
            with contextlib.suppress(OSError):  # a full disk costs the parent its copy, not the training
                torch.save(state.to_dict(), self._path)

    def receive(self, state: MonitorState) -> None:
        """Takes the records that a spawned process left, once, in the process that made this mailbox."""
        if os.getpid() == self._owner and self._path.exists():
            state.records = MonitorState.from_dict(torch.load(self._path, weights_only=True)).records
            self._path.unlink()

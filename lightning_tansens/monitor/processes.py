"""Lets several processes go on together or fail together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lightning.pytorch as pl
import torch

from lightning_tansens.errors import FailedElsewhereError


@contextmanager
def together(trainer: pl.Trainer) -> Iterator[None]:
    """Raises on all processes if any of them failed; one that failed alone would leave the others waiting for it."""
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    if not trainer.strategy.reduce_boolean_decision(error is None):
        raise error or FailedElsewhereError(
            "expected the measurement to succeed on every process, but it failed on another one, whose output says why"
        )


def slowest(trainer: pl.Trainer, seconds: float) -> float:
    """Returns the largest of the processes' times; all of them must call it."""
    longest = trainer.strategy.reduce(torch.tensor(seconds, device=trainer.strategy.root_device), reduce_op="max")
    return float(longest)


def any_process(trainer: pl.Trainer, flags: Sequence[bool]) -> list[bool]:
    """Returns for each flag whether any process has it set; all of them must call it with as many flags."""
    joined = torch.tensor([float(flag) for flag in flags], device=trainer.strategy.root_device)
    return [bool(flag) for flag in trainer.strategy.reduce(joined, reduce_op="max")] if flags else []

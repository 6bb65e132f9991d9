"""Lets several processes go on together or fail together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from lightning_tansens.errors import FailedElsewhereError, LeftWaitingError

#: How long a process that fails in a network's layers waits for others that fail there too.
PATIENCE = timedelta(seconds=20)
#: Numbers the failures that are told to the others through torch's store, which keeps them.
_failures = count()
#: What to call before this process talks to all others, which may still need it.
_serving: list[Callable[[], None]] = []


@contextmanager
def serving(serve: Callable[[], None]) -> Iterator[None]:
    """Calls a function before each call to the other processes within a block, and at its end.

    Args:
        serve: Gives the others what they still need from this process, and returns once all have called it.

    """
    _serving.append(serve)
    try:
        yield
    finally:
        serve()
        _serving.remove(serve)


def _served() -> None:
    for serve in _serving:
        serve()


@contextmanager
def together(trainer: pl.Trainer) -> Iterator[None]:
    """Raises on all processes if any of them failed; one that failed alone would leave the others waiting for it."""
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    _served()
    if not trainer.strategy.reduce_boolean_decision(error is None):
        raise error or FailedElsewhereError(
            "expected the measurement to succeed on every process, but it failed on another one, whose output says why"
        )


@dataclass(frozen=True)
class Lockstep:
    """Lets all processes call a sharded network equally often, because each call talks to the others.

    Attributes:
        trainer: The Trainer.
        share: Which share of a set this process gets, from 0, and how many shares there are.
        speaks: Whether this process reports what it found; only the first one with the same share does.

    """

    trainer: pl.Trainer
    share: tuple[int, int]
    speaks: bool
    #: How often the network's layers talked to the other processes in its last call that did not fail.
    _talks: list[int] = field(default_factory=lambda: [0])

    def together(self) -> AbstractContextManager[None]:
        """Surrounds what a process does by itself between two calls, and raises on all processes if one failed."""
        return together(self.trainer)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Surrounds a call of the network, and raises on all processes if one failed after its layers' last talk.

        Raises:
            LeftWaitingError: If this process failed before that, and not all did. It ends the run, as a training step that
                fails on one process does: whatever it sent to the others now would meet their waiting layers.

        """
        before = _num_talks()
        with self.together():
            try:
                yield
            except Exception as error:
                if _num_talks() - before < self._talks[0] and not self._all_fail():
                    raise LeftWaitingError(
                        "expected a forward pass that ends on every process, but it failed on this one while the others "
                        "wait for its layers, so the run ends here; mend what failed, or let a gathered copy be measured"
                    ) from error
                raise
            self._talks[0] = _num_talks() - before

    def _all_fail(self) -> bool:
        """Says whether all processes fail in this call; it takes no collective call, which others may not answer."""
        number, store = next(_failures), dist.distributed_c10d._get_default_store()
        keys = [f"lightning_tansens/{number}/{rank}" for rank in range(self.trainer.world_size)]
        store.set(keys[self.trainer.global_rank], "")
        try:
            store.wait(keys, PATIENCE)
        except RuntimeError:  # one of them is missing
            return False
        return True

    def most(self, number: int) -> int:
        """Returns the largest of the processes' numbers."""
        counts = torch.tensor(number, device=self.trainer.strategy.root_device)
        return int(self.trainer.strategy.reduce(counts, reduce_op="max"))


def _num_talks() -> int:
    """Returns how often this process has talked to others, as torch counts it; 0 where a backend does not count."""
    groups: list[Any] = list(dist.distributed_c10d._world.pg_map)
    try:
        return sum(group._get_sequence_number_for_group() for group in groups)
    except RuntimeError:
        return 0


def agreed(lockstep: Lockstep | None) -> AbstractContextManager[None]:
    """Returns :meth:`Lockstep.together`; nothing where each process calls the network by itself."""
    return nullcontext() if lockstep is None else lockstep.together()


def slowest(trainer: pl.Trainer, seconds: float) -> float:
    """Returns the largest of the processes' times; all of them must call it."""
    _served()
    longest = trainer.strategy.reduce(torch.tensor(seconds, device=trainer.strategy.root_device), reduce_op="max")
    return float(longest)


def any_process(trainer: pl.Trainer, flags: Sequence[bool]) -> list[bool]:
    """Returns for each flag whether any process has it set; all of them must call it with equally many flags."""
    _served()
    joined = torch.tensor([float(flag) for flag in flags], device=trainer.strategy.root_device)
    return [bool(flag) for flag in trainer.strategy.reduce(joined, reduce_op="max")] if flags else []


def every_process(trainer: pl.Trainer, number: int) -> list[int]:
    """Returns every process's number; all of them must call it."""
    found = trainer.strategy.all_gather(torch.tensor(number, device=trainer.strategy.root_device))
    return [int(one) for one in found.reshape(-1).tolist()]

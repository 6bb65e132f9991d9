"""Lets several processes go on together or fail together."""

import pickle
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, cast

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_tansens.errors import FailedElsewhereError, LeftWaitingError
from lightning_tansens.monitor.company import Company, store
from lightning_tansens.tangent.tracing import tensors_in

#: After how many seconds in which the others come no further a process that failed in a call of the network gives it up.
PATIENCE = 20.0
#: Numbers the locksteps, alike on all processes.
_locksteps = count()
#: What to call before this process talks to all others, which may still need it.
_serving: list[Callable[[], None]] = []


@contextmanager
def serving(serve: Callable[[], None]) -> Iterator[None]:
    """Calls a function before each call to the other processes within a block, and at its end.

    It gives the others what they still need from this process, and returns once all have called it.
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
    """Lets all processes call a sharded network equally often, because each call talks to the others."""

    trainer: pl.Trainer  #: The Trainer.
    share: tuple[int, int]  #: Which share of a set this process gets, from 0, and how many shares there are.
    speaks: bool  #: Whether this process reports what it found; only the first one with the same share does.
    #: The key in torch's store under which the processes count the calls that they have ended, and the calls' numbers.
    _key: str = field(default_factory=lambda: f"lightning_tansens/{next(_locksteps)}")
    _calls: Iterator[int] = field(default_factory=lambda: count(1))

    def together(self) -> AbstractContextManager[None]:
        """Surrounds what a process does by itself between two calls, and raises on all processes if one failed."""
        return together(self.trainer)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Surrounds a call of the network; one that fails on some processes raises on all, once the others have ended it.

        A process that failed takes part in what the layers of the others still say to it.

        Raises:
            LeftWaitingError: If this process failed and others wait for something else. It ends the run, as a training step
                that fails on one process does: whatever it sent to the others now would meet their waiting layers.
        """
        number = next(self._calls)
        with self.together():
            try:
                with self._company.told(number):
                    yield
            except Exception as error:
                traceback.clear_frames(error.__traceback__)  # it may have failed for want of memory
                if not self._others_end(number):
                    raise LeftWaitingError(
                        "expected a forward pass that ends on every process, but it failed on this one while the others "
                        "wait for its layers, so the run ends here; mend what failed, or let a gathered copy be measured"
                    ) from error
                raise
            self._ended(1)

    @cached_property
    def _company(self) -> Company:
        return Company(self.trainer.lightning_module, self._key)

    def _ended(self, more: int) -> int:
        """Adds to the number of calls that all processes have ended, and returns it; no layer can stand in the way."""
        return store().add(self._key, more) if dist.is_initialized() else sys.maxsize

    def _others_end(self, number: int) -> bool:
        """Keeps the others company after this process failed in a call, and says whether they end theirs."""
        ended, until = self._ended(1), time.monotonic() + PATIENCE
        try:
            self._company.leave()
            while time.monotonic() < until:
                if self._company.keep():
                    until = time.monotonic() + PATIENCE
                elif ended >= number * self.trainer.world_size:  # counted before they were asked what they wait for
                    return True
                else:
                    time.sleep(0.01)
                ended = self._ended(0)
        except Exception:  # memory is missing for the other weights too, say
            return False
        return False

    def same(self, read: Callable[[], Any]) -> Any:
        """Returns a batch that is the same on all processes: the first one's, if they read different ones from streams."""
        with self.together():
            batch = read()
            found = checksum(batch)
        if len({*every_process(self.trainer, found)}) > 1:
            with self.together():
                sent = pickle.dumps(batch)
            batch = pickle.loads(self.trainer.strategy.broadcast(sent))
        return batch


def agreed(lockstep: Lockstep | None) -> AbstractContextManager[None]:
    """Returns :meth:`Lockstep.together`; nothing where each process calls the network by itself."""
    return nullcontext() if lockstep is None else lockstep.together()


def calling(lockstep: Lockstep | None) -> AbstractContextManager[None]:
    """Returns :meth:`Lockstep.calling`; nothing where each process calls the network by itself."""
    return nullcontext() if lockstep is None else lockstep.calling()


def largest(trainer: pl.Trainer, values: Any) -> Any:
    """Returns the elementwise maximum of the processes' numbers, or lists of them; all processes must call it."""
    _served()
    own = torch.as_tensor(values, device=trainer.strategy.root_device)
    return cast(Tensor, trainer.strategy.reduce(own, reduce_op="max")).tolist()


def any_process(trainer: pl.Trainer, flags: Sequence[bool]) -> list[bool]:
    """Returns for each flag whether any process has it set; all of them must call it with equally many flags."""
    return [bool(flag) for flag in largest(trainer, [float(flag) for flag in flags])] if flags else []


def checksum(batch: Any) -> int:
    """Returns a number that tells batches apart by their tensors."""
    found = 0
    for tensor in tensors_in([batch]):
        found = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes(), found)
    return found


def every_process(trainer: pl.Trainer, number: int) -> list[int]:
    """Returns every process's number; all of them must call it."""
    found = trainer.strategy.all_gather(torch.tensor(number, device=trainer.strategy.root_device))
    return [int(one) for one in found.reshape(-1).tolist()]

"""The network that is measured: each process calls it by itself, or all of them call it together."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning.pytorch as pl
from torch import nn

from lightning_tansens.monitor.module import find_network
from lightning_tansens.monitor.processes import Lockstep, every_process
from lightning_tansens.tangent.batches import OutputPicker
from lightning_tansens.tangent.isolation import undisturbed

#: Functions that read a batch, the inputs first, the same on every process, by the set's name; the reference's first.
Reads = Mapping[str, Callable[[], tuple[Any, ...]]]


class Reached(NamedTuple):
    """What is measured: a module, whose training step tells the loss, and the network in it."""

    module: pl.LightningModule
    network: nn.Module


class Unsharded:
    """Each process holds the whole network, a named submodule or the LightningModule, and measures it alone."""

    #: How processes call the network together; None where each calls it by itself.
    lockstep: Lockstep | None = None
    #: What a user should know; None for nothing.
    note: str | None = None

    def __init__(self, name: str | None = None) -> None:
        self._name = name

    @contextmanager
    def reached(self, pl_module: pl.LightningModule) -> Iterator[Reached]:
        """Yields what is measured, undisturbed; all processes must enter it."""
        with undisturbed(pl_module):
            yield Reached(pl_module, find_network(pl_module, self._name))

    def settle(self, pl_module: pl.LightningModule, reached: Reached, reads: Reads, output: OutputPicker | None) -> Reached:
        """Decides for all processes alike what is measured, inside :meth:`reached`, and how: by :attr:`lockstep`."""
        return reached


class InStep(Unsharded):
    """The processes hold parts of the network, and call it together once :meth:`call_together` says so."""

    def __init__(self, trainer: pl.Trainer, name: str | None) -> None:
        super().__init__(name)
        # processes that split single layers get the same samples; only the first of them reports
        share = share_of(trainer)
        first = share[0] not in every_process(trainer, share[0])[: trainer.global_rank]
        self._trainer, self._steps = trainer, Lockstep(trainer, share, speaks=first)

    def call_together(self, reason: str) -> None:
        """Leaves the sensitivities out, for a reason that :attr:`note` tells."""
        self.lockstep = self._steps
        self.note = (
            f"the network is sharded and its sensitivities are left out, while estimates from outputs go on: {reason}"
        )


def share_of(trainer: pl.Trainer) -> tuple[int, int]:
    """Returns which share of the samples this process reads, and of how many."""
    sampling = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    return sampling["rank"], sampling["num_replicas"]

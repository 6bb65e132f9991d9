"""Reaches a network whose parameters are spread over processes; only :func:`sharding_of` tells the strategies apart.

Each process measures a plain copy by itself. Where the whole network does not fit into a budget, the copy's weights are
gathered one by one as they are used. Where a copy does not compute the same, and where a strategy wraps the module, the
processes call the network itself equally often, because each call talks to the others; the sensitivities are left out.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from lightning_tansens.monitor.company import gathered_groups
from lightning_tansens.monitor.gathering import (
    copied_with,
    distributed_tensors,
    gathered,
    gathered_size,
    is_sharded,
    whole,
)
from lightning_tansens.monitor.module import find_network
from lightning_tansens.monitor.processes import any_process, checksum, every_process, serving, together
from lightning_tansens.monitor.reach import InStep, Reached, Reads, Unsharded, share_of
from lightning_tansens.monitor.supply import Supply
from lightning_tansens.monitor.wrapped import Wrapped
from lightning_tansens.tangent.batches import OutputPicker, call_model, map_tensors, pick_output
from lightning_tansens.tangent.isolation import evaluation, undisturbed
from lightning_tansens.tangent.methods import share_choices
from lightning_tansens.tangent.tracing import tensors_in

#: A gathered copy computes something else if its outputs differ from the sharded network's by a larger share.
TOLERANCE = 0.05
#: From this share on, a note tells the difference.
TOLD = 1e-3


def sharding_of(trainer: pl.Trainer, name: str | None, budget: int) -> Unsharded:
    """Returns how the Trainer's network is reached; the same kind on every process."""
    if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy)):
        return Wrapped(trainer, name)
    return Sharded(trainer, name, budget) if is_sharded(trainer.lightning_module) else Unsharded(name)


class Sharded(InStep):
    """The parameters are distributed tensors, as with ``fully_shard`` and ``parallelize_module``.

    Of a network that takes more bytes than the budget, weights are gathered as they are used, and as many bytes of them are
    kept.
    """

    def __init__(self, trainer: pl.Trainer, name: str | None, budget: int) -> None:
        super().__init__(trainer, name)
        self._choices: dict[object, Any] = {}
        self._budget, size = budget, gathered_size(trainer.lightning_module)
        self._as_used = size > budget
        self.note = "the network is sharded; a plain copy of it is gathered for each measurement"
        if self._as_used:
            self.note = (
                f"the network is sharded and takes {size:,} bytes, more than gathered_bytes={budget:,}; its weights are "
                "gathered one by one as they are used, which takes longer than on a whole copy: Options(gathered_bytes=...)"
            )

    @contextmanager
    def reached(self, pl_module: pl.LightningModule) -> Iterator[Reached]:
        """Yields a plain copy, or the module itself where processes call it together."""
        with ExitStack() as stack:
            stack.enter_context(_resharded(pl_module))
            stack.enter_context(undisturbed(pl_module))
            module = pl_module
            if self.lockstep is None:
                module = self._copy(pl_module, stack)
                stack.enter_context(undisturbed(module))
                share_choices(find_network(module, self._name), self._choices)
            yield Reached(module, find_network(module, self._name))

    def _copy(self, pl_module: pl.LightningModule, stack: ExitStack) -> pl.LightningModule:
        if not self._as_used:
            return gathered(pl_module, partial(together, self._trainer))
        supply = Supply(self._budget, partial(every_process, self._trainer))
        stack.enter_context(serving(supply.finish))
        with together(self._trainer):
            return copied_with(pl_module, {one: supply.remote(one) for one in distributed_tensors(pl_module)})

    def settle(self, pl_module: pl.LightningModule, reached: Reached, reads: Reads, output: OutputPicker | None) -> Reached:
        """Compares a gathered copy with the sharded network, which is measured instead if they disagree."""
        sharded = Reached(pl_module, find_network(pl_module, self._name))
        (inputs, *_) = self._read_alike(dict(list(reads.items())[:1]))
        self._compare(reached.network, sharded.network, inputs, output)
        if self.lockstep is None:
            return reached
        self._read_alike(reads)
        return sharded

    def _read_alike(self, reads: Reads) -> list[Any]:
        """Reads batches, and refuses ones that differ among processes that split single layers."""
        with together(self._trainer):
            batches = [read()[0] for read in reads.values()]
            sums = [checksum(batch) for batch in batches]
        shares = every_process(self._trainer, share_of(self._trainer)[0])
        for name, own in zip(reads, sums):
            found = every_process(self._trainer, own)
            if len({*zip(shares, found)}) > len({*shares}):
                raise MisconfigurationException(
                    f"the {name} set: expected the same samples on all processes that split the network's layers among them "
                    "(tensor parallel), but they read different ones, as from a stream that each process reads by itself; "
                    "pass a set with __getitem__, or let the stream depend on the data-parallel rank alone"
                )
        return batches

    def _compare(self, own: nn.Module, network: nn.Module, inputs: Any, output: OutputPicker | None) -> None:
        expected = _outputs(network, inputs, output, self._steps.calling())
        try:
            difference = _difference(_outputs(own, inputs, output), expected)
            said = f"their outputs differ by {difference:.1%}"
        except Exception as error:  # raised by a forward pass that counts on its shards
            difference, said = math.inf, f"{type(error).__name__}: {error}"
        if any_process(self._trainer, [not difference <= TOLERANCE])[0]:
            self.call_together(
                f"a gathered copy of it does not compute the same ({said}); write a forward pass that does not "
                "depend on the number of shards"
            )
        elif difference > TOLD:
            self.note = f"{self.note}; its outputs differ by {difference:.2%}, as in lower precision"


@contextmanager
def _resharded(pl_module: nn.Module) -> Iterator[None]:
    """Lets ``fully_shard`` put its shards back after each call: the isolation restores parameters as they lie in modules.

    What it has noted for the next backward pass is restored too: processes would gather different weights there after a call
    that only some of them have ended.
    """
    modules: list[Any] = [module for module in pl_module.modules() if isinstance(module, FSDPModule)]
    below = {id(part) for module in modules for part in module.modules() if part is not module}
    roots = [module for module in modules if id(module) not in below]

    def reshard(module: nn.Module, args: Any, output: Any) -> Any:
        cast(FSDPModule, module).reshard()
        if sys.exc_info()[0] is not None:  # a call that failed leaves marks, which newer versions of torch can remove
            for root in roots:
                getattr(root, "reset_iter_state", lambda: None)()
        return output  # so it counts as a hook that computes, and is not silent

    for root in roots:
        root._get_fsdp_state()._lazy_init()  # a part that is called first would take itself for the root
    for module in modules:
        module.reshard()
    groups = gathered_groups(pl_module)
    orders = [order for group in groups for order in (group.comm_ctx.post_forward_order, group._post_forward_indices)]
    noted = [(order, order.copy()) for order in orders]
    partial_sums = [group._partial_reduce_output for group in groups]
    handles = [module.register_forward_hook(reshard, always_call=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for order, before in noted:
            order[:] = before
        for group, partial_sum in zip(groups, partial_sums, strict=True):
            group._partial_reduce_output = partial_sum


def _outputs(
    network: nn.Module, inputs: Any, output: OutputPicker | None, calling: AbstractContextManager[None] | None = None
) -> list[Tensor]:
    with evaluation(network), torch.no_grad():
        with calling or nullcontext():
            found = pick_output(call_model(network, map_tensors(Tensor.clone, inputs)), output)
        return [whole(tensor).double() for tensor in tensors_in(found) if tensor.is_floating_point()]


def _difference(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Returns the largest relative difference; infinite where the shapes differ."""
    if [one.shape for one in outputs] != [one.shape for one in expected]:
        return math.inf
    pairs = ((own.nan_to_num(), other.nan_to_num()) for own, other in zip(outputs, expected))
    return max((float((own - other).norm() / other.norm().clamp(min=1e-30)) for own, other in pairs), default=0.0)

"""How a network is reached whose parameters are spread over processes; the only place that knows the strategies.

Where the whole network fits into a budget, each process gets a plain copy and measures that by itself. Where not, the
processes call the sharded network equally often, because each call talks to the others; the sensitivities, which need
derivatives of the whole network, are left out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.monitor.gathering import gathered, gathered_size, is_sharded, whole
from lightning_tansens.monitor.module import find_network
from lightning_tansens.monitor.processes import Lockstep, any_process, together
from lightning_tansens.tangent.batches import OutputPicker, call_model, map_tensors, pick_output
from lightning_tansens.tangent.isolation import evaluation, undisturbed
from lightning_tansens.tangent.tracing import tensors_in

#: A gathered copy whose outputs differ by a larger share from those of the sharded network computes something else.
TOLERANCE = 0.05
#: From this share on the difference is told.
TOLD = 1e-3


def sharding_of(trainer: pl.Trainer, budget: int) -> Unsharded:
    """Returns how the Trainer's network is reached; the same kind on every process.

    Args:
        trainer: The Trainer.
        budget: The bytes that a gathered copy of the network may take on each process.

    """
    strategy = trainer.strategy
    if isinstance(strategy, (FSDPStrategy, DeepSpeedStrategy)):
        return Sharded(
            trainer,
            f"{type(strategy).__name__} has not been tried with derivatives; train with ModelParallelStrategy for them",
        )
    if not is_sharded(trainer.lightning_module):
        return UNSHARDED
    size = gathered_size(trainer.lightning_module)
    if size > budget:
        return Sharded(
            trainer,
            f"the whole network takes {size:,} bytes, more than gathered_bytes={budget:,}; "
            "allow more where a copy of that size fits on each process: Options(gathered_bytes=...)",
        )
    return Sharded(trainer)


class Unsharded:
    """Each process holds the whole network, and measures it without the others."""

    #: How processes call the network together; None where each calls it by itself.
    lockstep: Lockstep | None = None
    #: What a user should know; None for nothing.
    note: str | None = None

    @contextmanager
    def reached(self, pl_module: pl.LightningModule) -> Iterator[pl.LightningModule]:
        """Yields the module to measure, undisturbed; all processes must enter it."""
        with undisturbed(pl_module):
            yield pl_module

    def settle(
        self,
        pl_module: pl.LightningModule,
        reached: pl.LightningModule,
        name: str | None,
        read: Callable[[], Any],
        output: OutputPicker | None,
        subsets: Sequence[Subset],
    ) -> pl.LightningModule:
        """Decides for all processes alike which module is measured, inside of :meth:`reached`, and returns it.

        Args:
            pl_module: The module as it is trained.
            reached: What :meth:`reached` yielded.
            name: The name of the submodule that is measured; None for all of it.
            read: Reads a batch of inputs, the same on every process.
            output: Picks the tensor of outputs.
            subsets: The subsets, which are shared differently where processes call the network together.

        """
        return reached


class Sharded(Unsharded):
    """The processes hold parts of the network.

    Args:
        trainer: The Trainer.
        reason: Why it cannot be gathered; None to gather it.

    """

    def __init__(self, trainer: pl.Trainer, reason: str | None = None) -> None:
        self._trainer = trainer
        self.note = "the network is sharded; a plain copy of it is gathered for each measurement"
        if reason is not None:
            self._call_together(reason)

    def _call_together(self, reason: str) -> None:
        self.lockstep = _lockstep(self._trainer)
        self.note = (
            f"the network is sharded and its sensitivities are left out, while estimates from outputs go on: {reason}"
        )

    @contextmanager
    def reached(self, pl_module: pl.LightningModule) -> Iterator[pl.LightningModule]:
        """Yields a plain copy, or the module itself."""
        with ExitStack() as stack:
            stack.enter_context(_through(self._trainer.strategy, pl_module))
            stack.enter_context(_resharded(pl_module))
            stack.enter_context(undisturbed(pl_module))
            if self.lockstep is not None:
                yield pl_module
                return
            copied = gathered(pl_module, partial(together, self._trainer))
            stack.enter_context(undisturbed(copied))
            yield copied

    def settle(
        self,
        pl_module: pl.LightningModule,
        reached: pl.LightningModule,
        name: str | None,
        read: Callable[[], Any],
        output: OutputPicker | None,
        subsets: Sequence[Subset],
    ) -> pl.LightningModule:
        """Compares a gathered copy with the sharded network, which is measured instead if they disagree."""
        if self.lockstep is None:
            with together(self._trainer):
                own, network, inputs = find_network(reached, name), find_network(pl_module, name), read()
            self._compare(own, network, inputs, output)
        if self.lockstep is None:
            return reached
        for subset in subsets:
            subset.share(*self.lockstep.share)
        return pl_module

    def _compare(self, own: nn.Module, network: nn.Module, inputs: Any, output: OutputPicker | None) -> None:
        expected = _outputs(network, inputs, output)
        try:
            difference = _difference(_outputs(own, inputs, output), expected)
            said = f"their outputs differ by {difference:.1%}"
        except Exception as error:  # of a forward pass that counts on its shards
            difference, said = math.inf, f"{type(error).__name__}: {error}"
        if any_process(self._trainer, [not difference <= TOLERANCE])[0]:
            self._call_together(
                f"a gathered copy of it does not compute the same ({said}); write a forward pass that does not "
                "depend on the number of shards"
            )
        elif difference > TOLD:
            self.note = f"{self.note}; its outputs differ by {difference:.2%}, as in lower precision"


#: The network of most runs.
UNSHARDED = Unsharded()


def _lockstep(trainer: pl.Trainer) -> Lockstep:
    """Processes that split single layers get the same samples, of which the first alone tells."""
    sampling = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    share = sampling["rank"], sampling["num_replicas"]
    everyone = trainer.strategy.all_gather(torch.tensor(share[0], device=trainer.strategy.root_device))
    return Lockstep(trainer, share, speaks=share[0] not in everyone.reshape(-1).tolist()[: trainer.global_rank])


@contextmanager
def _resharded(pl_module: nn.Module) -> Iterator[None]:
    """Lets ``fully_shard`` put its shards back after each call: the isolation restores parameters as they lie in modules."""
    modules: list[Any] = [module for module in pl_module.modules() if isinstance(module, FSDPModule)]
    below = {id(part) for module in modules for part in module.modules() if part is not module}
    roots = [module for module in modules if id(module) not in below]

    def reshard(module: nn.Module, args: Any, output: Any) -> Any:
        cast(FSDPModule, module).reshard()
        if sys.exc_info()[0] is not None:  # a call that failed leaves marks, which newer versions of torch can take away
            for root in roots:
                getattr(root, "reset_iter_state", lambda: None)()
        return output  # so it counts as a hook that computes, and is not silent

    for root in roots:
        root._get_fsdp_state()._lazy_init()  # a part that is called first would take itself for the root
    for module in modules:
        module.reshard()
    handles = [module.register_forward_hook(reshard, always_call=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _through(strategy: Strategy, pl_module: pl.LightningModule) -> Iterator[None]:
    """Lets a call of the module pass through the strategy's wrapper, where it has one, as a training step does."""
    wrapper, own = strategy.model, vars(pl_module)
    if wrapper is None or wrapper is pl_module or "forward" in own:
        yield
        return

    @wraps(pl_module.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        del own["forward"]  # the wrapper calls the module once more
        try:
            return wrapper(*args, **kwargs)
        finally:
            own["forward"] = forward

    own["forward"] = forward
    try:
        yield
    finally:
        del own["forward"]


def _outputs(network: nn.Module, inputs: Any, output: OutputPicker | None) -> list[Tensor]:
    with evaluation(network), torch.no_grad():
        found = pick_output(call_model(network, map_tensors(Tensor.clone, inputs)), output)
        return [whole(tensor).double() for tensor in tensors_in(found) if tensor.is_floating_point()]


def _difference(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative difference; infinite where the shapes differ."""
    if [one.shape for one in outputs] != [one.shape for one in expected]:
        return math.inf
    pairs = ((own.nan_to_num(), other.nan_to_num()) for own, other in zip(outputs, expected))
    return max((float((own - other).norm() / other.norm().clamp(min=1e-30)) for own, other in pairs), default=0.0)

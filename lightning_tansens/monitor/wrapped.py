"""Networks that the strategy wraps and calls itself: FSDP1 and DeepSpeed."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import Strategy
from torch import nn

from lightning_tansens.monitor.module import find_network
from lightning_tansens.monitor.reach import InStep, Reached
from lightning_tansens.tangent.isolation import isolated_rng, modes


class Wrapped(InStep):
    """The strategy wraps the module and calls it itself (FSDP1, DeepSpeed); it is called as in a validation.

    Raises:
        MisconfigurationException: If a submodule is named.
    """

    def __init__(self, trainer: pl.Trainer, name: str | None) -> None:
        strategy = type(trainer.strategy).__name__
        if name is not None:
            raise MisconfigurationException(
                f"network={name!r}: expected None with {strategy}, which only calls the whole LightningModule; leave it "
                "out, or train with ModelParallelStrategy"
            )
        super().__init__(trainer, name)
        self.call_together(f"derivatives have not been tried with {strategy}; train with ModelParallelStrategy for them")

    @contextmanager
    def reached(self, pl_module: pl.LightningModule) -> Iterator[Reached]:
        """Yields the module, and what calls it through the strategy; the strategy's own memory is left alone."""
        find_network(pl_module, None)
        with isolated_rng():
            yield Reached(pl_module, ThroughStrategy(self._trainer.strategy, pl_module))


class ThroughStrategy(nn.Module):
    """Calls a module as a validation step does: through the strategy's wrapper, in eval mode and without gradients."""

    def __init__(self, strategy: Strategy, pl_module: pl.LightningModule) -> None:
        super().__init__()
        wrapper = pl_module if strategy.model is None else strategy.model

        @wraps(pl_module.forward)
        def forward(*args: Any, **kwargs: Any) -> Any:
            with modes(dict.fromkeys(wrapper.modules(), False)), torch.no_grad():
                return wrapper(*args, **kwargs)

        self.forward = forward

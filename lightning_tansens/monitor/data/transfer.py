"""Moves a batch to the device as the Trainer would in the stage that its set belongs to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.tangent.isolation import Randomness, has_accelerator, isolated_rng

Stage = Literal["validate", "test"]


class Transfer:
    """Moves a batch to the device: precision, the hooks of the module or the datamodule, the strategy.

    Hooks that ask which stage the Trainer is in (``self.trainer.training``), or which mode the module is in
    (``self.training``), see the set's own stage and mode: test sets pass as in ``Trainer.test``, and the reference, which is
    measured in eval mode, passes as in validation, also the training set. So augmentation that is meant for training never
    runs on a measured set. Hooks that are random all the same start from the same seed at each batch.

    Args:
        trainer: The Trainer.
        stage: The stage.
        dataloader_idx: Which of the stage's loaders the batch comes from.

    """

    def __init__(self, trainer: pl.Trainer, stage: Stage = "validate", dataloader_idx: int = 0) -> None:
        self._trainer, self._stage, self._dataloader_idx = trainer, stage, dataloader_idx

    def of(self, subset: Subset) -> Transfer:
        """Returns a transfer for the batches of a set."""
        return Transfer(self._trainer, subset.stage, subset.dataloader_idx)

    def __call__(self, batch: Any) -> Any:
        """Returns the batch on the device."""
        trainer, place = self._trainer, self._dataloader_idx
        with isolated_rng(), torch.no_grad(), in_stage(trainer, self._stage), _eval_mode(trainer.lightning_module):
            Randomness().seed(0)
            if has_accelerator():
                torch.manual_seed(0)  # seeds the devices, too; slow without any
            batch = trainer.precision_plugin.convert_input(batch)
            batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=place)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=place)


def batch_transfer(trainer: pl.Trainer) -> Transfer:
    """Returns a function that moves a batch to the device; :meth:`Transfer.of` sets the stage of a set."""
    return Transfer(trainer)


@contextmanager
def in_stage(trainer: pl.Trainer, stage: Stage) -> Iterator[None]:
    """Makes the Trainer say that it is in another stage within the block.

    Args:
        trainer: The Trainer.
        stage: "validate", within a fit or by itself, or "test".

    """
    state = trainer.state
    before = state.fn, state.stage
    # pytorch_lightning has enumerations of its own
    states = sys.modules[type(state).__module__]
    state.stage = states.RunningStage(stage)
    if stage == "test" or state.fn != states.TrainerFn.FITTING:
        state.fn = states.TrainerFn(stage)
    try:
        yield
    finally:
        state.fn, state.stage = before


@contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Sets the flags directly: ``eval`` may be overridden, and ``train`` would thaw what the user froze."""
    modules = [part for part in module.modules() if part.training]
    for part in modules:
        part.training = False
    try:
        yield
    finally:
        for part in modules:
            part.training = True

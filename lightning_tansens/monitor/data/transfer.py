"""Moves a batch to the device as the Trainer would in the stage that its set belongs to."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from lightning_tansens.tangent.isolation import Randomness, isolated_rng, modes, seed_devices

Stage = Literal["validate", "test"]

#: Moves a batch to the device.
Transfer = Callable[[Any], Any]


def to_device(trainer: pl.Trainer, batch: Any, stage: Stage = "validate", dataloader_idx: int = 0) -> Any:
    """Moves a batch to the device: precision, the hooks of the module or the datamodule, the strategy.

    Hooks that ask which stage the Trainer is in (``self.trainer.training``), or which mode the module is in
    (``self.training``), see the set's own stage and mode: test sets pass as in ``Trainer.test``, and the reference, which is
    measured in eval mode, passes as in validation, also the training set. So augmentation that is meant for training never
    runs on a measured set. Hooks that are random all the same start from the same seed at each batch.
    """
    module = trainer.lightning_module
    with isolated_rng(), torch.no_grad(), in_stage(trainer, stage), modes(dict.fromkeys(module.modules(), False)):
        Randomness().seed(0)
        seed_devices(0)
        batch = trainer.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=dataloader_idx)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=dataloader_idx)


@contextmanager
def in_stage(trainer: pl.Trainer, stage: Stage) -> Iterator[None]:
    """Makes the Trainer say that it is in another stage within the block; "validate" may also be a part of a fit."""
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

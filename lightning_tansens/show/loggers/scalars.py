"""Scalars, which Lightning itself sends to every logger, and the step at which they stand."""

from __future__ import annotations

from collections.abc import Mapping

import lightning.pytorch as pl


def log_scalars(trainer: pl.Trainer, scalars: Mapping[str, float]) -> None:
    """Sends scalars to every logger and makes them known to callbacks; every process must call it.

    Args:
        trainer: The Trainer, in a hook in which values can be logged.
        scalars: Values by key, the same on every process.

    """
    # every process logs: a key that only rank 0 has cannot be monitored
    for key, value in scalars.items():
        trainer.lightning_module.log(
            key, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1, add_dataloader_idx=False
        )


def logging_step(trainer: pl.Trainer) -> int:
    """Returns the step at which ``self.log`` puts the values of an epoch or an evaluation, for what is written directly.

    ``trainer.global_step`` is one further, and counts each optimizer's steps. Lightning counts an epoch's last step before
    the hooks of the epoch's end, but logs what they log at the step itself.
    """
    stepped = int(trainer.fit_loop.epoch_loop._batches_that_stepped)
    return stepped if trainer.validating or trainer.testing else stepped - 1

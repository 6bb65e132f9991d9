"""What goes to loggers beside scalars, which Lightning itself sends to every logger."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import Tensor


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


def log_histograms(trainer: pl.Trainer, histograms: Mapping[str, Tensor]) -> None:
    """Sends histograms to the loggers, from rank 0.

    Args:
        trainer: The Trainer.
        histograms: One number per sample, shapes (N,), by tag.

    """
    for tag, values in histograms.items():
        for logger in trainer.loggers if trainer.is_global_zero else ():
            log_histogram(logger, tag, values, logging_step(trainer))


@singledispatch
def log_histogram(logger: Logger, tag: str, values: Tensor, step: int) -> None:
    """Sends a histogram to a logger; loggers without histograms are passed over.

    Args:
        logger: The logger; register an implementation for its type to support it.
        tag: The histogram's name.
        values: One number per sample, shape (N,).
        step: The step on the logger's axis.

    """


@log_histogram.register
def _(logger: TensorBoardLogger, tag: str, values: Tensor, step: int) -> None:
    logger.experiment.add_histogram(tag, values, step)


def logging_step(trainer: pl.Trainer) -> int:
    """Returns the step at which ``self.log`` puts the values of an epoch or an evaluation, for what is written directly.

    ``trainer.global_step`` is one further, and counts each optimizer's steps. Lightning counts an epoch's last step before
    the hooks of the epoch's end, but logs what they log at the step itself.
    """
    stepped = int(trainer.fit_loop.epoch_loop._batches_that_stepped)
    return stepped if trainer.validating or trainer.testing else stepped - 1

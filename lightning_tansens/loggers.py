"""What goes to loggers beside scalars, which Lightning itself sends to every logger."""

from __future__ import annotations

from functools import singledispatch

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import Tensor


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
    """Returns the step at which ``self.log`` puts the values of an epoch, for what is written directly.

    ``trainer.global_step`` is one further, and counts each optimizer's steps. Lightning counts an epoch's last step before
    the hooks of the epoch's end, but logs what they log at the step itself.
    """
    stepped = int(trainer.fit_loop.epoch_loop._batches_that_stepped)
    return stepped if trainer.validating else stepped - 1

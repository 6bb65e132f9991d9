"""How values, distributions, figures and texts reach a Trainer's loggers."""

from lightning_tansens.loggers.base import Writer, writer_of
from lightning_tansens.loggers.of_trainer import hyperparameters, writers
from lightning_tansens.loggers.scalars import log_scalars, logging_step

__all__ = ["Writer", "hyperparameters", "log_scalars", "logging_step", "writer_of", "writers"]

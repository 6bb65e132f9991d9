"""How values, distributions, figures and texts reach a Trainer's loggers."""

from lightning_tansens.show.loggers.base import Writer, writer_of
from lightning_tansens.show.loggers.of_trainer import hyperparameters, run_folder, writers
from lightning_tansens.show.loggers.scalars import log_scalars, logging_step

__all__ = ["Writer", "hyperparameters", "log_scalars", "logging_step", "run_folder", "writer_of", "writers"]

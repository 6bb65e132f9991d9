"""The writers of a Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lightning_tansens.show.loggers import comet, folder, mlflow, tensorboard, wandb  # noqa: F401  (they register themselves)
from lightning_tansens.show.loggers.base import Writer, writer_of


def writers(trainer: pl.Trainer) -> list[Writer]:
    """Returns a writer for each logger, on the process that logs; none on the others or in a trial run.

    Where no logger takes figures, they are kept in the run's folder; without a logger nothing is.

    Args:
        trainer: The Trainer.

    """
    of_run = run_folder(trainer)  # on every process: it talks to the others
    if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
        return []
    found = [writer_of(logger) for logger in trainer.loggers]
    if of_run is not None and not any(writer.takes_figures for writer in found):
        found.append(folder.FolderWriter(of_run / folder.FOLDER))
    return found


def run_folder(trainer: pl.Trainer) -> Path | None:
    """Returns where a run keeps files, on the process that logs; None on the others, in a trial run and without a logger.

    Every process must call it: ``Trainer.log_dir`` broadcasts the folder from the first one.

    Args:
        trainer: The Trainer.

    """
    if not trainer.loggers or getattr(trainer, "fast_dev_run", False):
        return None
    folder = trainer.log_dir or trainer.default_root_dir
    return Path(folder) if trainer.is_global_zero else None


def hyperparameters(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Returns the hyperparameters that Lightning logs at the start of a fit; None where it logs none.

    Args:
        trainer: The Trainer, with its module.

    """
    owners = [owner for owner in (trainer.lightning_module, getattr(trainer, "datamodule", None)) if owner is not None]
    found: dict[str, Any] = {}
    logged = [owner for owner in owners if owner._log_hyperparams]
    for owner in logged:
        found |= owner.hparams_initial
    found.pop("_class_path", None)
    return found if logged else None

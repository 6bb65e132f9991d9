"""Sends values to a Trainer's loggers: the writers, the scalars, and the step at which they stand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm.auto import tqdm

from lightning_tansens.record import HEADLINE
from lightning_tansens.show.loggers import Writer, writer_of
from lightning_tansens.show.loggers.folder import FOLDER, FolderWriter

#: The endings of keys that callbacks get even if none of them monitors these keys.
_ALWAYS = ("/seconds", *(f"/{name}_{of}" for name in ("train", "val", "reference") for of in ("loss", "accuracy")))


def writers(trainer: pl.Trainer, folder: Path | None) -> list[Writer]:
    """Returns a writer for each logger, on the process that logs; none on the others or in a trial run.

    If no logger takes figures, the folder of :func:`run_folder` gets them; without any logger nothing does.
    """
    if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
        return []
    found = [writer_of(logger) for logger in trainer.loggers]
    if folder is not None and not any(writer.takes_figures for writer in found):
        found.append(FolderWriter(folder / FOLDER))
    return found


def run_folder(trainer: pl.Trainer) -> Path | None:
    """Returns where a run keeps files, on the process that logs; None on the others, in a trial run and without a logger.

    Every process must call it: ``Trainer.log_dir`` broadcasts the folder from the first one.
    """
    if not trainer.loggers or getattr(trainer, "fast_dev_run", False):
        return None
    folder = trainer.log_dir or trainer.default_root_dir
    return Path(folder) if trainer.is_global_zero else None


def hyperparameters(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Returns the hyperparameters that Lightning logs at the start of a fit; None where it logs none."""
    owners = [owner for owner in (trainer.lightning_module, getattr(trainer, "datamodule", None)) if owner is not None]
    found: dict[str, Any] = {}
    logged = [owner for owner in owners if owner._log_hyperparams]
    for owner in logged:
        found |= owner.hparams_initial
    found.pop("_class_path", None)
    return found if logged else None


def log_for_callbacks(trainer: pl.Trainer, scalars: Mapping[str, float]) -> None:
    """Makes scalars known to callbacks, such as EarlyStopping, in a hook that may log; all processes must call it alike.

    ``self.log`` takes a millisecond a key, see :func:`wanted`. The loggers get all scalars from the page, in one call, so
    that the table of ``Trainer.test`` does not grow.
    """
    # every process logs: a key that only rank 0 has cannot be monitored
    for key, value in scalars.items():
        trainer.lightning_module.log(
            key,
            value,
            on_step=False,
            on_epoch=True,
            logger=False,
            sync_dist=True,
            batch_size=1,
            add_dataloader_idx=False,
        )


def wanted(trainer: pl.Trainer, scalars: Mapping[str, float]) -> dict[str, float]:
    """Returns the scalars that go into ``trainer.callback_metrics``.

    Those are the headline's values, the reference's loss and accuracy, how long the measurement took, and whatever a
    callback or a scheduler of the Trainer monitors or a checkpoint's file name holds.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    monitored = [getattr(callback, "monitor", None) for callback in callbacks]
    monitored += [config.monitor for config in trainer.lr_scheduler_configs]
    names = " ".join(str(getattr(callback, "filename", "")) for callback in callbacks)
    return {
        key: value
        for key, value in scalars.items()
        if key in monitored or key in names or key.endswith(_ALWAYS) or f"/{HEADLINE}" in key
    }


def logging_step(trainer: pl.Trainer) -> int:
    """Returns the step at which ``self.log`` puts the values of an epoch or an evaluation, for what is written directly.

    ``trainer.global_step`` is one further, and counts each optimizer's steps. Lightning counts an epoch's last step before
    the hooks of the epoch's end, but logs what they log at the step itself.
    """
    stepped = int(trainer.fit_loop.epoch_loop._batches_that_stepped)
    return stepped if trainer.validating or trainer.testing else stepped - 1


def say(trainer: pl.Trainer, text: str) -> None:
    """Prints on standard output, from rank 0, above the progress bar if there is one."""
    if not trainer.is_global_zero:
        return
    bar = trainer.progress_bar_callback
    if bar is None or isinstance(bar, TQDMProgressBar):
        tqdm.write(text)  # TQDMProgressBar.print does the same, but drops the text while no bar is active
    else:
        for line in text.split("\n"):  # in a notebook, rich repeats what it holds of an unfinished line without an end
            bar.print(line)

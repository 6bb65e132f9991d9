"""A training that kills itself: python tests/interrupted.py FOLDER WHEN.

WHEN is never, epoch, measurement, or a way in which the checkpoint is half written: Lightning's or straight into the file.
The training goes on from the last whole checkpoint in the folder, if there is one, and the loggers where they were.
"""

import io
import json
import os
import pickle
import signal
import sys
import tempfile
from pathlib import Path

import lightning.pytorch as pl
import torch
from fsspec.implementations.local import LocalFileOpener
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import TorchCheckpointIO

from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    EmpiricalSensitivity,
    LayerwiseNormSensitivity,
    SensitivityMovement,
    SpectralNormSensitivity,
)
from tests.boring import BoringData, Points, fit, make_monitor, untimed

EPOCHS, KILLED_IN = 6, 3
#: The ways in which a checkpoint is half written.
WHOLE_OR_NOTHING, STRAIGHT = "checkpoint", "checkpoint straight into the file"


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(pl.Callback):
    """Kills the process at one moment of one epoch."""

    def __init__(self, when):
        self.when, self.epoch = when, -1

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.epoch = trainer.current_epoch
        if self.when == "epoch" and self.epoch == KILLED_IN and batch_idx == 1:
            kill()

    def criterion(self, outputs, targets):
        """The monitor's criterion: in the midst of a measurement."""
        if self.when == "measurement" and self.epoch == KILLED_IN:
            kill()
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    def half(self, when, file, contents):
        """Writes the contents into a file; is killed in the midst of it, where it is to be."""
        if self.when == when and self.epoch == KILLED_IN:
            file.write(contents[: len(contents) // 2])
            file.flush()
            os.fsync(file.fileno())
            kill()
        return file.write(contents)


class Straight(TorchCheckpointIO):
    """Writes straight into the file, as plugins of users do; Lightning writes another one and renames it."""

    def __init__(self, killer):
        self.killer = killer

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        contents = io.BytesIO()
        torch.save(checkpoint, contents)
        with open(path, "wb") as file:
            self.killer.half(STRAIGHT, file, contents.getvalue())


def last_whole(folder):
    """The last checkpoint that can be read."""
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: -path.stat().st_mtime_ns):
        try:
            torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            continue
        return path
    return None


def write_half(killer, folder):
    """Has Lightning write checkpoints next to the whole ones, and be killed in the midst of one."""
    tempfile.tempdir = str(folder)
    write = LocalFileOpener.write
    LocalFileOpener.write = lambda opener, contents: (
        killer.half(WHOLE_OR_NOTHING, opener.f, contents) if ".ckpt" in opener.path else write(opener, contents)
    )


def train(folder, when="never", purge_step=None):
    """Trains, or goes on; what is written to the process's own settings is written for one that is killed alone."""
    killer = Killer(when)
    if when != "never":
        write_half(killer, folder)
    measures = [
        EmpiricalSensitivity(method="input_space"),
        LayerwiseNormSensitivity(),
        ActiveNodeSensitivity(),
        SpectralNormSensitivity(),
        SensitivityMovement(),
    ]
    # the test set is noisy and its noise is the monitor's affair; Lightning does not resume the training's random state
    noisy = Points(10, seed=2, noise=True)
    options = {"criterion": killer.criterion, "test_dataloaders": noisy, "compare_with_labels": True}
    monitor = make_monitor(measures=measures, **options)
    second = make_monitor(prefix="second", measures=[LayerwiseNormSensitivity()])
    save = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    events = TensorBoardLogger(folder, "", "events", max_queue=1, flush_secs=1, purge_step=purge_step)
    fit(
        killer,
        monitor,
        second,
        save,
        data=BoringData(shuffle=False),
        ckpt_path=last_whole(folder),
        max_epochs=EPOCHS,
        enable_checkpointing=True,
        logger=[events, CSVLogger(folder, "", "rows")],
        log_every_n_steps=1,
        plugins=[Straight(killer)] if when == STRAIGHT else None,
    )
    (folder / "history.json").write_text(json.dumps(untimed(monitor.history)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), sys.argv[2])

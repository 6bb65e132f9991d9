"""A training that kills itself: python tests/interrupted.py FOLDER WHEN; WHEN is never, epoch, measurement or checkpoint.

It goes on from the last checkpoint in the folder, if there is one.
"""

import json
import os
import signal
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    EmpiricalSensitivity,
    LayerwiseNormSensitivity,
    SensitivityMovement,
    SpectralNormSensitivity,
)
from tests.boring import BoringData, Points, fit, make_monitor, untimed

EPOCHS, KILLED_IN = 6, 3


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

    def save(self, torch_save):
        """A torch.save that is killed after half of the bytes."""

        def half(obj, file, *args, **kwargs):
            if self.when != "checkpoint" or self.epoch != KILLED_IN:
                return torch_save(obj, file, *args, **kwargs)
            torch_save(obj, file, *args, **kwargs)
            file.seek(file.tell() // 2)
            file.truncate()
            kill()
            return None

        return half


def main(folder, when):
    torch.set_num_threads(1)
    killer = Killer(when)
    torch.save = killer.save(torch.save)
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
    save = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    latest = max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)
    data = BoringData(shuffle=False)
    fit(killer, monitor, save, data=data, ckpt_path=latest, max_epochs=EPOCHS, enable_checkpointing=True)
    (folder / "history.json").write_text(json.dumps(untimed(monitor.history)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

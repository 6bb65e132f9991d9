"""One training, and the outputs at each of its snapshots; an interrupted one goes on where it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from architectures import Architecture, make_network
from lightning.pytorch.callbacks import ModelCheckpoint
from sensitivities import measured
from sets import Data
from snapshots import NetworkOutputs
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lightning_tansens.monitor.data.reading import channels_of, some_entries

#: In the first epochs, that many, a run may take several snapshots an epoch.
EARLY_EPOCHS = 3

#: Samples of a forward pass over the sets.
FORWARD = 500

#: What part of the benchmark a network has: its results were looked at while the estimator was developed, they were looked
#: at before its last change, or they were scored once, after it.
Part = Literal["development", "seen", "once"]


@dataclass
class Run:
    """One network of the matrix.

    Args:
        name: Its name, and that of its file.
        data: What it is trained on.
        part: Which part of the benchmark it belongs to.
        network: Its architecture.
        widths: Of its layers.
        epochs: How long it is trained.
        learning_rate: Adam's.
        batch_size: The number of samples in a batch.
        train_samples: The most samples to train on.
        split: Seed of who is trained on, of tables.
        seed: Of weights and batches.
        augmented: Whether images are mirrored and moved by up to three pixels, with a cosine schedule.
        early_snapshots: How many snapshots an epoch there are in the first three; one afterwards.
        families: The families of shifts; None for all.

    """

    name: str
    data: str
    part: Part
    network: Architecture = "mlp"
    widths: list[int] = field(default_factory=lambda: [128, 128, 128])
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 128
    train_samples: int = 10_000
    split: int = 0
    seed: int = 0
    augmented: bool = False
    early_snapshots: int = 1
    families: list[str] | None = None


class BenchmarkNetwork(pl.LightningModule):
    """A network that standardises images by the channels of its training set."""

    def __init__(self, run: Run, data: Data) -> None:
        super().__init__()
        inputs, _ = data.train
        self.run_of = run
        image = inputs.dim() == 4
        self.network = make_network(run.network, inputs.shape[1:], data.classes, run.widths)
        self.register_buffer("mean", inputs.mean((0, 2, 3)).view(1, -1, 1, 1) if image else torch.zeros(1, 1))
        self.register_buffer("deviation", inputs.std((0, 2, 3)).view(1, -1, 1, 1) if image else torch.ones(1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network((inputs - self.mean) / self.deviation)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        inputs, labels = batch
        outputs = self(moved(inputs) if self.run_of.augmented else inputs)
        return F.mse_loss(outputs[:, 0], labels) if labels.is_floating_point() else F.cross_entropy(outputs, labels)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), self.run_of.learning_rate)
        if not self.run_of.augmented:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def moved(images: Tensor) -> Tensor:
    """Mirrors half of a batch, and moves all of it by up to three pixels."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    padded = F.pad(torch.where(mirrored, images.flip(-1), images), (3, 3, 3, 3), mode="reflect")
    top, left = torch.randint(7, (2,)).tolist()
    return padded[..., top : top + images.shape[-2], left : left + images.shape[-1]]


class Snapshots(pl.Callback):
    """Keeps the outputs on all sets at each snapshot, also in the checkpoint."""

    def __init__(self, data: Data, early: int) -> None:
        self.data, self.early = data, early
        self.epochs: list[float] = []
        self.outputs: dict[str, list[Tensor]] = {name: [] for name in data.inputs}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        done, whole = batch_index + 1, int(trainer.num_training_batches)
        often = self.early if trainer.current_epoch < EARLY_EPOCHS else 1
        if done == whole or (done % (whole // often) == 0 and done <= whole - whole // often):
            self.epochs.append(trainer.current_epoch + done / whole)
            self._forward(pl_module)

    @torch.no_grad()
    def _forward(self, pl_module: pl.LightningModule) -> None:
        modes = [(module, module.training) for module in pl_module.modules()]
        pl_module.eval()
        for name, inputs in self.data.inputs.items():
            parts = [pl_module(part.to(pl_module.device)) for part in inputs.split(FORWARD)]
            self.outputs[name].append(torch.cat(parts).half().cpu())
        for module, training in modes:
            module.training = training

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "outputs": self.outputs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs, self.outputs = state_dict["epochs"], state_dict["outputs"]


def fit(run: Run, data: Data, folder: Path) -> NetworkOutputs:
    """Trains a network and returns its outputs.

    Args:
        run: How it is trained.
        data: On what, and the sets.
        folder: Where an interrupted training is kept.

    """
    pl.seed_everything(run.seed, verbose=False)
    module, snapshots = BenchmarkNetwork(run, data), Snapshots(data, run.early_snapshots)
    last = ModelCheckpoint(folder, run.name, save_on_train_epoch_end=True, enable_version_counter=False)
    samples = TensorDataset(*data.train)
    batches = BatchSampler(RandomSampler(samples), run.batch_size, drop_last=True)
    trainer = pl.Trainer(
        max_epochs=run.epochs,
        callbacks=[snapshots, last],
        accelerator="auto",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    interrupted = folder / f"{run.name}.ckpt"
    resumed = interrupted if interrupted.exists() else None
    trainer.fit(module, DataLoader(samples, batch_size=None, sampler=batches), ckpt_path=resumed)
    module.eval()
    measures = {name: measured(module, of).float().numpy() for name, of in data.inputs.items() if data.classes > 1}
    outputs = {name: torch.stack(found).numpy() for name, found in snapshots.outputs.items()}
    labels = {name: found.numpy() for name, found in data.labels.items()}
    inputs = {name: seen.half().numpy() for name, of in data.inputs.items() if (seen := some_entries(of)) is not None}
    channels = channels_of(tuple(data.train[0].shape[1:]))
    return NetworkOutputs(data.sets, np.array(snapshots.epochs), outputs, labels, data.rows, inputs, channels, measures)

"""One training, which gives three networks: underfit, well fit and memorising."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from images import Images, LabelledImages
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from networks import NetworkName, Normalise, make_network
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

#: Underfit: after the first epoch. Well fit: at the least loss on images held out for that. Memorising: at the end, when the
#: training images are all but learnt.
REGIMES = ("underfit", "well_fit", "memorising")

Precision = Literal["32-true", "bf16-mixed"]

#: The training ends when this share of the training images, or less, was wrong during an epoch.
LEARNT = 0.002


class BenchmarkClassifier(pl.LightningModule):
    """A network for images with pixels in [0, 1], trained on cross-entropy without augmentation.

    Args:
        network: Its name.
        channels: Channels of an image.
        size: Height and width of an image, in pixels.
        means: The channels' means.
        deviations: The channels' standard deviations.
        optimizer: "sgd" (momentum 0.9) or "adam".
        learning_rate: The step size.

    """

    def __init__(
        self,
        network: NetworkName,
        channels: int,
        size: int,
        means: tuple[float, ...],
        deviations: tuple[float, ...],
        optimizer: str = "sgd",
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__()
        layers = nn.Sequential(Normalise(means, deviations), make_network(network, channels, size))
        self.network = layers.to(memory_format=torch.channels_last)  # convolutions on a CPU take two thirds of the time
        self.optimizer, self.learning_rate = optimizer, learning_rate

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        outputs = self(images)
        error = (outputs.argmax(1) != labels).float().mean()
        self.log("train_error", error, on_step=False, on_epoch=True)
        return F.cross_entropy(outputs, labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self(images), labels), batch_size=len(labels))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Nothing: the monitor measures."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), self.learning_rate)
        return torch.optim.SGD(self.parameters(), self.learning_rate, momentum=0.9)


class FirstEpoch(pl.Callback):
    """Keeps the weights after the first epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path, weights_only=True)


def train(
    module: pl.LightningModule,
    data: Images,
    folder: Path,
    seed: int,
    epochs: int,
    precision: Precision = "32-true",
    batch_size: int = 128,
) -> bool:
    """Trains until the training images are learnt; goes on where an interrupted training stopped.

    Args:
        module: The classifier; its weights are drawn before, from the seed.
        data: The images.
        folder: Where the weights of the three regimes are kept, one file each.
        seed: Seed of the order of the images.
        epochs: The number of epochs at most.
        precision: Lightning's, of the training alone: every network is measured in 32 bits.
        batch_size: The number of images in a batch.

    Returns:
        Whether there was anything left to do.

    """
    if (folder / "memorising.ckpt").exists():
        return False
    last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    best = ModelCheckpoint(folder, "well_fit", "val_loss", save_weights_only=True, enable_version_counter=False)
    learnt = EarlyStopping("train_error", patience=epochs, stopping_threshold=LEARNT, check_on_train_epoch_end=True)
    trainer = pl.Trainer(
        max_epochs=epochs,
        precision=precision,
        callbacks=[FirstEpoch(folder / "underfit.ckpt"), best, learnt, last],
        accelerator="auto",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    pl.seed_everything(seed, verbose=False)
    interrupted = folder / "last.ckpt"
    choice = DataLoader(TensorDataset(data.choice.images, data.choice.labels), 500)
    trainer.fit(module, batches(data.train, batch_size), choice, ckpt_path=interrupted if interrupted.exists() else None)
    trainer.save_checkpoint(folder / "memorising.ckpt", weights_only=True)
    interrupted.unlink(missing_ok=True)
    return True


def batches(data: LabelledImages, batch_size: int) -> DataLoader:
    """A loader of shuffled batches that takes whole batches out of the tensors."""
    images = TensorDataset(data.images, data.labels)
    return DataLoader(images, batch_size=None, sampler=BatchSampler(RandomSampler(images), batch_size, drop_last=False))

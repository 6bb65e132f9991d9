"""What the examples share: a classifier, images held in memory, and a command line that reports at the end of a fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from histories import write_csv
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.show.console import summary_table

# the images are in memory, so worker processes would only copy them; and holding out no validation set is no mistake
warnings.filterwarnings("ignore", ".*does not have many workers")
warnings.filterwarnings("ignore", "Total length of `list`")


class Classifier(pl.LightningModule):
    """A ReLU network of fully connected layers with PyTorch's default initialisation, trained by SGD on cross-entropy.

    Args:
        widths: Number of units from the input to the output, e.g. [3072, 100, 100, 100, 100, 10].
        learning_rate: Step size of SGD.
        weight_decay: Strength of the L2 penalty.

    """

    def __init__(self, widths: list[int], learning_rate: float = 0.05, weight_decay: float = 5e-4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        inputs, targets = batch
        loss = F.cross_entropy(self(inputs), targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        inputs, targets = batch
        self.log("val_loss", F.cross_entropy(self(inputs), targets))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        inputs, targets = batch
        self.log("test_loss", F.cross_entropy(self(inputs), targets))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)


class TensorImages(Dataset):
    """Images in memory, transformed one by one when they are asked for.

    Args:
        images: uint8 or float, shape (N, ...).
        labels: Class indices, shape (N,).
        transform: What turns one image into an input of the network; None takes it as it is.

    """

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return self.transform(image) if self.transform else image, self.labels[index]


class ImageData(pl.LightningDataModule):
    """A training set and a test set; an example says in ``load`` where they come from.

    Args:
        batch_size: Number of samples in a batch.
        validation_size: Number of training images to hold out as a validation set, which is not augmented.

    """

    def __init__(self, batch_size: int = 64, validation_size: int = 0) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.validation_size = validation_size
        self.train: TensorImages | None = None

    def load(self, train: bool) -> TensorImages:
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        if self.train is None:
            data, self.test = self.load(train=True), self.load(train=False)
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
            held, kept = order[: self.validation_size], order[self.validation_size :].sort().values
            self.validation = TensorImages(data.images[held], data.labels[held], self.test.transform)
            self.train = TensorImages(data.images[kept], data.labels[kept], data.transform)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> list[DataLoader]:
        return [DataLoader(self.validation, 1000)] if self.validation_size else []

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, 1000)


class ExampleCLI(LightningCLI):
    """Lightning's command line; after a fit it prints how the estimates did and can write them as CSV."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--history_csv", type=str | None, default=None, help="Where to write what the monitor logged.")

    def rows(self, monitor: TangentSensitivityMonitor) -> list[dict[str, float]]:
        """Returns what goes into the CSV; an example may add columns of its own."""
        return monitor.history

    def after_fit(self) -> None:
        for callback in self.trainer.callbacks:
            if isinstance(callback, TangentSensitivityMonitor) and callback.history and self.trainer.is_global_zero:
                if not callback.verbose:  # which prints it already
                    print(summary_table(callback.records))
                if self.config.fit.history_csv:
                    write_csv(self.rows(callback), Path(self.config.fit.history_csv))

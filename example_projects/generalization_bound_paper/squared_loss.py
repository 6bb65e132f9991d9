"""Classification by squared error, with the networks and the inputs of Rácz et al. (2023)."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

sys.path.append(str(Path(__file__).parents[1]))
from cifar10.main import Cifar10Data
from common import TensorImages
from mnist.main import MnistData

TO_UNIT_INTERVAL = v2.ToDtype(torch.float32, scale=True)


class HalfSquaredError:
    r"""Half of the squared error of each sample, ½ · mean_c (f_c(x) − [c = y])²."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Any:
        """Returns the errors, shape (N,), of outputs of shape (N, C) for class indices of shape (N,)."""
        return (outputs - F.one_hot(targets, outputs.shape[1])).square().mean(1) / 2


class SquaredLossClassifier(pl.LightningModule):
    """A ReLU network with LeCun-normal weights, biases that start at zero and dropout, trained by Adam on squared error.

    Args:
        widths: Number of units from the input to the output, e.g. [3072, 700, 700, 700, 10].
        dropout: The share of units dropped after each hidden layer.
        learning_rate: Step size of Adam.

    """

    def __init__(
        self, widths: list[int], dropout: tuple[float, ...] = (0.25, 0.5, 0.5), learning_rate: float = 1e-5
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for (inputs, outputs), share in zip(pairwise(widths), (*dropout, 0.0), strict=True):
            linear = nn.Linear(inputs, outputs)
            nn.init.normal_(linear.weight, std=inputs**-0.5)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU(), nn.Dropout(share)]
        self.network = nn.Sequential(*layers[:-2])
        self.learning_rate = learning_rate
        self.loss = HalfSquaredError()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(self(inputs), targets).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.learning_rate, fused=True)


class DropoutLoss(pl.Callback):
    """Keeps each epoch's loss of the training itself, with dropout on, which is what the paper plots.

    Attributes:
        losses: The mean loss of each epoch; checkpoints hold it too.

    """

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the epoch's mean."""
        self.losses[trainer.current_epoch] = float(trainer.callback_metrics["train_loss"])

    def state_dict(self) -> dict[str, Any]:
        """Returns the losses so far, so that a run that goes on has them all."""
        return {"losses": dict(self.losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the losses of the epochs before an interruption."""
        self.losses = dict(state_dict["losses"])


class Cifar10Pixels(Cifar10Data):
    """CIFAR-10 with inputs between 0 and 1, neither normalised nor augmented."""

    def load(self, train: bool) -> TensorImages:
        """Reads one half of the data."""
        return TensorImages(*self._read(train), TO_UNIT_INTERVAL)


class MnistPixels(MnistData):
    """MNIST with inputs between 0 and 1, not normalised."""

    def load(self, train: bool) -> TensorImages:
        """Reads one half of the data."""
        data = super().load(train)
        return TensorImages(data.images, data.labels, TO_UNIT_INTERVAL)

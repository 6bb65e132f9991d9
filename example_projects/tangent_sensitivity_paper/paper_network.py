"""The network of Daróczy (2022) with its variants, its inputs, and the counts of Figure 1."""

from __future__ import annotations

import csv
import sys
from itertools import pairwise
from pathlib import Path

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1]))
from cifar10.main import Cifar10Data
from common import Classifier, ImageData, TensorImages
from mnist.main import MnistData

from lightning_tansens.functional import active_nodes


class PaperClassifier(Classifier):
    """A fully connected ReLU network with weights from U(±1/√fan_in), which is PyTorch's default.

    Args:
        widths: Number of units from the input to the output, e.g. [3072, 100, 100, 100, 100, 10].
        optimizer: Makes the optimiser.
        batch_norm: Whether each hidden layer is normalised, between its weights and its activation.
        dropout: The share of units dropped after each hidden layer but the first.

    """

    def __init__(
        self,
        widths: list[int],
        optimizer: OptimizerCallable = torch.optim.SGD,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(widths)
        self.optimizer = optimizer
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            layers.append(nn.Linear(inputs, outputs))
            if i == len(widths) - 1:
                break
            layers += [nn.BatchNorm1d(outputs)] if batch_norm else []
            layers.append(nn.ReLU())
            layers += [nn.Dropout(dropout)] if dropout and i > 1 else []
        self.network = nn.Sequential(*layers)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())


class NormalisedCifar10(Cifar10Data):
    """CIFAR-10 without augmentation, normalised once instead of image by image."""

    def load(self, train: bool) -> TensorImages:
        """Reads one half of the data."""
        return normalised(super().load(train))


class NormalisedMnist(MnistData):
    """MNIST, normalised once instead of image by image."""

    def load(self, train: bool) -> TensorImages:
        """Reads one half of the data."""
        return normalised(super().load(train))


def normalised(data: TensorImages) -> TensorImages:
    """Applies the images' transform to all of them at once."""
    return TensorImages(data.transform(data.images), data.labels)


def write_active_nodes(model: nn.Module, data: ImageData, file: Path, num_samples: int = 10_000) -> None:
    """Writes how many training and test images switch on how many hidden units (Figure 1), one row a number of units.

    Args:
        model: The network.
        data: Its training and test images.
        file: A CSV file with the columns active (units), train and test (numbers of images).
        num_samples: How many images of each set are taken, the first of a random order.

    """
    totals = [_active_nodes(model, images.images, num_samples) for images in (data.train, data.test)]
    longest = 1 + max(int(total.max()) for total in totals)
    counts = torch.stack([total.bincount(minlength=longest) for total in totals], 1).tolist()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["active", "train", "test"])
        writer.writerows([active, *row] for active, row in enumerate(counts) if any(row))


def _active_nodes(model: nn.Module, images: Tensor, num_samples: int) -> Tensor:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:num_samples]
    device = next(model.parameters()).device
    return torch.cat([active_nodes(model, images[chunk].to(device)).sum(1).cpu() for chunk in order.split(1000)])

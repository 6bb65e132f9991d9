"""The labelled images: what is trained on, what chooses the weights, the labelled reference, and the test images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchvision.datasets import MNIST

sys.path.append(str(Path(__file__).parents[1]))
from cifar10.main import CHANNEL_DEVIATIONS, CHANNEL_MEANS, Cifar10Data

DatasetName = Literal["cifar10", "mnist"]

#: Held out of the training set, twice: to choose the weights of least loss, and as the labelled reference.
HELD_OUT = 5000


@dataclass(frozen=True)
class LabelledImages:
    """Images with pixels in [0, 1], shape (N, C, H, W), and class indices, shape (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> LabelledImages:
        """Returns the samples at these positions."""
        return LabelledImages(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Images:
    """The parts of a data set, and what its pixels are normalised by."""

    train: LabelledImages
    choice: LabelledImages
    reference: LabelledImages
    test: LabelledImages
    means: tuple[float, ...]
    deviations: tuple[float, ...]


def load_images(name: DatasetName, data_dir: str, download: bool, train_samples: int | None = None) -> Images:
    """Reads a data set and divides it, always in the same way.

    Args:
        name: "cifar10" or "mnist".
        data_dir: Its folder, as in the examples cifar10 and mnist.
        download: Whether to download it if it is not there.
        train_samples: The number of images to train on; None for all that are not held out.

    """
    if name == "cifar10":
        data = Cifar10Data(data_dir, download, augment=False)
        data.prepare_data()
        (images, labels), (test_images, test_labels) = data._read(True), data._read(False)
        means, deviations = CHANNEL_MEANS, CHANNEL_DEVIATIONS
    else:
        halves = [MNIST(data_dir, train, download=download) for train in (True, False)]
        (images, labels), (test_images, test_labels) = [(half.data.unsqueeze(1), half.targets) for half in halves]
        means, deviations = (0.1307,), (0.3081,)
    every = LabelledImages(images.float() / 255, labels)
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
    choice, reference, train = order.split([HELD_OUT, HELD_OUT, len(every) - 2 * HELD_OUT])
    if train_samples is not None:
        choice = choice[: train_samples // 10]
    test = LabelledImages(test_images.float() / 255, test_labels)
    return Images(
        every.take(train[:train_samples]), every.take(choice), every.take(reference), test, tuple(means), tuple(deviations)
    )

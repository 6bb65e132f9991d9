"""MNIST and the 4 × 100 ReLU network of Daróczy (2022)."""

import sys
from pathlib import Path

import torch
from torchvision.datasets import MNIST
from torchvision.transforms import v2

sys.path.append(str(Path(__file__).parents[1]))
from common import Classifier, ExampleCLI, ImageData, TensorImages


class MnistData(ImageData):
    """MNIST, held in memory.

    Args:
        data_dir: Folder that holds MNIST/raw, or is to hold it.
        download: Whether to download the images if they are not there.
        batch_size: Number of samples in a batch.
        validation_size: Number of training images to hold out as a validation set.

    """

    def __init__(
        self, data_dir: str = "data", download: bool = True, batch_size: int = 64, validation_size: int = 0
    ) -> None:
        super().__init__(batch_size, validation_size)
        self.data_dir = data_dir
        self.download = download

    def prepare_data(self) -> None:
        for train in (True, False):
            MNIST(self.data_dir, train, download=self.download)

    def load(self, train: bool) -> TensorImages:
        data = MNIST(self.data_dir, train)
        transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.1307,), (0.3081,))])
        return TensorImages(data.data.unsqueeze(1), data.targets, transform)


if __name__ == "__main__":
    ExampleCLI(Classifier, MnistData)

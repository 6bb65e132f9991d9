"""CIFAR-10 and the 4 × 100 ReLU network of Daróczy (2022)."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10, ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor

sys.path.append(str(Path(__file__).parents[1]))
from common import Classifier, ExampleCLI, ImageData, TensorImages

CHANNEL_MEANS, CHANNEL_DEVIATIONS = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Cifar10Data(ImageData):
    """CIFAR-10, decoded once and held in memory.

    Args:
        data_dir: Folder of the images: either train/<class>/ and test/<class>/ with one file an image, or where
            torchvision keeps its download.
        download: Whether to download the images if they are not there.
        augment: Whether the training images are shifted by up to 4 pixels and mirrored at random.
        batch_size: Number of samples in a batch.
        validation_size: Number of training images to hold out as a validation set, which is not augmented.
        shifted: Whether there are three test sets: the test images as they are, blurred, and with noise.

    """

    def __init__(
        self,
        data_dir: str = "data",
        download: bool = True,
        augment: bool = True,
        batch_size: int = 64,
        validation_size: int = 0,
        shifted: bool = False,
    ) -> None:
        super().__init__(batch_size, validation_size)
        self.shifted = shifted
        self.data_dir = Path(data_dir)
        self.download = download
        self.augment = augment

    def prepare_data(self) -> None:
        if self.download and not self._is_image_folder():
            CIFAR10(self.data_dir, download=True)

    def load(self, train: bool) -> TensorImages:
        augmentation = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()] if train and self.augment else []
        return TensorImages(*self._read(train), _transform(augmentation))

    def test_dataloader(self) -> DataLoader | dict[str, DataLoader]:
        if not self.shifted:
            return super().test_dataloader()
        changes = {"clean": [], "blurred": [v2.GaussianBlur(9, 2.5)], "noisy": [v2.GaussianNoise(sigma=0.5)]}
        images, labels = self.test.images, self.test.labels
        return {
            name: DataLoader(TensorImages(images, labels, _transform([], change)), 1000) for name, change in changes.items()
        }

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        if self._is_image_folder():
            folder = ImageFolder(self.data_dir / ("train" if train else "test"))
            return torch.stack([pil_to_tensor(image) for image, _ in folder]), torch.tensor(folder.targets)
        data = CIFAR10(self.data_dir, train)
        return torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets)

    def _is_image_folder(self) -> bool:
        return any((self.data_dir / "train").glob("*/"))


def _transform(augmentation: list[nn.Module], change: Sequence[nn.Module] = ()) -> v2.Compose:
    scaled = v2.ToDtype(torch.float32, scale=True)
    return v2.Compose([*augmentation, scaled, *change, v2.Normalize(CHANNEL_MEANS, CHANNEL_DEVIATIONS)])


if __name__ == "__main__":
    ExampleCLI(Classifier, Cifar10Data)

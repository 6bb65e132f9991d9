"""The four networks of the benchmark."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.vision_transformer import VisionTransformer

NetworkName = Literal["mlp", "cnn", "resnet18", "vit"]

CLASSES = 10


def make_network(name: NetworkName, channels: int, size: int) -> nn.Module:
    """Makes a network with fresh weights.

    Args:
        name: "mlp" (4 × 256, ReLU), "cnn" (three convolutions with BatchNorm), "resnet18" (in its form for small images,
            without the first pooling) or "vit" (six layers of width 128, patches of 4 × 4 pixels).
        channels: Channels of an image.
        size: Height and width of an image, in pixels.

    Raises:
        ValueError: If there is no such network.

    """
    if name == "mlp":
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * size**2, 256), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Linear(256, 256), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(256, CLASSES))
    if name == "cnn":
        blocks: list[nn.Module] = []
        for inputs, outputs in ((channels, 32), (32, 64), (64, 64)):
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            blocks += [nn.MaxPool2d(2)]
        return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * (size // 8) ** 2, CLASSES))
    if name == "resnet18":
        network = resnet18(num_classes=CLASSES)
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
        return network
    if name == "vit":
        network = VisionTransformer(size, 4, num_layers=6, num_heads=4, hidden_dim=128, mlp_dim=256, num_classes=CLASSES)
        network.conv_proj = nn.Conv2d(channels, 128, 4, 4)
        nn.init.normal_(network.heads.head.weight, std=0.02)  # torchvision's zeros would start without a sensitivity
        return network
    raise ValueError(f"network: expected one of {get_args(NetworkName)}, but got {name!r}")


class Normalise(nn.Module):
    """Brings images with pixels in [0, 1] to the mean 0 and the deviation 1 of their training set, channel by channel."""

    def __init__(self, means: tuple[float, ...], deviations: tuple[float, ...]) -> None:
        super().__init__()
        self.means, self.deviations = means, deviations

    def forward(self, images: Tensor) -> Tensor:
        means = images.new_tensor(self.means).view(-1, 1, 1)
        return (images - means) / images.new_tensor(self.deviations).view(-1, 1, 1)

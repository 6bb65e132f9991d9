"""The small networks of the benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

#: "cnn" has BatchNorm and "plain_cnn" has no normalisation; "residual" has GroupNorm.
Architecture = Literal["mlp", "cnn", "plain_cnn", "residual", "mixer"]


def make_network(name: Architecture, shape: Sequence[int], classes: int, widths: Sequence[int]) -> nn.Module:
    """Makes a network with fresh weights.

    Args:
        name: Its architecture.
        shape: Of an input: (F,) of a table, (C, H, W) of an image.
        classes: The number of classes.
        widths: Of its layers or blocks.

    Raises:
        ValueError: If there is no such architecture.

    """
    if name == "mlp":
        sizes = [math.prod(shape), *widths]
        layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], classes))
    channels = [shape[0], *widths]
    if name in ("cnn", "plain_cnn"):
        blocks: list[nn.Module] = []
        for before, after in pairwise(channels):
            normalisation = [nn.BatchNorm2d(after)] if name == "cnn" else []
            blocks += [nn.Conv2d(before, after, 3, padding=1, bias=name != "cnn"), *normalisation]
            blocks += [nn.ReLU(), nn.MaxPool2d(2)]
        side = shape[-1] // 2 ** len(widths)
        head = [nn.Flatten(), nn.Linear(widths[-1] * side**2, 128), nn.ReLU(), nn.Linear(128, classes)]
        return nn.Sequential(*blocks, *head)
    if name == "residual":
        blocks = [ResidualBlock(*pair) for pair in pairwise(channels)]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))
    if name == "mixer":
        return Mixer(shape, classes, widths)
    raise ValueError(f"network: expected one of {get_args(Architecture)}, but got {name!r}")


class ResidualBlock(nn.Module):
    """Two convolutions with GroupNorm and GELU around a shortcut; halves the side."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(before, after, 3, 2, 1), nn.Conv2d(after, after, 3, 1, 1)
        self.layers = nn.Sequential(first, nn.GroupNorm(8, after), nn.GELU(), second, nn.GroupNorm(8, after))
        self.shortcut = nn.Conv2d(before, after, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        return F.gelu(self.layers(images) + self.shortcut(images))


class MixerBlock(nn.Module):
    """Mixes the patches, then the channels (Tolstikhin et al., NeurIPS 2021)."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.of_patches = nn.Sequential(nn.Linear(patches, 64), nn.GELU(), nn.Linear(64, patches))
        self.of_channels = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.normalise = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.of_patches(self.normalise(tokens).transpose(1, 2)).transpose(1, 2)
        return tokens + self.of_channels(tokens)


class Mixer(nn.Module):
    """An MLP-mixer with patches of 4 × 4 pixels, or of 7 × 7 where the side is a multiple of 7."""

    def __init__(self, shape: Sequence[int], classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        channels, side, width = shape[0], shape[-1], widths[0]
        patch = 4 if side % 7 else 7
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.Sequential(*(MixerBlock((side // patch) ** 2, width) for _ in widths))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        return self.head(self.blocks(tokens)).mean(1)

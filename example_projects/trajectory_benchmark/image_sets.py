"""The sets of CIFAR-10, MNIST, MNIST in 8 × 8 pixels, and scikit-learn's digits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from sets import Data, chosen
from sklearn.datasets import load_digits
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "label_free_benchmark"))
from images import LabelledImages, load_images
from shifts import COLOUR, CORRUPTIONS

ImageName = Literal["cifar10", "mnist", "mnist8", "digits"]

#: Like one of the headline's copies: noise, contrast, blur, translation; never scored.
LIKE_COPIES = ("gaussian_noise", "gaussian_blur", "contrast", "translation")

#: Images of 8 × 8 pixels have room for these alone.
SMALL = ("brighter", "darker", "posterize", "rotation", "shear", "solarize", "zoom")

#: Two of the five severities of label_free_benchmark, and of the families below.
SEVERITIES = (2, 4)

#: Corrupted pools, from which label shifts and sub-populations are drawn, have this severity.
POOL_SEVERITY = 3

#: Samples of a target, of a target from a corrupted pool, of the two pools, of parts without shift.
TARGET, SMALL_TARGET, POOL, CORRUPTED_POOL, PARTS = 500, 400, 3000, 1500, 6


def image_data(
    name: ImageName, cifar10_dir: str, mnist_dir: str, download: bool, train_samples: int, families: Sequence[str] | None
) -> Data:
    """Returns the sets of a data set of images.

    Args:
        name: "mnist8" has a real shift, to scikit-learn's digits; "digits" the same the other way round, to MNIST.
        cifar10_dir: Folder of CIFAR-10, see the example cifar10.
        mnist_dir: Folder of MNIST.
        download: Whether to download what is not there.
        train_samples: The number of images to train on.
        families: The families of corruptions and of populations; None for all.

    """
    if name == "digits":
        return _digits(mnist_dir, download, train_samples, families)
    source = ("cifar10", cifar10_dir) if name == "cifar10" else ("mnist", mnist_dir)
    images = load_images(*source, download)
    shrink = shrunk if name == "mnist8" else _same
    data = Data((shrink(images.train.images[:train_samples]), images.train.labels[:train_samples]), classes=10)
    size = 512 if name == "cifar10" else 1000
    data.add_reference(shrink(images.reference.images[:size]), images.reference.labels[:size])
    test = LabelledImages(shrink(images.test.images), images.test.labels)
    pool = _draw(test, POOL, 0)
    data.add_pool("pool", pool.images, pool.labels)
    data.add_populations("pool", TARGET, seed=7)
    data.add_parts("pool", "none", TARGET, PARTS)
    known = [family for family in CORRUPTIONS if family not in LIKE_COPIES and (name == "cifar10" or family not in COLOUR)]
    known = [family for family in SMALL if family in known] if name == "mnist8" else [*known, *MORE]
    _add_corrupted(data, test, chosen(known, families), TARGET)
    for number, family in enumerate(chosen(["shear" if name == "mnist8" else "elastic", "rotation"], families)):
        part = _draw(test, CORRUPTED_POOL, 1000 + number)
        data.add_pool(f"pool_{family}", _corrupted(part.images, family, POOL_SEVERITY), part.labels)
        data.add_populations(f"pool_{family}", SMALL_TARGET, 9, prefix=f"{family}+", fewer=2)
    if name == "mnist8":
        other = _scanned()
        data.add_pool("pool_digits", other.images, other.labels)
        data.add_parts("pool_digits", "real", len(other) // 3, 3)
        data.add_populations("pool_digits", SMALL_TARGET, 9, prefix="real+", fewer=2)
    return data


def _digits(mnist_dir: str, download: bool, train_samples: int, families: Sequence[str] | None) -> Data:
    """scikit-learn's digits; MNIST in 8 × 8 pixels is another source of them, left out unless "real" is wanted."""
    images = _scanned()
    train, reference, test = (images.take(part) for part in torch.arange(1797).split([1000, 400, 397]))
    data = Data((train.images[:train_samples], train.labels[:train_samples]), classes=10)
    data.add_reference(reference.images, reference.labels)
    data.add_pool("pool", test.images, test.labels)
    data.add_parts("pool", "none", len(test), 1)
    _add_corrupted(data, test, chosen(SMALL, families), len(test))
    if families is None or "real" in families:
        other = load_images("mnist", mnist_dir, download).test
        data.add_pool("pool_mnist", shrunk(other.images[:4000]), other.labels[:4000])
        data.add_parts("pool_mnist", "real", 600, 4)
        data.add_populations("pool_mnist", TARGET, 9, prefix="real+", fewer=2)
    return data


def _scanned() -> LabelledImages:
    digits = load_digits()
    images = LabelledImages(torch.tensor(digits.images / 16).float().unsqueeze(1), torch.tensor(digits.target))
    return _draw(images, len(images), 4)


def _add_corrupted(data: Data, test: LabelledImages, families: Sequence[str], size: int) -> None:
    for number, family in enumerate(families):
        for severity in SEVERITIES:
            part = _draw(test, size, 100 * (number + 1) + severity)
            corrupt = partial(_corrupted, family=family, severity=severity)
            data.add_family(family, severity, corrupt, part.images, part.labels)


def _corrupted(images: Tensor, family: str, severity: int) -> Tensor:
    torch.manual_seed(severity)
    if family in MORE:
        corrupt, parameters = MORE[family]
        return corrupt(images, parameters[SEVERITIES.index(severity)])
    one, strengths = CORRUPTIONS[family]
    return torch.stack([one(image, strengths[severity - 1]) for image in images])


def _draw(images: LabelledImages, size: int, seed: int) -> LabelledImages:
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:size])


def _same(images: Tensor) -> Tensor:
    return images


def shrunk(images: Tensor) -> Tensor:
    """Returns the middle of MNIST's images in 8 × 8 pixels, as scikit-learn's digits are."""
    return F.interpolate(images[..., 4:24, 4:24], size=(8, 8), mode="area")


def _stripes(images: Tensor, distance: int) -> Tensor:
    striped = images.clone()
    striped[..., ::distance, :] = 0.7
    return striped


def _thin(images: Tensor, side: int) -> Tensor:
    return F.pad(-F.max_pool2d(-images, side, 1), (side // 2, (side - 1) // 2) * 2)


def _swirl(images: Tensor, angle: float) -> Tensor:
    height, width = images.shape[-2:]
    down, right = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    turn = angle * torch.exp(-2 * (down**2 + right**2))
    grid = torch.stack([right * turn.cos() - down * turn.sin(), right * turn.sin() + down * turn.cos()], -1)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=True)


def _fog(images: Tensor, density: float) -> Tensor:
    cloud = F.interpolate(torch.rand(len(images), 1, 4, 4), size=images.shape[-2:], mode="bicubic").clamp(0, 1)
    return torch.lerp(images, cloud.expand_as(images), density)


#: Seven families that label_free_benchmark does not have, with their parameters at the two severities; of whole batches.
MORE: dict[str, tuple[Callable[..., Tensor], tuple[float, float]]] = {
    "speckle": (lambda images, s: (images * (1 + s * torch.randn_like(images))).clamp(0, 1), (0.4, 0.8)),
    "stripes": (_stripes, (6, 4)),
    "thick": (lambda images, side: F.max_pool2d(images, side, 1, side // 2), (3, 5)),
    "thin": (_thin, (2, 3)),
    "swirl": (_swirl, (0.8, 1.6)),
    "fog": (_fog, (0.35, 0.6)),
    "invert": (lambda images, share: torch.lerp(images, 1 - images, share), (0.3, 0.7)),
}

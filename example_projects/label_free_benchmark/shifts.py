"""Shifted test sets: families of image corruptions and of label shift, at five severities, made on the fly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from images import LabelledImages
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

SEVERITIES = (1, 2, 3, 4, 5)


def _sign() -> float:
    return 1.0 if torch.rand(()) < 0.5 else -1.0


def _affine(image: Tensor, angle: float = 0.0, shift: float = 0.0, scale: float = 1.0, shear: float = 0.0) -> Tensor:
    moved = [round(shift * _sign()), round(shift * _sign())]
    return tv.affine(image, angle, moved, scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR)


def _jpeg(image: Tensor, quality: int) -> Tensor:
    return tv.to_dtype(tv.jpeg(tv.to_dtype(image, torch.uint8, scale=True), quality), torch.float32, scale=True)


def _pixelate(image: Tensor, size: int) -> Tensor:
    small = tv.resize(image, [size, size], antialias=True)
    return tv.resize(small, list(image.shape[-2:]), interpolation=InterpolationMode.NEAREST)


def _erase(image: Tensor, side: int) -> Tensor:
    top, left = (int(torch.randint(length - side + 1, ())) for length in image.shape[-2:])
    return tv.erase(image, top, left, side, side, torch.zeros(()))


def _elastic(image: Tensor, strength: float) -> Tensor:
    height, width = image.shape[-2:]
    field = tv.gaussian_blur(torch.rand(2, height, width) * 2 - 1, [9, 9], [2.0, 2.0])
    return tv.elastic(image, (strength * field / torch.tensor([height, width]).view(2, 1, 1)).permute(1, 2, 0).unsqueeze(0))


def _posterize(image: Tensor, bits: int) -> Tensor:
    return tv.to_dtype(tv.posterize(tv.to_dtype(image, torch.uint8, scale=True), bits), torch.float32, scale=True)


#: For each family, what it does to an image with pixels in [0, 1], and its parameter at each severity.
CORRUPTIONS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "gaussian_noise": (lambda image, s: (image + s * torch.randn_like(image)).clamp(0, 1), (0.04, 0.08, 0.12, 0.18, 0.26)),
    "gaussian_blur": (lambda image, s: tv.gaussian_blur(image, [9, 9], [s, s]), (0.4, 0.6, 0.9, 1.3, 1.8)),
    "brighter": (tv.adjust_brightness, (1.2, 1.4, 1.7, 2.0, 2.5)),
    "darker": (tv.adjust_brightness, (0.8, 0.6, 0.45, 0.3, 0.2)),
    "contrast": (tv.adjust_contrast, (0.75, 0.55, 0.4, 0.3, 0.2)),
    "sharpness": (tv.adjust_sharpness, (2.0, 4.0, 7.0, 11.0, 16.0)),
    "jpeg": (lambda image, q: _jpeg(image, int(q)), (50, 30, 20, 10, 5)),
    "posterize": (lambda image, bits: _posterize(image, int(bits)), (5, 4, 3, 2, 1)),
    "solarize": (tv.solarize, (0.9, 0.75, 0.6, 0.45, 0.3)),
    "rotation": (lambda image, a: _affine(image, angle=a * _sign()), (5, 10, 20, 30, 45)),
    "translation": (lambda image, s: _affine(image, shift=s), (1, 2, 4, 6, 8)),
    "shear": (lambda image, a: _affine(image, shear=a * _sign()), (5, 10, 20, 30, 40)),
    "zoom": (lambda image, s: _affine(image, scale=s), (1.1, 1.2, 1.35, 1.6, 2.0)),
    "elastic": (_elastic, (4.0, 8.0, 14.0, 20.0, 30.0)),
    "pixelate": (lambda image, size: _pixelate(image, int(size)), (24, 20, 16, 12, 8)),
    "erasing": (lambda image, side: _erase(image, int(side)), (6, 9, 12, 15, 18)),
    "saturation": (tv.adjust_saturation, (0.7, 0.5, 0.3, 0.15, 0.0)),
    "hue": (tv.adjust_hue, (0.05, 0.1, 0.2, 0.3, 0.5)),
}

#: These change nothing about an image without colours.
COLOUR = ("saturation", "hue")

#: The share of samples moved to a few classes, at each severity of the label shift.
LABEL_SHIFT = (0.2, 0.4, 0.6, 0.8, 0.95)


class Corrupted(Dataset):
    """Test images of which each is corrupted when it is first asked for, and kept for the next network.

    Args:
        data: The images.
        family: One of :data:`CORRUPTIONS`.
        severity: From 1 to 5.

    """

    def __init__(self, data: LabelledImages, family: str, severity: int) -> None:
        self.data = data
        self.corrupt, parameters = CORRUPTIONS[family]
        self.parameter = parameters[severity - 1]
        self._corrupted: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index not in self._corrupted:  # the monitor draws the same for a sample every time
            self._corrupted[index] = self.corrupt(self.data.images[index], self.parameter)
        return self._corrupted[index], self.data.labels[index]


class Plain(Dataset):
    """Images as they are."""

    def __init__(self, data: LabelledImages) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.data.images[index], self.data.labels[index]


def label_shifted(data: LabelledImages, severity: int, samples: int) -> LabelledImages:
    """Draws test images so that a share of them is of three classes, and the rest as before.

    Args:
        data: The images.
        severity: From 1 to 5.
        samples: The number of images to draw.

    """
    generator = torch.Generator().manual_seed(severity)
    favoured = torch.randperm(10, generator=generator)[:3]
    in_favoured = torch.isin(data.labels, favoured)
    share = LABEL_SHIFT[severity - 1]
    weights = torch.where(in_favoured, share / in_favoured.sum(), 0.0) + (1 - share) / len(data)
    return data.take(torch.multinomial(weights, samples, replacement=False, generator=generator))


def shifted_sets(
    test: LabelledImages, samples: int, families: Sequence[str] | None = None
) -> dict[tuple[str, int], Dataset]:
    """Returns every shifted set by family and severity; severity 0 of "none" is the test set itself.

    Args:
        test: The test images.
        samples: The number of images of each set; each is drawn from all of them, with a seed of its own.
        families: Those that are wanted; None for all that change something about these images.

    """
    colour = test.images.shape[1] == 3
    sets: dict[tuple[str, int], Dataset] = {("none", 0): Plain(_draw(test, samples, 0))}
    for number, family in enumerate(CORRUPTIONS, start=1):
        if (colour or family not in COLOUR) and family in (families or CORRUPTIONS):
            for severity in SEVERITIES:
                sets[family, severity] = Corrupted(_draw(test, samples, 10 * number + severity), family, severity)
    for severity in SEVERITIES if "label_shift" in (families or ["label_shift"]) else ():
        sets["label_shift", severity] = Plain(label_shifted(test, severity, samples))
    return sets


def _draw(data: LabelledImages, samples: int, seed: int) -> LabelledImages:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return data.take(order[:samples])

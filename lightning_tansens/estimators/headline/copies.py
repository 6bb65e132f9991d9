"""Which corrupted copies of the reference suit its inputs: images, tables, and none for anything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.checks import check_callable, check_counts, check_numbers
from lightning_tansens.estimators.calibrated.perturbations import Contrast, Masked, Noise, Transform

#: Images with shorter sides are blurred less; the strengths of larger ones grow with the side, from 32 pixels on.
SMALL, SIDE = 16, 32

#: How many samples of a copy are looked at, and how many of a table's whose rows have no more numbers than this.
SAMPLES, ROWS, LONGEST_ROW = 256, 1024, 1000

#: Of tables: noise in units of the columns' deviations, the shares of entries, the number of columns.
TABLE_NOISE, TABLE_SHARE, TABLE_COLUMNS = 0.8, 0.35, 3


def samples_for(inputs: Any) -> int:
    """Returns how many samples of each copy to look at: more of a table, whose forward pass is cheap.

    Args:
        inputs: The first inputs of the reference, as the network gets them.

    Example:
        >>> samples_for(torch.zeros(2, 30)), samples_for(torch.zeros(2, 3, 32, 32))
        (1024, 256)
    """
    is_table = isinstance(inputs, Tensor) and inputs.dim() == 2 and inputs.shape[1] <= LONGEST_ROW
    return ROWS if is_table else SAMPLES


@dataclass(frozen=True)
class Strong:
    """A change that is stronger than most targets'.

    Its copy corrects the estimates of sets that look like it. Of images, the error is fitted to it as well; nothing else is,
    so that targets which change less do not suffer. Nothing is fitted without two copies that are not strong. The first
    strong copy counts as the same kind of change as the first other one, and so on.

    Attributes:
        transform: Changes one sample.

    Example:
        >>> Strong(Contrast(0.0))(torch.tensor([1.0, 3.0]))
        tensor([2., 2.])
    """

    transform: Transform

    def __post_init__(self) -> None:
        if self.transform is None:
            raise TypeError("transform: expected a callable on a sample, but got None")
        check_callable("transform", self.transform)

    def __call__(self, sample: Tensor) -> Tensor:
        changed: Tensor = self.transform(sample)
        return changed


@dataclass(frozen=True)
class Blur:
    """Blurs an image (C, H, W) with a Gaussian.

    Attributes:
        sigma: Its standard deviation, in pixels.

    Example:
        >>> Blur(1.0)(torch.ones(3, 8, 8)).allclose(torch.ones(3, 8, 8))
        True
    """

    sigma: float

    def __post_init__(self) -> None:
        check_numbers(at_least=0.01, sigma=self.sigma)

    def __call__(self, image: Tensor) -> Tensor:
        reach = min(max(2, round(1.5 * self.sigma)), min(image.shape[-2:]) - 1)
        places = torch.arange(-reach, reach + 1, dtype=image.dtype)
        kernel = torch.exp(-0.5 * (places / self.sigma) ** 2)
        kernel = (kernel / kernel.sum()).repeat(len(image), 1, 1, 1)
        padded = F.pad(image[None], (reach, reach, reach, reach), mode="reflect")
        rows = F.conv2d(padded, kernel.transpose(2, 3), groups=len(image))
        return F.conv2d(rows, kernel, groups=len(image))[0]


@dataclass(frozen=True)
class Shift:
    """Moves an image along both axes, in random directions; what leaves on one side enters on the other.

    Attributes:
        pixels: How far.

    Example:
        >>> Shift(1)(torch.eye(3)[None]).sum()
        tensor(3.)
    """

    pixels: int

    def __post_init__(self) -> None:
        check_counts(pixels=self.pixels)

    def __call__(self, image: Tensor) -> Tensor:
        down, right = (self.pixels * (2 * torch.randint(2, (2,)) - 1)).tolist()
        return image.roll((down, right), (-2, -1))


@dataclass(frozen=True, eq=False)
class ColumnNoise:
    """Adds noise to a row of a table, in units of the columns' standard deviations, shape (F,)."""

    deviations: Tensor
    scale: float = TABLE_NOISE

    def __call__(self, row: Tensor) -> Tensor:
        return row + self.scale * self.deviations.to(row) * torch.randn_like(row)


@dataclass(frozen=True, eq=False)
class Swapped:
    """Replaces some entries of a row by the same columns' entries of other rows, shape (P, F), each from a random row."""

    rows: Tensor
    share: float = TABLE_SHARE

    def __call__(self, row: Tensor) -> Tensor:
        drawn = torch.randint(len(self.rows), row.shape)
        other = self.rows[drawn, torch.arange(len(row))].to(row)
        return torch.where(torch.rand_like(row) < self.share, other, row)


@dataclass(frozen=True, eq=False)
class Filled:
    """Replaces some entries, or the same columns in every row, by the columns' means, shape (F,)."""

    means: Tensor
    columns: tuple[int, ...] = ()
    share: float = TABLE_SHARE

    def __call__(self, row: Tensor) -> Tensor:
        chosen = torch.rand_like(row) < self.share
        if self.columns:
            chosen = torch.isin(torch.arange(len(row)), torch.tensor(self.columns))
        return torch.where(chosen, self.means.to(row), row)


def copies_for(inputs: Any, seed: int = 0) -> Sequence[Transform]:
    """Returns the copies that suit the inputs; none unless these are images or rows of a table.

    Images, shape (N, C, H, W): noise, masked pixels, less contrast, blur, a translation, and each of them once more, strong.
    Rows, shape (N, F): noise, entries of other rows, missing entries, the same three strong, and missing columns.

    Args:
        inputs: The first inputs of the reference, as the network gets them.
        seed: Seed of the choice of columns.

    Example:
        >>> [type(copy).__name__ for copy in copies_for(torch.rand(2, 3, 32, 32))][:6]
        ['Noise', 'Masked', 'Contrast', 'Blur', 'Shift', 'Strong']
        >>> copies_for(torch.zeros(2, 7, dtype=torch.long))
        ()
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or not len(inputs):
        return ()
    if inputs.dim() == 4 and min(inputs.shape[-2:]) >= 4:
        side = min(inputs.shape[-2:])
        sigma = 0.7 if side < SMALL else 1.3 * max(1.0, side / SIDE)
        mild: tuple[Transform, ...] = (Noise(0.7), Masked(0.3), Contrast(0.25), Blur(sigma), Shift(max(1, round(side / 8))))
        strong: tuple[Transform, ...] = (Noise(2.8), Masked(0.75), Contrast(0.12), Blur(2.5 * sigma), Shift(round(side / 4)))
        return (*mild, *(Strong(one) for one in strong))
    if inputs.dim() == 2 and inputs.shape[1] > 1:
        rows = inputs.detach().cpu()
        # a cell may be missing; a column without any number is left as it is
        means = rows.nanmean(0)
        deviations, columns = (rows - means).square().nanmean(0).sqrt(), rows.shape[1]
        generator = torch.Generator().manual_seed(seed)
        dropped = torch.randperm(columns, generator=generator)[: min(TABLE_COLUMNS, columns // 2)]
        columns_filled = Filled(means, columns=tuple(dropped.tolist()))
        strong = (
            ColumnNoise(deviations, 4 * TABLE_NOISE),
            Swapped(rows, 2 * TABLE_SHARE),
            Filled(means, share=2 * TABLE_SHARE),
        )
        return (ColumnNoise(deviations), Swapped(rows), Filled(means), columns_filled, *map(Strong, strong))
    return ()

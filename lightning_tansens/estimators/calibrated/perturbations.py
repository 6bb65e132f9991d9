"""Perturbed copies of samples: the same for a sample in every epoch, batch and process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_tansens.checks import check_numbers, check_shape_of, check_share
from lightning_tansens.tangent.isolation import Randomness, sample_seed

#: Changes one sample, a tensor without the batch's dimension, and keeps its shape.
Transform = Callable[[Any], Any]


def checked_transforms(copies: Any) -> tuple[Transform, ...]:
    """Returns the transforms as a tuple; raises TypeError unless they are a list of callables."""
    if isinstance(copies, (str, bytes)) or not isinstance(copies, Sequence):
        raise TypeError(f"copies: expected a list of callables on a sample or None, but got {copies!r}")
    for transform in copies:
        if not callable(transform):
            raise TypeError(f"copies: expected callables on a sample, but got {transform!r}")
    return tuple(copies)


@dataclass(frozen=True)
class Noise:
    r"""Adds Gaussian noise, :math:`x + s \, \mathrm{std}(x) \, \varepsilon` with ε ~ N(0, I) (the papers' perturbation).

    Attributes:
        scale: s, in units of the sample's own standard deviation over its entries.

    Example:
        >>> Noise(0.0)(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """

    scale: float

    def __post_init__(self) -> None:
        check_numbers(at_least=0, scale=self.scale)

    def __call__(self, sample: Tensor) -> Tensor:
        return sample + self.scale * sample.std(unbiased=False) * torch.randn_like(sample)


@dataclass(frozen=True)
class Masked:
    """Replaces random entries by the sample's own mean.

    Attributes:
        share: The probability that an entry is replaced.

    Example:
        >>> Masked(0.5)(torch.tensor([2.0, 2.0]))
        tensor([2., 2.])
    """

    share: float

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def __call__(self, sample: Tensor) -> Tensor:
        return torch.where(torch.rand_like(sample) < self.share, sample.mean(), sample)


@dataclass(frozen=True)
class Contrast:
    r"""Stretches a sample about its own mean, :math:`\bar x + c \, (x - \bar x)`.

    Attributes:
        factor: c; below one, entries move closer together.

    Example:
        >>> Contrast(0.5)(torch.tensor([1.0, 3.0]))
        tensor([1.5000, 2.5000])
    """

    factor: float

    def __post_init__(self) -> None:
        check_numbers(at_least=0, factor=self.factor)

    def __call__(self, sample: Tensor) -> Tensor:
        mean = sample.mean()
        return mean + self.factor * (sample - mean)


class Perturbed:
    """Applies a transform to each sample of a batch, with random numbers that belong to the sample.

    The transform runs on the CPU, so that its random numbers do not depend on the device; random states are left as they
    were.

    Args:
        transform: Changes one sample.
        seed: Seed of the random numbers.

    Example:
        >>> perturb = Perturbed(Noise(1.0))
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
        >>> bool((perturb(x, [0, 1])[1] == perturb(x[1:], [1])[0]).all())
        True
    """

    def __init__(self, transform: Transform, seed: int = 0) -> None:
        self._transform, self._seed = transform, seed
        self._randomness = Randomness(transform)

    def __call__(self, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns the perturbed batch.

        Args:
            inputs: A batch, shape (N, ...), of floating-point numbers.
            positions: The samples' positions in their set.

        Raises:
            TypeError: If the inputs are anything else.
            ValueError: If the transform does not return a tensor of a sample's shape.
        """
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            came = str(inputs.dtype) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TypeError(
                f"copies: expected inputs that are one floating-point tensor, but got {came}; leave out the "
                "estimators that need copies"
            )
        perturbed = []
        with self._randomness.isolated():
            for sample, position in zip(inputs.detach().cpu(), positions, strict=True):
                self._randomness.seed(sample_seed(self._seed, position))
                changed = self._transform(sample.clone())
                expected = f"copies: expected {self._transform!r} to return a tensor of the sample's shape"
                check_shape_of(expected, changed, sample, "; return a changed sample")
                perturbed.append(changed)
        return torch.stack(perturbed).to(inputs)

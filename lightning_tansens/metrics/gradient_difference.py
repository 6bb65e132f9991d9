"""How much a perturbation of the inputs of a set changes the gradient of the parameters."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_shape_of
from lightning_tansens.functional.gradient_difference import AdversarialSign, Gaussian, Perturbation, gradient_differences
from lightning_tansens.metrics.samples import SampleMeasure
from lightning_tansens.metrics.tangent import FunctionMeasure
from lightning_tansens.tangent.isolation import Randomness, sample_seed, seed_devices

#: φ; a command line takes a class only where the return type is left open.
AnyPerturbation = Callable[..., Any]

#: Keeps these draws apart from the probes', which have streams of their own.
_NOISE_STREAM = 3


class GradientDifference(FunctionMeasure, SampleMeasure):
    r"""The mean squared change of the parameter gradient under a perturbation φ of the input.

    .. math:: E_{x \in X} \|\nabla_\theta (u \cdot f)(x) - \nabla_\theta (u \cdot f)(\varphi(x))\|^2

    in units of (output / parameter)² (Daróczy 2022 and Rácz et al. 2023, from where tangent sensitivity starts: for a
    Gaussian φ of standard deviation s it tends to s² times Eq. 3 as s → 0.) It describes a set and gives no estimate.

    What is random in φ is seeded by a sample's position in its set: results do not depend on the batches or the number of
    processes, repeat at every measurement, and leave the random states as they were. A callable other than the two that come
    with the package is called on one sample at a time, shape (1, ...), with the global random states, and those of
    generators that it holds, seeded for that sample.

    Args:
        perturbation: φ: :class:`~lightning_tansens.functional.gradient_difference.Gaussian`,
            :class:`~lightning_tansens.functional.gradient_difference.AdversarialSign`, or any callable that maps x to a
            tensor of its shape, for example an augmentation.
        seed: Names the random numbers of a callable; Gaussian has a seed of its own.
        kwargs: ``outputs`` (with "each" the changes are summed over the outputs), ``wrt`` and ``output`` of
            :class:`~lightning_tansens.metrics.FunctionMeasure`.

    Raises:
        TypeError: If the perturbation is not callable.
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> measure = GradientDifference(lambda x: x + 3)
        >>> measure.update(nn.Linear(4, 1), torch.zeros(2, 4))  # the gradient is (x, 1)
        >>> measure.compute()
        tensor(36., dtype=torch.float64)
    """

    key = "gradient_difference"

    def __init__(self, perturbation: AnyPerturbation, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not callable(perturbation):
            raise TypeError(
                f"perturbation: expected Gaussian, AdversarialSign or a callable on a batch, but got "
                f"{type(perturbation).__name__}"
            )
        # an augmentation may be a module; in a tuple it does not become a part of the metric's own module tree
        self._perturbation = (perturbation,)
        self.tangent = replace(self.tangent, seed=seed)

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns each sample's squared change, summed over the outputs for "each", shape (N,)."""
        perturbation = _at_positions(self._perturbation[0], positions, self.tangent.seed)
        squares = gradient_differences(model, inputs, perturbation, **self.tangent.function)
        return squares.sum(1) if squares.dim() > 1 else squares

    def distributions(self) -> dict[str, Tensor]:
        return {"": self.numbers()} if self.count else {}

    def standard_error(self) -> float | None:
        """Returns the standard error of the mean; nan for one sample."""
        if self.count < 2:
            return math.nan if self.count else None
        return float(self.numbers().std() / self.count**0.5)


def _at_positions(perturbation: AnyPerturbation, positions: Sequence[int], seed: int) -> Perturbation:
    """The perturbation with what is random in it drawn for each sample by its position."""
    if isinstance(perturbation, AdversarialSign):
        return perturbation  # nothing is random in it
    if isinstance(perturbation, Gaussian):
        return partial(_gaussian_at, perturbation, positions)
    return partial(_seeded_at, perturbation, positions, seed)


def _gaussian_at(gaussian: Gaussian, positions: Sequence[int], x: Tensor) -> Tensor:
    key = np.array([gaussian.seed % 2**64, _NOISE_STREAM], dtype=np.uint64)
    noise = np.empty(x.shape)
    for row, position in zip(noise, positions, strict=True):
        # Philox is counter-based: the counter names the sample, so nothing has to be drawn in order
        row[...] = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, position])).standard_normal(row.shape)
    return x + gaussian.scale * torch.from_numpy(noise).to(x.dtype).to(x.device)


def _seeded_at(perturbation: AnyPerturbation, positions: Sequence[int], seed: int, x: Tensor) -> Tensor:
    randomness, rows = Randomness(perturbation), []
    with randomness.isolated():
        for one, position in zip(x.split(1), positions, strict=True):
            own = sample_seed(seed, position)
            randomness.seed(own)
            seed_devices(own)
            rows.append(perturbation(one))
            expected = "perturbation: expected a tensor of the sample's shape"
            check_shape_of(expected, rows[-1], one, "; return the perturbed sample, with its first axis of length 1")
    return torch.cat(rows)

"""What measures have in common that are means of one number a sample."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics.base import SensitivityMeasure, positions_from
from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error


class MeanSensitivity(SensitivityMeasure):
    """The mean over a set of one number a sample, whose ratio on two sets scales the loss.

    Subclasses give the numbers, none of them negative, in :meth:`of_samples`.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    """

    total: Tensor
    count: Tensor
    samples: list[Tensor]
    positions: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("total")
        self._sum_state("count")
        self.add_state("samples", [], dist_reduce_fx="cat")
        self.add_state("positions", [], dist_reduce_fx="cat")

    @abstractmethod
    def of_samples(self, model: nn.Module, inputs: Any) -> Tensor:
        """Returns each sample's number, shape (N,)."""

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...)."""
        start = int(self.count)
        numbers = self.of_samples(model, inputs).to(self.total)
        self.total += numbers.sum()
        self.count += len(numbers)
        samples = numbers.to(self.dtype)  # the type of the empty state of a process without a sample
        self.samples.append(samples)
        self.positions.append(positions_from(positions, start, samples))

    def values(self) -> dict[str, Tensor]:
        """Returns the mean."""
        return {self.key: self.total / self.count}

    def influence(self) -> Influence | None:
        """Returns x_n/mean − 1 for the samples' numbers x_n; None where their mean is zero."""
        samples = dim_zero_cat(self.samples).double() if len(self.samples) else torch.zeros(0)
        if not samples.any():
            return None
        return Influence(samples / samples.mean() - 1, dim_zero_cat(self.positions))

    def standard_error(self) -> float | None:
        """Returns the standard error of the mean."""
        influence = self.influence()
        return None if influence is None else relative_standard_error([influence]) * float(self.total / self.count)

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns the logarithm of the ratio of the means."""
        if not (0 < target[self.key] < math.inf and 0 < reference[self.key] < math.inf):
            raise UndefinedEstimateError(
                f"the means of {self.key} are {target[self.key]:.3g} and {reference[self.key]:.3g}; their ratio is an "
                "estimate only if both are positive and finite"
            )
        return math.log(target[self.key]) - math.log(reference[self.key])

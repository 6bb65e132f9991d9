"""Base classes for measures that take one number, or one row of numbers, per sample."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.checks import positions_from
from lightning_tansens.metrics.base import Measure, SensitivityMeasure
from lightning_tansens.metrics.uncertainty import Influence
from lightning_tansens.tangent.batches import batch_length
from lightning_tansens.tangent.network import finite_outputs


class SampleMeasure(Measure):
    """Base class for measures that take a mean, or anything else, over rows of numbers, one row per sample.

    A subclass gives the rows in :meth:`of_samples`. Samples whose row or output is not finite are left out and
    counted in ``unusable``; means, maxima and quantiles cover the others.
    """

    samples: list[Tensor]
    positions: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        #: The names of the columns, for :meth:`part_values`; empty where they are not reported.
        self.parts: tuple[str, ...] = ()
        self._sample_state("samples")
        self._sample_state("positions", torch.int64)

    @abstractmethod
    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns each sample's number, shape (N,), or row of numbers, shape (N, K).

        The positions of the samples in their set name what is random.
        """

    def usable(self, rows: Tensor) -> Tensor:
        """Returns which rows, shape (N, K), count, as booleans of shape (N,)."""
        return rows.isfinite().all(1)

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Measures a batch and forgets the result, so that a network that is not covered is refused here."""
        self.of_samples(model, inputs, range(batch_length(inputs)))

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch.

        Raises:
            ValueError: If the rows have another length than before.
        """
        self._add(model, inputs, positions)

    def _add(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None) -> Tensor:
        """Adds the samples and returns which of them count."""
        length = batch_length(inputs)
        start = self.count + int(self.unusable) if positions is None else 0
        own = positions_from("positions", positions, length, start)
        rows = self.of_samples(model, inputs, own).detach().to(self.unusable)
        rows = rows.flatten(1) if rows.dim() > 1 else rows.unsqueeze(1)
        if self.count and rows.shape[1] != (columns := self.rows().shape[1]):
            raise ValueError(
                f"inputs: expected {columns} numbers per sample as before, but {type(model).__name__} has {rows.shape[1]}; "
                "resize the samples, and freeze or unfreeze parameters between two measurements only"
            )
        usable = self.usable(rows)
        finite = finite_outputs(model, inputs, self.tangent.output)
        usable = usable if finite is None else usable & finite.to(usable.device)
        self.unusable += (~usable).sum()
        self._append("samples", rows[usable])
        self._append("positions", torch.tensor(list(own), device=usable.device)[usable])
        return usable

    @property
    def count(self) -> int:
        """The number of samples that count."""
        state = self.positions
        return len(state) if isinstance(state, Tensor) else sum(map(len, state))

    def rows(self) -> Tensor:
        """Returns the rows of all samples that count, shape (N, K)."""
        flat = self._joined("samples")
        return flat.reshape(self.count, -1) if self.count else flat.new_zeros(0, max(1, len(self.parts)))

    def numbers(self) -> Tensor:
        """Returns the sum of each row, shape (N,)."""
        return self.rows().sum(1)

    def values(self) -> dict[str, Tensor]:
        return {self.key: self.numbers().mean()}

    def part_values(self) -> dict[str, Tensor]:
        return dict(zip(self.parts, self.rows().mean(0)))


class MeanSensitivity(SampleMeasure, SensitivityMeasure):
    """Base class for measures that average one number per sample, none of them negative, and scale the loss by the ratio."""

    block: int = 1  #: The number of consecutive positions whose numbers share their randomness.

    def influence(self) -> Influence | None:
        """Returns x_n/mean − 1 for the samples' numbers x_n; None where their mean is zero."""
        numbers = self.numbers()
        if not numbers.any():
            return None
        return Influence(numbers / numbers.mean() - 1, self._joined("positions"), self.block)

"""What is known of each sample of a set whose outputs are not class scores, without its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.disagreement import first_used
from lightning_tansens.estimators.outputs import Array, Outputs

#: Outputs with more numbers per sample than this are described by the numbers' mean and standard deviation.
FEW = 8


@dataclass(frozen=True, eq=False)
class DenseSamples:
    """The N samples of a set with S earlier snapshots; :meth:`of` makes them."""

    columns: Array  #: Today's outputs, or what describes them, shape (N, K).
    earlier: Array  #: The same of earlier snapshots, shape (S, N, K).
    pseudo_loss: Array  #: Today's loss on what earlier snapshots said, shape (N,).
    bias: Array  #: The squared distance from the mean of earlier outputs, shape (N,).

    @classmethod
    def of(cls, outputs: Outputs, pseudo_losses: Callable[[Outputs], Array]) -> DenseSamples:
        """Returns the samples of outputs.

        Args:
            outputs: The outputs.
            pseudo_losses: Returns each sample's loss on earlier outputs, shape (N,).

        Raises:
            TooEarlyError: If there was no earlier measurement.
        """
        past = outputs.past.outputs
        assert past is not None
        kept = past[first_used(len(past)) :].astype(np.float64)
        mean = np.nanmean(kept, 0)
        bias = np.square(np.where(np.isnan(mean), 0, outputs.outputs - mean)).reshape(len(outputs), -1).mean(1)
        columns = _columns(outputs.outputs[None])[0]
        earlier = _columns(kept)
        return cls(columns, np.where(np.isnan(earlier), columns, earlier), pseudo_losses(outputs), bias)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def features(self) -> Array:
        """What the regression estimator sees: both losses, the root of the first, the columns and their squares."""
        of_losses = [self.pseudo_loss, self.bias, np.sqrt(np.maximum(self.pseudo_loss, 0))]
        return np.column_stack([*of_losses, self.columns, np.square(self.columns)])

    @property
    def places(self) -> Array:
        """Where a sample lies, for cutting sub-populations: standardised columns and the root of its pseudo-loss."""
        found = np.column_stack([self.columns, np.sqrt(np.maximum(self.pseudo_loss, 0))])
        return np.asarray((found - found.mean(0)) / (found.std(0) + 1e-9))


def _columns(outputs: NDArray[np.floating]) -> Array:
    rows = outputs.reshape(*outputs.shape[:2], -1).astype(np.float64)
    return rows if rows.shape[2] <= FEW else np.stack([rows.mean(2), rows.std(2)], 2)

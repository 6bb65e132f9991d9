"""What a network said of the same samples at earlier measurements, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: The most snapshots whose predicted classes are kept; then every second one is dropped.
MAX_SNAPSHOTS = 64

#: The most earlier outputs that are kept where they are not class scores, and the most numbers in all of them together.
MAX_OUTPUTS, MAX_NUMBERS = 8, 2**22

#: How strongly late snapshots outweigh the first ones, whose predictions are poor: g of :class:`Trajectory`.
GROWTH = 0.5


@dataclass(frozen=True, eq=False)
class Trajectory:
    r"""The predictions of earlier measurements, for all N samples of a set, usable or not.

    The mean of the probabilities runs, :math:`\bar p \leftarrow \bar p + \frac{1 + g}{t + g} (p_t - \bar p)` at the t-th
    snapshot with g = 0.5, which weighs late snapshots a little more than early ones (polynomial-decay averaging; Shamir and
    Zhang, ICML 2013). It takes N x C numbers of 4 bytes, however long the run; the predicted classes of at most 64 snapshots
    take 2 bytes each (4 beyond 32,767 classes). Once there are more, every second one is dropped and from then on only every
    second new one kept, and so on, so that they stay spread over the run. With 1,000 classes and 1,024 samples that is 4.2
    MB for a set: 76 MB for ten targets, the reference and seven copies of it.

    Where outputs are not class scores, the outputs themselves are kept, at most 8 snapshots and 4 million numbers of 4 bytes
    (two snapshots at least).

    Example:
        >>> from lightning_tansens.estimators import Outputs
        >>> first, second = Outputs.of(np.log([[0.8, 0.2]])), Outputs.of(np.log([[0.4, 0.6]]))
        >>> trajectory = Trajectory().updated(first).updated(second)
        >>> trajectory.mean_probabilities.astype(float).round(2).tolist(), trajectory.predictions.tolist()
        ([[0.56, 0.44]], [[0], [1]])
    """

    count: int = 0  #: The number of earlier measurements.
    seen: NDArray[np.int32] | None = None  #: At how many of them each sample's outputs were usable, shape (N,).
    mean_probabilities: NDArray[np.float32] | None = None  #: The running mean, (N, C); (N, 0) without class scores.
    predictions: NDArray[np.integer] | None = None  #: The predicted classes, (S, N); -1 where outputs were not usable.
    outputs: NDArray[np.float32] | None = None  #: Earlier outputs that are no class scores, (S, N, ...), or NaN.
    stride: int = 1  #: The kept snapshots are the 0th, the stride-th, ...

    def updated(self, now: Any) -> Trajectory:
        """Returns the trajectory with one more measurement.

        Args:
            now: What the network says of the same samples now:
                :class:`~lightning_tansens.estimators.outputs.Outputs`, which hold a trajectory themselves.

        Raises:
            ValueError: If the samples or the outputs' shape are not those of the earlier measurements.
        """
        samples, kept = len(now.kept), now.kept
        seen = np.zeros(samples, np.int32) if self.seen is None else self.seen
        shape = now.outputs.shape[1:]
        own = [self.mean_probabilities, self.outputs]
        known = None if own[0] is None else own[0].shape[1:] if own[1] is None else own[1].shape[2:]
        if len(seen) != samples or known not in (None, shape):
            raise ValueError(
                f"now: expected {len(seen)} samples with outputs of shape {known}, as at the earlier measurements, but got "
                f"{samples} of shape {shape}; start a new Trajectory for another set or network"
            )
        seen = seen + kept
        if now.is_classifier:
            name, most = "predictions", MAX_SNAPSHOTS
            mean = np.zeros((samples, shape[0]), np.float32) if own[0] is None else own[0].copy()
            mean[kept] = running_mean(mean[kept], now.probabilities, seen[kept])
            row = np.full((1, samples), -1, np.int16 if shape[0] <= 2**15 else np.int32)
            row[0, kept] = now.predictions
        else:
            mean = np.zeros((samples, 0), np.float32)
            row = np.full((1, samples, *shape), np.nan, np.float32)
            row[0, kept] = now.outputs
            name, most = "outputs", min(MAX_OUTPUTS, max(2, MAX_NUMBERS // max(1, row.size)))
        rows, stride = getattr(self, name), self.stride
        if self.count % stride == 0:
            rows = row if rows is None else np.concatenate([rows, row])
        while len(rows) > most:
            rows, stride = rows[::2], 2 * stride
        changed: dict[str, Any] = {name: rows, "stride": stride}
        return replace(self, count=self.count + 1, seen=seen, mean_probabilities=mean, **changed)

    def selected(self, kept: NDArray[np.bool_]) -> Trajectory:
        """Returns the trajectory of some of the samples, a mask of shape (N,)."""
        found: dict[str, Any] = {}
        for name, axis in (("seen", 0), ("mean_probabilities", 0), ("predictions", 1), ("outputs", 1)):
            value = getattr(self, name)
            found[name] = None if value is None else np.compress(kept, value, axis)
        return replace(self, **found)

    def state(self) -> dict[str, Any]:
        """Returns builtins and tensors, for a checkpoint."""
        state = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value for name, value in state.items()
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Trajectory:
        """Returns the trajectory that :meth:`state` described."""
        arrays: dict[str, Any] = {
            name: value.numpy() if isinstance(value, Tensor) else value for name, value in state.items()
        }
        return cls(**arrays)


def running_mean(mean: NDArray[Any], new: NDArray[Any], seen: NDArray[np.integer]) -> NDArray[Any]:
    """Moves a mean towards the newest of ``seen`` snapshots, see :class:`Trajectory`."""
    step = (1 + GROWTH) / (np.maximum(seen, 1) + GROWTH)
    return np.asarray(mean + step[:, None] * (new - mean))

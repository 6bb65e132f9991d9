"""Which entries of an inner tensor belong to which sample: attention and recurrent cells move or flatten the batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class BatchAxis:
    """Where the samples are in a tensor inside the network."""

    axis: int = 0  #: The axis that holds the samples.
    #: "alone" where that axis has one entry for each sample; "major" where each sample has several consecutive entries,
    #: "minor" where the samples take turns (then the axis is the first).
    order: Literal["alone", "major", "minor"] = "alone"

    def split(self, tensor: Tensor, samples: int) -> Tensor:
        """Brings the samples to the front: (N, …), or (N, M, …) where each has M entries of the axis."""
        if self.order == "alone":
            return tensor.movedim(self.axis, 0)
        if self.order == "major":
            return tensor.reshape(samples, -1, *tensor.shape[1:])
        return tensor.reshape(-1, samples, *tensor.shape[1:]).transpose(0, 1)

    def rest(self, dims: int) -> list[int | None]:
        """The axes of a tensor in the order in which they stand behind the samples; None for the entries M."""
        if self.order == "alone":
            return [axis for axis in range(dims) if axis != self.axis]
        return [None, *range(1, dims)]


@dataclass(frozen=True)
class BatchAxes:
    """Where the samples are in the tensors of each call of a forward pass."""

    axes: tuple[BatchAxis, ...]
    signature: tuple[tuple[str, ...], ...]  # each call's parameters, to notice a forward pass that takes another way
    dims: tuple[tuple[int, int], ...]  # the numbers of dimensions of each call's input and output, for the same


def find_batch_axis(supports: Sequence[Tensor]) -> BatchAxis | None:
    """Finds the axis in which each sample's entries are its own; None if no axis keeps the samples apart.

    The supports say, for each of N ≥ 2 samples, which entries of a tensor depend on it or influence its output.

    Example:
        >>> import torch
        >>> find_batch_axis([torch.eye(4, 2)[:, :1] > 0, torch.eye(4, 2)[:, 1:] > 0])  # rows 0 and 1 of four
        BatchAxis(axis=0, order='minor')
    """
    samples = len(supports)
    for axis in _candidates(supports[0].shape, samples):
        foreign = (
            axis.split(support, samples)[[other for other in range(samples) if other != n]].any()
            for n, support in enumerate(supports)
        )
        if not any(foreign):
            return axis
    return None


def _candidates(shape: Sequence[int], samples: int) -> Iterator[BatchAxis]:
    for axis, length in enumerate(shape):
        if length == samples:
            yield BatchAxis(axis)
    if shape and shape[0] > samples and shape[0] % samples == 0:
        yield BatchAxis(0, "major")
        yield BatchAxis(0, "minor")

"""The outputs and targets of a whole set, for a criterion that returns one number for all samples."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_tansens.metrics.criteria import Criterion


class WholeSet:
    """Packs the tensors of batches into rows of numbers, one row for each sample, and back.

    A batch is its outputs and targets: tensors, and tuples, lists and dicts of them.

    Example:
        >>> whole = WholeSet((torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)), samples=1)
        >>> rows = whole.pack((torch.ones(3, 2), torch.arange(3)), torch.device("cpu"))
        >>> whole.value(torch.nn.functional.cross_entropy, rows.flatten()[:6], torch.tensor([1, 0]))
        0.6931471824645996
    """

    #: A process keeps so many numbers, of 8 bytes.
    NUMBERS: ClassVar[int] = 2**24
    #: Each sample is left out once if that means to read so many numbers.
    JACKKNIFED: ClassVar[int] = 2**28

    def __init__(self, batch: Any, samples: int) -> None:
        leaves, self._structure = tree_flatten(batch)
        self._packable = all(isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == samples for leaf in leaves)
        self._kinds: list[tuple[torch.Size, torch.dtype, torch.device]] = []
        if self._packable:
            self._kinds = [(leaf.shape[1:], leaf.dtype, leaf.device) for leaf in leaves]
            self._packable = not any(dtype.is_complex for _, dtype, _ in self._kinds)

    def pack(self, batch: Any, device: torch.device) -> Tensor | None:
        """Returns the rows, shape (N, K), in double precision on a device; None where another form came than at first."""
        leaves, structure = tree_flatten(batch)
        if not self._packable or structure != self._structure or any(not isinstance(leaf, Tensor) for leaf in leaves):
            return None
        if any(leaf.shape[1:] != shape for leaf, (shape, _, _) in zip(leaves, self._kinds, strict=True)):
            return None
        samples = len(leaves[0])
        return torch.cat([leaf.detach().to(device).double().reshape(samples, -1) for leaf in leaves], 1)

    def value(self, criterion: Criterion, kept: Tensor, order: Tensor) -> float | None:
        """Returns the criterion on all samples in an order (N,), from their flat rows; None if there are none."""
        if not len(order) or len(kept) % len(order) or not len(kept):
            return None
        return self._value(criterion, kept.reshape(len(order), -1)[order])

    def without_each(self, criterion: Criterion, kept: Tensor, samples: int) -> Tensor | None:
        """Returns the criterion on all samples but each one, shape (N,), from flat rows; None if that takes too long."""
        if samples < 2 or len(kept) * samples > self.JACKKNIFED:
            return None
        rows = kept.reshape(samples, -1)
        return torch.tensor(
            [self._value(criterion, torch.cat([rows[:n], rows[n + 1 :]])) for n in range(samples)],
            dtype=torch.float64,
            device=kept.device,
        )

    def _value(self, criterion: Criterion, rows: Tensor) -> float:
        leaves, start = [], 0
        for shape, dtype, device in self._kinds:
            columns = rows[:, start : start + shape.numel()]
            leaves.append(columns.to(dtype).to(device).reshape(len(rows), *shape))
            start += shape.numel()
        with torch.no_grad():
            return float(criterion(*tree_unflatten(leaves, self._structure)))

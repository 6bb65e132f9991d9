"""Perturbed inputs, made once: they are the same at every measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lightning_tansens.monitor.data.subsets import CacheBudget

Perturb = Callable[[Any, Sequence[int]], Tensor]


class KeptInputs:
    """Perturbs batches, and keeps them in memory as long as the monitor's budget lasts.

    Args:
        perturb: Changes the inputs of a batch, given the samples' positions, always in the same way.
        budget: The memory that it may take, together with the monitor's subsets.

    Example:
        >>> import torch
        >>> kept = KeptInputs(lambda inputs, positions: inputs + torch.rand(1), CacheBudget())
        >>> bool((kept(torch.zeros(2, 3), [0, 1]) == kept(torch.zeros(2, 3), [0, 1])).all())
        True

    """

    def __init__(self, perturb: Perturb, budget: CacheBudget) -> None:
        self._perturb, self._budget = perturb, budget
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns the perturbed batch.

        Args:
            inputs: A batch, shape (N, ...).
            positions: The samples' positions in their set.

        """
        key = tuple(positions)
        if key in self._kept:
            return self._kept[key].to(inputs, copy=True)
        perturbed = self._perturb(inputs, positions)
        if self._budget.take(perturbed.numel() * perturbed.element_size()):
            self._kept[key] = perturbed.detach().cpu().clone()
        return perturbed

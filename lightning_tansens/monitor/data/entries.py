"""Which entries of the inputs the estimators see."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

#: The most entries of an input that are gathered.
MAX_ENTRIES = 512


def some_entries(inputs: Any) -> Tensor | None:
    """Returns the same few randomly drawn entries of each input, shape (N, E); None unless these are images or rows.

    Args:
        inputs: A batch, as the network gets it.

    Example:
        >>> some_entries(torch.zeros(2, 3, 32, 32)).shape, some_entries(torch.zeros(2, 7)).shape
        (torch.Size([2, 512]), torch.Size([2, 7]))
        >>> some_entries([torch.zeros(2, 7)])

    """
    if not isinstance(inputs, Tensor) or inputs.is_nested or inputs.layout != torch.strided:
        return None
    if not inputs.is_floating_point() or inputs.dim() not in (2, 4) or not inputs[:1].flatten(1).shape[1]:
        return None
    flat: Tensor = inputs.detach().flatten(1)
    places = _places(flat.shape[1])
    # a copy: networks may change their inputs in place
    return (flat if places is None else flat[:, places.to(flat.device)]).to(torch.float32, copy=True)


@lru_cache(maxsize=8)
def _places(entries: int) -> Tensor | None:
    if entries <= MAX_ENTRIES:
        return None
    return torch.randperm(entries, generator=torch.Generator().manual_seed(0))[:MAX_ENTRIES].sort().values

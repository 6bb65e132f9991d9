"""Tells a batch from a sample, and takes batches apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch


def is_batch(value: Any) -> bool:
    """Says whether a value is a batch, not a sample: its arrays and lists have one length, and one is not a vector.

    Args:
        value: What a loader without batches yields.

    Example:
        >>> is_batch((torch.zeros(5, 3), torch.zeros(5))), is_batch((torch.zeros(3), torch.tensor(1)))
        (True, False)

    """
    lengths = set()
    deep = False
    for leaf in _leaves(value):
        if isinstance(leaf, (torch.Tensor, np.ndarray)):
            lengths.add(len(leaf) if leaf.ndim else -1)
            deep = deep or leaf.ndim > 1
        else:
            lengths.add(len(leaf) if isinstance(leaf, list) else -1)
    return deep and len(lengths) == 1 and lengths.pop() > 0


def rows(batch: Any) -> Iterator[Any]:
    """Yields the samples of a batch.

    Args:
        batch: A batch, according to :func:`is_batch`.

    """
    first = next(leaf for leaf in _leaves(batch) if isinstance(leaf, (torch.Tensor, np.ndarray, list)))
    for number in range(len(first)):
        yield _row(batch, number)


def _row(value: Any, number: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[number].clone()  # a view would keep the whole batch
    if isinstance(value, np.ndarray):
        return value[number].copy()
    if isinstance(value, Mapping):
        return {name: _row(held, number) for name, held in value.items()}
    if isinstance(value, tuple):
        parts = [_row(held, number) for held in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_row(held, number) for held in value] if _holds_arrays(value) else value[number]
    return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    elif not isinstance(value, tuple) and not (isinstance(value, list) and _holds_arrays(value)):
        yield value
        return
    for held in value:
        yield from _leaves(held)


def _holds_arrays(values: Sequence[Any]) -> bool:
    return any(isinstance(value, (torch.Tensor, np.ndarray, Mapping, tuple, list)) for value in values)

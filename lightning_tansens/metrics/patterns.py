"""The number of distinct activation patterns in a set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from lightning_tansens.bounds.regions import activation_patterns, count_patterns, pattern_hashes
from lightning_tansens.metrics.base import Measure


class ActivationPatterns(Measure):
    r"""The number of activation regions that a set meets, and its ratio to the number of samples.

    .. math:: \#\{A(x) : x \in X\}, \qquad \#\{A(x) : x \in X\} / N

    with A(x) the pattern of active hidden units (Section 3.3 of Daróczy 2022). Samples of one region share their tangent
    sensitivity (Lemma 1); a share of 1 says that no two samples do. Patterns are told apart by 64-bit hashes
    (:func:`~lightning_tansens.bounds.regions.pattern_hashes`). The share falls as the set grows, so compare sets of one
    size. It describes a set and gives no estimate.

    As input to ``update``: a model and a batch of shape (N, ...). As output of ``compute``: the number, a scalar.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
        >>> measure = ActivationPatterns()
        >>> measure.update(net, torch.tensor([[3.0], [-3.0], [2.0], [1.0]]))
        >>> {name: float(value) for name, value in measure.values().items()}
        {'patterns': 2.0, 'patterns_share': 0.5}

    """

    key = "patterns"

    hashes: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("hashes", [], dist_reduce_fx="cat")

    def update(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...); their positions do not matter."""
        self.hashes.append(to_digits(pattern_hashes(activation_patterns(model, inputs)), self))

    def values(self) -> dict[str, Tensor]:
        """Returns the number of distinct patterns, and its ratio to the number of samples."""
        hashes = from_digits(self.hashes)
        number = torch.tensor(count_patterns(hashes) if len(hashes) else math.nan, dtype=torch.float64)
        return {"patterns": number, "patterns_share": number / len(hashes)}


def to_digits(numbers: Tensor, metric: Measure) -> Tensor:
    """Writes integers as a state that keeps all of their bits.

    A state may be cast to another type, and a process without a sample sends an empty one of the metric's type. Every
    floating-point type holds the eight digits to the base 256 exactly, but not the numbers.

    Args:
        numbers: Integers, shape (N,).
        metric: Gives the state its type and device.

    Returns:
        Digits between 0 and 255, shape (8 N,).

    """
    if not len(numbers):
        return torch.zeros(0, dtype=metric.dtype, device=metric.device)  # torch views no bytes of nothing
    return numbers.to(metric.device, torch.int64).contiguous().view(torch.uint8).to(metric.dtype)


def from_digits(digits: Tensor | list[Tensor]) -> Tensor:
    """Reads what :func:`to_digits` has written, int64, shape (N,); ``digits`` may be the list of several batches."""
    joined = dim_zero_cat(digits) if len(digits) else torch.zeros(0)
    return joined.to(torch.uint8).view(torch.int64) if len(joined) else joined.long()

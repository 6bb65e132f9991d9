"""The number of distinct activation patterns in a set."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.functional.regions import count_patterns, pattern_hashes, patterns_and_finite
from lightning_tansens.metrics.base import Measure


class ActivationPatterns(Measure):
    r"""The number of activation regions that a set meets, and its ratio to the number of samples.

    .. math:: \#\{A(x) : x \in X\}, \qquad \#\{A(x) : x \in X\} / N

    with A(x) the pattern of active hidden units (Section 3.3 of Daróczy 2022). Samples of one region share their tangent
    sensitivity (Lemma 1); a share of 1 says that no two samples do. Patterns are told apart by 64-bit hashes
    (:func:`~lightning_tansens.functional.regions.pattern_hashes`). The share falls as the set grows, so compare sets of one
    size. It describes a set and gives no estimate.

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
        self._sample_state("hashes", torch.int64)

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Refuses a network without activations."""
        patterns_and_finite(model, inputs)

    def update(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch; their positions do not matter."""
        patterns, finite = patterns_and_finite(model, inputs)
        self._append("hashes", pattern_hashes(patterns[finite]))
        self.unusable += (~finite).sum()

    def values(self) -> dict[str, Tensor]:
        """Returns the number of distinct patterns, and its ratio to the number of samples."""
        hashes = self._joined("hashes")
        number = torch.tensor(count_patterns(hashes) if len(hashes) else math.nan, dtype=torch.float64)
        return {"patterns": number, "patterns_share": number / len(hashes)}

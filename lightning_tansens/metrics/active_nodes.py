"""Mean and deviation of the number of active nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities import dim_zero_cat

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional.active_nodes import active_nodes
from lightning_tansens.functional.layer_norms import weight_layers
from lightning_tansens.functional.moments import log_psi
from lightning_tansens.metrics.base import SensitivityMeasure


class ActiveNodeSensitivity(SensitivityMeasure):
    r"""The distribution of the number of active hidden units T(x), and the loss estimate built on it.

    .. math:: \hat l(X_{te}) = \frac{\psi^*(k, \mu_{te}, \sigma_{te})}{\psi^*(k, \mu_{ref}, \sigma_{ref})} \,
        l(X_{ref}), \qquad \psi^*(k, \mu, \sigma) = \sigma^{2(k-1)} \;
        {}_1F_1\!\Big(-\frac{k-1}2; \frac12; -\frac{\mu^2}{2\sigma^2}\Big)^2

    (Eqs. 2 and 7 of Daróczy 2022, "maximal" or "active nodes"). μ and σ are the mean and the standard deviation of T
    over the set; k counts weight layers.

    As input to ``update``: a model and a batch of shape (N, ...). As output of ``compute``: the scalar log ψ*.

    Args:
        depth: k; None counts the network's weight layers.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If the depth is no positive integer.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2))
        >>> measure = ActiveNodeSensitivity()
        >>> measure.update(net, torch.randn(64, 3))
        >>> sorted(measure.values())
        ['active_nodes', 'active_nodes_mean', 'active_nodes_std']

    """

    key = "active_nodes"

    count: Tensor
    total: Tensor
    square_total: Tensor
    depths: Tensor
    samples: list[Tensor]

    def __init__(self, depth: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if depth is not None and (not isinstance(depth, int) or depth < 1):
            raise ValueError(f"depth: expected a positive integer (the number of weight layers) or None, but got {depth!r}")
        self.depth = depth
        self._sum_state("count")
        self._sum_state("total")
        self._sum_state("square_total")
        self.add_state("depths", torch.zeros((), dtype=torch.long), dist_reduce_fx="max")
        self.add_state("samples", [], dist_reduce_fx="cat")

    def update(self, model: nn.Module, inputs: Any = None) -> None:
        """Adds the samples of a batch of shape (N, ...)."""
        totals = active_nodes(model, inputs).sum(1).to(self.total)
        self.depths = self.depths.clamp(min=self.depth or len(weight_layers(model)))
        self.count += len(totals)
        self.total += totals.sum()
        self.square_total += totals.square().sum()
        self.samples.append(totals.to(self.dtype))

    def values(self) -> dict[str, Tensor]:
        """Returns log ψ*, and the mean and the standard deviation of the number of active nodes."""
        mean = self.total / self.count
        # sums of integers are exact in double precision, so the difference cannot lose a small variance
        variance = (self.square_total * self.count - self.total.square()).clamp(min=0) / self.count.square()
        std = variance.sqrt()
        psi = log_psi(int(self.depths), float(mean), float(std)) if bool(self.count) else math.nan
        return {
            "active_nodes": torch.as_tensor(psi, dtype=mean.dtype, device=mean.device),
            "active_nodes_mean": mean,
            "active_nodes_std": std,
        }

    def distribution(self) -> Tensor | None:
        """Returns the number of active nodes of each sample (Figure 1 of the paper), shape (N,)."""
        return dim_zero_cat(self.samples) if len(self.samples) else None

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns log ψ*(target) − log ψ*(reference), Eq. 7."""
        ratio = target[self.key] - reference[self.key]
        if math.isinf(target[self.key]) or math.isinf(reference[self.key]):
            raise UndefinedEstimateError(
                f"log ψ* is {target[self.key]} and {reference[self.key]}: no hidden unit is active on one of the sets"
            )
        return ratio

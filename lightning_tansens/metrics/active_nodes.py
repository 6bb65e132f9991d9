"""Mean and deviation of the number of active nodes."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.bounds.active_nodes import log_psi
from lightning_tansens.checks import MAX_ORDER, check_counts
from lightning_tansens.functional.active_nodes import collect_from_activations
from lightning_tansens.functional.layer_norms import weight_layers
from lightning_tansens.metrics.base import LogarithmicMeasure
from lightning_tansens.metrics.samples import SampleMeasure
from lightning_tansens.metrics.uncertainty import Influence
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import finite_samples
from lightning_tansens.tangent.tracing import CallTracer


class ActiveNodeSensitivity(SampleMeasure, LogarithmicMeasure):
    r"""The distribution of the number of active hidden units T(x), and the loss estimate built on it.

    .. math:: \hat l(X_{te}) = \frac{\psi^*(k, \mu_{te}, \sigma_{te})}{\psi^*(k, \mu_{ref}, \sigma_{ref})} \,
        l(X_{ref}), \qquad \psi^*(k, \mu, \sigma) = \sigma^{2(k-1)} \;
        {}_1F_1\!\Big(-\frac{k-1}2; \frac12; -\frac{\mu^2}{2\sigma^2}\Big)^2

    (Eqs. 2 and 7 of Daróczy 2022, "maximal" or "active nodes"). μ and σ are the mean and the standard deviation of T
    over the set; k counts weight layers. ``compute`` returns log ψ*.

    Args:
        depth: k; None counts the network's weight layers.
        per_layer: Whether to report the mean and the distribution of each activation's n_i(x). Its name is the path of the
            module that calls it; a module that calls several has ``<path>/1``, ``<path>/2``, … in the order of the calls.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2))
        >>> measure = ActiveNodeSensitivity()
        >>> measure.update(net, torch.randn(64, 3))
        >>> sorted(measure.values())
        ['active_nodes', 'active_nodes_mean', 'active_nodes_std']
    """

    key = "active_nodes"
    details = frozenset({"active_nodes_mean", "active_nodes_std"})
    not_finite = "log ψ* is {now} and {before}: no hidden unit is active on one of the sets, or there is no sample"

    depths: Tensor

    def __init__(self, depth: int | None = None, per_layer: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if depth is not None:
            check_counts(at_most=MAX_ORDER, depth=depth)
        self.depth = depth
        self.per_layer = per_layer
        self.add_state("depths", torch.zeros((), dtype=torch.long), dist_reduce_fx="max")

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns T(x_n), shape (N, 1), or with ``per_layer`` n_i(x_n), shape (N, L).

        Raises:
            ValueError: If the layers are reported, and the forward pass calls another number of activations than before.
        """
        tracer = CallTracer(model)
        # evaluation silences hooks that were there before, such as the tracer's
        with evaluation(model), tracer.running() if self.per_layer else nullcontext():
            calls = collect_from_activations(model, inputs, lambda hidden: (_active(hidden), tracer.module_name))
        counts = torch.stack([count for count, _ in calls], 1)
        self.depths = self.depths.clamp(min=self.depth or len(weight_layers(model)))
        if not self.per_layer:
            return counts.sum(1, keepdim=True)
        if self.parts and counts.shape[1] != len(self.parts):
            raise ValueError(
                f"per_layer: expected the {len(self.parts)} calls of activations that were there at first, but the forward "
                f"pass calls {counts.shape[1]}; leave per_layer out where their number depends on the samples"
            )
        paths = [path for _, path in calls]
        self.parts = tuple(
            path if paths.count(path) == 1 else f"{path}/{1 + paths[:i].count(path)}" for i, path in enumerate(paths)
        )
        return counts

    def values(self) -> dict[str, Tensor]:
        """Returns log ψ*, and the mean and the standard deviation of the number of active nodes."""
        numbers = self.numbers()
        mean = numbers.mean()
        std = numbers.std(correction=0) if len(numbers) else mean  # of which torch warns
        psi = log_psi(int(self.depths), float(mean), float(std)) if len(numbers) else math.nan
        return {"active_nodes": mean.new_tensor(psi), "active_nodes_mean": mean, "active_nodes_std": std}

    def distributions(self) -> dict[str, Tensor]:
        """Returns the number of active nodes of each sample (Figure 1 of the paper), shape (N,), and of its layers."""
        return {"": self.numbers(), **dict(zip(self.parts, self.rows().unbind(1)))} if self.count else {}

    def influence(self) -> Influence | None:
        """Returns each sample's effect on log ψ* through the mean and the standard deviation."""
        if not self.count:
            return None
        numbers, depth = self.numbers(), int(self.depths)
        mean, std = float(numbers.mean()), float(numbers.std(correction=0))
        effects = torch.zeros_like(numbers)
        if std > 0:
            step = 1e-4 * std
            by_mean = (log_psi(depth, mean + step, std) - log_psi(depth, mean - step, std)) / (2 * step)
            by_std = (log_psi(depth, mean, std + step) - log_psi(depth, mean, std - step)) / (2 * step)
            deviations = numbers - mean
            effects = by_mean * deviations + by_std * (deviations.square() - std**2) / (2 * std)
        return Influence(effects, self._joined("positions"))


def _active(hidden: Tensor) -> Tensor:
    """The number of active units of each sample, nan where a preactivation is not finite."""
    return (hidden > 0).flatten(1).sum(1).double().masked_fill(~finite_samples(hidden), math.nan)

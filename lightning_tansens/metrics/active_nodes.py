"""Mean and deviation of the number of active nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from lightning_tansens.bounds.moments import log_psi
from lightning_tansens.checks import MAX_ORDER, check_counts
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional.active_nodes import active_nodes, collect_from_activations
from lightning_tansens.functional.layer_norms import weight_layers
from lightning_tansens.metrics.base import SensitivityMeasure, positions_from
from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error
from lightning_tansens.tangent.tracing import CallTracer


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
        per_layer: Whether to report the mean and the distribution of each activation's n_i(x). Its name is the path of the
            module that calls it; a module that calls several has ``<path>/1``, ``<path>/2``, … in the order of the calls.
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
    layer_totals: Tensor
    square_total: Tensor
    depths: Tensor
    samples: list[Tensor]
    layer_samples: list[Tensor]
    positions: list[Tensor]

    def __init__(self, depth: int | None = None, per_layer: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if depth is not None:
            check_counts(at_most=MAX_ORDER, depth=depth)
        self.depth = depth
        self.per_layer = per_layer
        self.layers: tuple[str, ...] = ()
        self._sum_state("count")
        self._sum_state("total")
        self._sum_state("square_total")
        self.add_state("depths", torch.zeros((), dtype=torch.long), dist_reduce_fx="max")
        self.add_state("samples", [], dist_reduce_fx="cat")
        self.add_state("positions", [], dist_reduce_fx="cat")
        if per_layer:
            self._sum_state("layer_totals")  # its length is learnt from the network
            self.add_state("layer_samples", [], dist_reduce_fx="cat")

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Learns the names of the layers."""
        if self.per_layer:
            self._learn_layers(model, inputs)

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...).

        Raises:
            ValueError: If the layers are reported, and the forward pass calls another number of activations than before.

        """
        start = int(self.count)
        counts = active_nodes(model, inputs)
        totals = counts.sum(1).to(self.total)
        if self.per_layer:
            self._add_layers(model, inputs, counts)
        self.depths = self.depths.clamp(min=self.depth or len(weight_layers(model)))
        self.count += len(totals)
        self.total += totals.sum()
        self.square_total += totals.square().sum()
        samples = totals.to(self.dtype)  # the type of the empty state of a process without a sample
        self.samples.append(samples)
        self.positions.append(positions_from(positions, start, samples))

    def _add_layers(self, model: nn.Module, inputs: Any, counts: Tensor) -> None:
        if not self.layers:
            self._learn_layers(model, inputs)
        if counts.shape[1] != len(self.layers):
            raise ValueError(
                f"per_layer: expected the {len(self.layers)} calls of activations that were there at first, but the forward "
                f"pass calls {counts.shape[1]}; leave per_layer out where their number depends on the samples"
            )
        self.layer_totals += counts.sum(0).to(self.layer_totals)
        # flat, as a process without a sample cannot know the number of columns
        self.layer_samples.append(counts.to(self.total.device, self.dtype).flatten())

    def _learn_layers(self, model: nn.Module, inputs: Any) -> None:
        tracer = CallTracer(model)
        with tracer.running():
            paths = collect_from_activations(model, inputs, lambda hidden: tracer.module_name)
        self.layers = tuple(
            path if paths.count(path) == 1 else f"{path}/{1 + paths[:i].count(path)}" for i, path in enumerate(paths)
        )
        device = self.total.device
        self._sum_state("layer_totals", len(paths))
        self.layer_totals = self.layer_totals.to(device)

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

    def part_values(self) -> dict[str, Tensor]:
        """Returns the mean number of active nodes of each layer, if asked for; they add up to the mean of the whole."""
        return dict(zip(self.layers, self.layer_totals / self.count)) if self.layers else {}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots log ψ*, or the mean number of active nodes of each layer with ``per_layer``, or what is given.

        See :meth:`Measure.plot`.
        """
        from lightning_tansens.show.figures.labels import part_label  # matplotlib is optional
        from lightning_tansens.show.figures.measures import plot_values, synced_parts

        if val is not None or not (parts := synced_parts(self)):
            return super().plot(val, ax)
        return plot_values(self, parts, part_label(self.key), ax)

    def distributions(self) -> dict[str, Tensor]:
        """Returns the number of active nodes of each sample (Figure 1 of the paper), shape (N,), and of its layers."""
        if not len(self.samples):
            return {}
        whole = {"": dim_zero_cat(self.samples)}
        if not self.per_layer:
            return whole
        columns = dim_zero_cat(self.layer_samples).reshape(-1, len(self.layers)).unbind(1)
        return whole | dict(zip(self.layers, columns))

    def influence(self) -> Influence | None:
        """Returns each sample's effect on log ψ* through the mean and the standard deviation."""
        if not len(self.samples):
            return None
        samples, values = dim_zero_cat(self.samples), self.values()
        if not len(samples):
            return None
        mean, std, depth = float(values["active_nodes_mean"]), float(values["active_nodes_std"]), int(self.depths)
        if std == 0:
            return Influence(torch.zeros_like(samples), dim_zero_cat(self.positions))
        step = 1e-4 * std
        by_mean = (log_psi(depth, mean + step, std) - log_psi(depth, mean - step, std)) / (2 * step)
        by_std = (log_psi(depth, mean, std + step) - log_psi(depth, mean, std - step)) / (2 * step)
        deviations = samples - mean
        effects = by_mean * deviations + by_std * (deviations.square() - std**2) / (2 * std)
        return Influence(effects, dim_zero_cat(self.positions))

    def standard_error(self) -> float | None:
        """Returns the standard error of log ψ*."""
        influence = self.influence()
        return None if influence is None else relative_standard_error([influence])

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns log ψ*(target) − log ψ*(reference), Eq. 7."""
        if not (math.isfinite(target[self.key]) and math.isfinite(reference[self.key])):
            raise UndefinedEstimateError(
                f"log ψ* is {target[self.key]} and {reference[self.key]}: no hidden unit is active on one of the sets, or "
                "there is no sample"
            )
        return target[self.key] - reference[self.key]

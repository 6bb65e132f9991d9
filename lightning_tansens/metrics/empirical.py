"""The mean squared tangent sensitivity of a set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities.data import dim_zero_cat

from lightning_tansens.bounds.active_nodes import hoeffding_half_width
from lightning_tansens.checks import check_share
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics.base import SensitivityMeasure, positions_from
from lightning_tansens.metrics.tangent import TangentQuestion
from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error
from lightning_tansens.tangent.methods import Method
from lightning_tansens.tangent.network import OutputPicker, Wrt
from lightning_tansens.tangent.outputs import Outputs
from lightning_tansens.tangent.probes.vectors import BLOCK_SIZE
from lightning_tansens.tangent.sensitivity import sum_blocks


class EmpiricalSensitivity(SensitivityMeasure):
    r"""The empirical tangent sensitivity of a set, and the loss estimate built on it.

    .. math:: \hat S(X) = \frac1N \sum_n \|S(x_n)\|_F^2, \qquad
        \hat l(X_{te}) = \frac{\hat S(X_{te})}{\hat S(X_{ref})} \, l(X_{ref})

    (Eqs. 3 and 8 of Daróczy 2022). Beside the mean of the squares it reports the mean norm E‖S‖_F (which is what Rácz et
    al. 2023 plot), the maximum and quantiles of ‖S(x)‖_F².

    As input to ``update``: a model and a batch of shape (N, ...). As output of ``compute``: a scalar.

    Args:
        outputs: "sum" (u = 1), "each" (then ‖S‖² is summed over the outputs) or a weighting of shape (C,).
        method: See :func:`~lightning_tansens.tangent.sensitivity`.
        num_probes: Number of random probes a sample, where the method needs them.
        seed: Names the probes; sets that are compared share them, so that their noise partly cancels in the ratio.
        wrt: Which tensor is x, see :func:`~lightning_tansens.tangent.sensitivity`.
        output: Picks the tensor of outputs, likewise.
        quantiles: The quantiles of ‖S(x)‖_F² over the set to report, each between 0 and 1.
        per_layer: Whether to report the mean share of each weight, ‖δ_i‖²‖J_{i-1}‖_F².
        confidence: Whether, and with what confidence, to report Hoeffding's half-width of the mean, see
            :func:`~lightning_tansens.functional.hoeffding_half_width`.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> import torch
        >>> measure = EmpiricalSensitivity()
        >>> measure.update(torch.nn.Linear(5, 1), torch.randn(8, 5))
        >>> measure.compute()
        tensor(5., dtype=torch.float64)

    """

    key = "empirical"

    total: Tensor
    norm_total: Tensor
    count: Tensor
    layer_totals: Tensor
    samples: list[Tensor]
    positions: list[Tensor]

    def __init__(
        self,
        outputs: Outputs = "sum",
        method: Method = "auto",
        num_probes: int = 1,
        seed: int = 0,
        wrt: Wrt = None,
        output: OutputPicker | None = None,
        quantiles: Sequence[float] = (0.5, 0.95),
        per_layer: bool = False,
        confidence: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(quantiles, (str, bytes)) or not isinstance(quantiles, Sequence):
            raise TypeError(f"quantiles: expected a list of numbers between 0 and 1, but got {quantiles!r}")
        if not all(isinstance(q, (int, float)) and 0 <= q <= 1 for q in quantiles):
            raise ValueError(f"quantiles: expected numbers between 0 and 1, but got {tuple(quantiles)}")
        self.tangent = TangentQuestion(outputs, method, num_probes, seed, wrt, output)
        self.quantiles = tuple(quantiles)
        if confidence is not None:
            check_share("confidence", confidence)
        self.per_layer = per_layer
        self.confidence = confidence
        self.layers: tuple[str, ...] | None = None
        self._sum_state("total")
        self._sum_state("norm_total")
        self._sum_state("count")
        if per_layer:
            self._sum_state("layer_totals")  # its length is learnt from the network
        self.add_state("samples", [], dist_reduce_fx="cat")
        self.add_state("positions", [], dist_reduce_fx="cat")

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Learns how the network is measured, and the names of the layers."""
        blocks = self._blocks(model, inputs, None)
        self._learn_layers(blocks)

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...)."""
        start = int(self.count)
        blocks = self._blocks(model, inputs, positions)
        self._learn_layers(blocks)
        squares = sum_blocks(blocks).to(self.total)
        self.total += squares.sum()
        self.norm_total += squares.sqrt().sum()
        self.count += len(squares)
        samples = squares.to(self.dtype)  # the type of the empty state of a process without a sample
        self.samples.append(samples)
        self.positions.append(positions_from(positions, start, samples))
        if self.per_layer:
            self.layer_totals += torch.stack([block.sum() for block in blocks.values()]).to(self.layer_totals)

    def _blocks(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None) -> dict[str, Tensor]:
        blocks = self.tangent.blocks(model, inputs, positions)
        return {name: block.flatten(1).sum(1) if block.dim() > 1 else block for name, block in blocks.items()}

    def _learn_layers(self, blocks: dict[str, Tensor]) -> None:
        names = tuple(name.removesuffix(".weight") for name in blocks)
        # layers may be frozen or unfrozen between two measurements
        if self.layers is None or (names != self.layers and not self.count):
            self.layers = names
            if self.per_layer:
                self._sum_state("layer_totals", len(names))
                self.layer_totals = self.layer_totals.to(self.total.device)

    def values(self) -> dict[str, Tensor]:
        """Returns the mean of ‖S‖_F², the mean of ‖S‖_F, the maximum and the quantiles of ‖S‖_F², Hoeffding's half-width."""
        samples = dim_zero_cat(self.samples) if len(self.samples) else torch.full((1,), math.nan, device=self.device)
        values = {
            "empirical": self.total / self.count,
            "empirical_norm": self.norm_total / self.count,
            "empirical_max": samples.max(),
        }
        for q in self.quantiles:
            values[f"empirical_q{100 * q:g}"] = torch.quantile(samples.float(), q)
        if self.confidence is not None and bool(self.count):
            half_width = hoeffding_half_width(float(samples.max()), int(self.count), self.confidence)
            values["empirical_hoeffding"] = torch.as_tensor(half_width, dtype=torch.float64)
        return values

    def part_values(self) -> dict[str, Tensor]:
        """Returns the mean share of each weight in ‖S‖_F²; they add up to the mean of ‖S‖_F²."""
        if not self.per_layer or self.layers is None:
            return {}
        return dict(zip(self.layers, self.layer_totals / self.count))

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots the mean, or each layer's share of it with ``per_layer``, or what is given, see :meth:`Measure.plot`."""
        from lightning_tansens.show.figures.measures import synced_parts  # matplotlib is optional

        return super().plot(synced_parts(self) or None if val is None else val, ax)

    def note(self) -> str | None:
        """Returns how the network is measured, and why."""
        return self.tangent.note()

    def influence(self) -> Influence | None:
        """Returns x_n/mean − 1 for x_n = ‖S(x_n)‖_F²."""
        if not len(self.samples):
            return None
        samples, positions = dim_zero_cat(self.samples).double(), dim_zero_cat(self.positions)
        choice = self.tangent.choice
        shared = choice is not None and choice.way == "parameter_space"
        return Influence(samples / samples.mean() - 1, positions, BLOCK_SIZE if shared else 1)

    def standard_error(self) -> float | None:
        """Returns the standard error of the mean of ‖S‖_F²; probes that samples share are accounted for."""
        influence = self.influence()
        return None if influence is None else relative_standard_error([influence]) * float(self.total / self.count)

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns log Ŝ(target) − log Ŝ(reference), Eq. 8."""
        if not (0 < target["empirical"] < math.inf and 0 < reference["empirical"] < math.inf):
            raise UndefinedEstimateError(
                f"the mean squared sensitivities are {target['empirical']:.3g} and {reference['empirical']:.3g}; their "
                "ratio is an estimate only if both are positive and finite"
            )
        return math.log(target["empirical"]) - math.log(reference["empirical"])

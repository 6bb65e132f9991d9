"""The mean squared tangent sensitivity of a set."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.bounds.active_nodes import hoeffding_half_width
from lightning_tansens.checks import check_share
from lightning_tansens.metrics.samples import MeanSensitivity
from lightning_tansens.metrics.tangent import TangentMeasure
from lightning_tansens.tangent.probes.vectors import BLOCK_SIZE


class EmpiricalSensitivity(TangentMeasure, MeanSensitivity):
    r"""The empirical tangent sensitivity of a set, and the loss estimate built on it.

    .. math:: \hat S(X) = \frac1N \sum_n \|S(x_n)\|_F^2, \qquad
        \hat l(X_{te}) = \frac{\hat S(X_{te})}{\hat S(X_{ref})} \, l(X_{ref})

    (Eqs. 3 and 8 of Daróczy 2022). Besides the mean of the squares it reports the mean norm E‖S‖_F (which is what Rácz et
    al. 2023 plot), the maximum and quantiles of ‖S(x)‖_F². With outputs="each" ‖S‖² is summed over the outputs.

    Args:
        quantiles: The quantiles of ‖S(x)‖_F² over the set to report, each between 0 and 1.
        per_layer: Whether to report the mean share of each weight, ‖δ_i‖²‖J_{i-1}‖_F².
        confidence: Whether, and with what confidence, to report Hoeffding's half-width of the mean, see
            :func:`~lightning_tansens.functional.hoeffding_half_width`.
        kwargs: ``outputs``, ``method``, ``num_probes``, ``seed``, ``wrt`` and ``output`` of
            :class:`~lightning_tansens.metrics.TangentMeasure`.

    Example:
        >>> import torch
        >>> measure = EmpiricalSensitivity()
        >>> measure.update(torch.nn.Linear(5, 1), torch.randn(8, 5))
        >>> measure.compute()
        tensor(5., dtype=torch.float64)
    """

    key = "empirical"
    details = frozenset({"empirical_norm", "empirical_max", "empirical_q50", "empirical_q95"})
    quantity = "mean squared sensitivities"

    def __init__(
        self,
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
        if confidence is not None:
            check_share("confidence", confidence)
        self.quantiles = tuple(quantiles)
        self.per_layer = per_layer
        self.confidence = confidence

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns ‖S(x_n)‖_F², shape (N,), or with ``per_layer`` each weight's share, shape (N, L)."""
        blocks = self.blocks(model, inputs, positions)
        shares = torch.stack([block.flatten(1).sum(1) if block.dim() > 1 else block for block in blocks.values()], 1)
        if not self.per_layer:
            return shares.to(self.unusable).sum(1)
        self.parts = tuple(name.removesuffix(".weight") for name in blocks)  # layers may be frozen or unfrozen
        return shares

    @property
    def block(self) -> int:  # type: ignore[override]
        """The number of consecutive samples that share a probe."""
        return BLOCK_SIZE if self.choice is not None and self.choice.way == "parameter_space" else 1

    def values(self) -> dict[str, Tensor]:
        """Returns the mean of ‖S‖_F², the mean of ‖S‖_F, the maximum and the quantiles of ‖S‖_F², Hoeffding's half-width."""
        numbers = self.numbers()
        known = numbers if len(numbers) else numbers.new_full((1,), math.nan)
        values = {"empirical": known.mean(), "empirical_norm": known.sqrt().mean(), "empirical_max": known.max()}
        values |= {f"empirical_q{100 * q:g}": torch.quantile(known, q) for q in self.quantiles}
        if self.confidence is not None and len(numbers):
            half_width = hoeffding_half_width(float(known.max()), len(numbers), self.confidence)
            values["empirical_hoeffding"] = known.new_tensor(half_width)
        return values

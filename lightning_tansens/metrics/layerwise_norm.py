"""The product of the layers' largest weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor, nn

from lightning_tansens.checks import check_choice
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional.layer_norms import log_max_weights
from lightning_tansens.metrics.base import RatioForm, SensitivityMeasure

#: Below this magnitude the ratio of the logarithms is dominated by its pole at Π w_max = 1.
SMALLEST_LOGARITHM = 1e-3


class LayerwiseNormSensitivity(SensitivityMeasure):
    r"""The layer-wise norm of the weights, log Π_i w_max,i, and the loss estimate from its change in time.

    .. math:: \hat l_t = \frac{\log \prod_i w_{max,i}^{(t-1)}}{\log \prod_i w_{max,i}^{(t)}} \, l_t
        \quad\text{("log")} \qquad \hat l_t =
        \Big(\frac{\prod_i w_{max,i}^{(t-1)}}{\prod_i w_{max,i}^{(t)}}\Big)^2 l_t \quad\text{("linear")}

    ("linear" is Eq. 6 of Daróczy 2022, built on Eq. 1; "log" is what the paper's Table 1 reports). It needs no data:
    t−1 is the previous measurement. ``compute`` returns a natural logarithm.

    Args:
        form: "log" or "linear".
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> measure = LayerwiseNormSensitivity()
        >>> layer = torch.nn.Linear(2, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, -1.0)
        >>> measure.update(layer)
        >>> measure.compute()
        tensor(0., dtype=torch.float64)
    """

    key = "layer_norm"
    needs_data = False

    log_norm: Tensor
    count: Tensor

    def __init__(self, form: RatioForm = "log", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("form", form, get_args(RatioForm))
        self.form = form
        self._sum_state("log_norm")
        self._sum_state("count")

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Takes the norm of the weights as they are."""
        self.log_norm += log_max_weights(model).sum().to(self.log_norm)
        self.count += 1

    def values(self) -> dict[str, Tensor]:
        """Returns log Π_i w_max,i; the mean over the updates, which all processes agree on."""
        return {self.key: self.log_norm / self.count}

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        now, before = target[self.key], reference[self.key]
        if not (math.isfinite(now) and math.isfinite(before)):
            raise UndefinedEstimateError(
                f"log Π w_max was {before:.3g} and is {now:.3g}; their ratio is an estimate only if both are finite, that "
                "is, if no layer is zero"
            )
        if self.form == "linear":
            return 2 * (before - now)
        if now * before <= 0 or min(abs(now), abs(before)) <= SMALLEST_LOGARITHM:
            raise UndefinedEstimateError(
                f"log Π w_max was {before:.3g} and is {now:.3g}; the ratio of the logarithms is an estimate only where both "
                f"have one sign and a magnitude over {SMALLEST_LOGARITHM}; LayerwiseNormSensitivity(form='linear') has no "
                "such pole"
            )
        return math.log(before / now)

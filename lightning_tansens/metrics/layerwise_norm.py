"""The product of the layers' largest weights."""

from typing import Any, get_args

from torch import Tensor, nn

from lightning_tansens.checks import check_choice
from lightning_tansens.functional.layer_norms import log_max_weights, weight_layers
from lightning_tansens.metrics.base import RatioForm, WeightMeasure


class LayerwiseNormSensitivity(WeightMeasure):
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
    power = -2.0
    smallest = 1e-3
    not_finite = (
        "log Π w_max was {before:.3g} and is {now:.3g}; their ratio is an estimate only if both are finite, that is, if no "
        "layer is zero"
    )
    no_ratio = (
        "log Π w_max was {before:.3g} and is {now:.3g}; the ratio of the logarithms is an estimate only where both have one "
        "sign and a magnitude over 0.001; LayerwiseNormSensitivity(form='linear') has no such pole"
    )

    def __init__(self, form: RatioForm = "log", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("form", form, get_args(RatioForm))
        self.form = form

    def of_layers(self, model: nn.Module, inputs: Any) -> dict[str, Tensor]:
        """Returns log w_max,i of each layer."""
        return dict(zip(weight_layers(model), log_max_weights(model)))

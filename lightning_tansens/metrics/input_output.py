"""The mean input–output sensitivity of a set."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_tansens.functional.input_output import input_output_norms
from lightning_tansens.metrics.samples import MeanSensitivity
from lightning_tansens.metrics.tangent import FunctionMeasure
from lightning_tansens.tangent.network import Weightings


class InputOutputSensitivity(FunctionMeasure, MeanSensitivity):
    r"""The mean norm of the network's Jacobian over a set, and the loss estimate built on it.

    .. math:: \hat l(X_{te}) = \frac{E_{x \in X_{te}} \|\partial f/\partial x\|_F}
        {E_{x \in X_{ref}} \|\partial f/\partial x\|_F} \, l(X_{ref})

    (Eq. 9 of Daróczy 2022, after Novak et al. 2018).

    Args:
        outputs: "each" for the whole C × D Jacobian, "sum" for the gradient of the summed output, or a weighting of shape
            (C,).
        kwargs: ``wrt`` and ``output`` of :class:`~lightning_tansens.metrics.FunctionMeasure`.

    Example:
        >>> import torch
        >>> linear = torch.nn.Linear(4, 1)
        >>> _ = torch.nn.init.ones_(linear.weight)
        >>> measure = InputOutputSensitivity()
        >>> measure.update(linear, torch.randn(8, 4))
        >>> measure.compute()
        tensor(2., dtype=torch.float64)
    """

    key = "input_output"
    quantity = "means of input_output"

    def __init__(self, outputs: Weightings = "each", **kwargs: Any) -> None:
        super().__init__(outputs, **kwargs)

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns ‖∂f(x_n)/∂x‖_F, shape (N,)."""
        return input_output_norms(model, inputs, **self.tangent.function)

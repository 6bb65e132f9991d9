"""The mean input–output sensitivity of a set."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.utilities import dim_zero_cat

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional.input_output import input_output_norms
from lightning_tansens.functional.network import OutputPicker, Wrt
from lightning_tansens.functional.outputs import Outputs, check_outputs
from lightning_tansens.metrics.base import SensitivityMeasure, positions_from
from lightning_tansens.uncertainty import Influence, relative_standard_error


class MeanSensitivity(SensitivityMeasure):
    """The mean over a set of one number a sample, whose ratio on two sets scales the loss.

    Subclasses give the numbers, none of them negative, in :meth:`of_samples`.

    Args:
        kwargs: Passed to :class:`torchmetrics.Metric`.

    """

    total: Tensor
    count: Tensor
    samples: list[Tensor]
    positions: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sum_state("total")
        self._sum_state("count")
        self.add_state("samples", [], dist_reduce_fx="cat")
        self.add_state("positions", [], dist_reduce_fx="cat")

    @abstractmethod
    def of_samples(self, model: nn.Module, inputs: Any) -> Tensor:
        """Returns each sample's number, shape (N,)."""

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...)."""
        start = int(self.count)
        numbers = self.of_samples(model, inputs).to(self.total)
        self.total += numbers.sum()
        self.count += len(numbers)
        samples = numbers.to(self.dtype)  # the type of the empty state of a process without a sample
        self.samples.append(samples)
        self.positions.append(positions_from(positions, start, samples))

    def values(self) -> dict[str, Tensor]:
        """Returns the mean."""
        return {self.key: self.total / self.count}

    def influence(self) -> Influence | None:
        """Returns x_n/mean − 1 for the samples' numbers x_n; None where their mean is zero."""
        samples = dim_zero_cat(self.samples).double() if len(self.samples) else torch.zeros(0)
        if not samples.any():
            return None
        return Influence(samples / samples.mean() - 1, dim_zero_cat(self.positions))

    def standard_error(self) -> float | None:
        """Returns the standard error of the mean."""
        influence = self.influence()
        return None if influence is None else relative_standard_error([influence]) * float(self.total / self.count)

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns the logarithm of the ratio of the means."""
        if not (target[self.key] > 0 and reference[self.key] > 0):
            raise UndefinedEstimateError(
                f"the means of {self.key} are {target[self.key]:.3g} and {reference[self.key]:.3g}; their ratio is an "
                "estimate only if both are positive"
            )
        return math.log(target[self.key]) - math.log(reference[self.key])


class InputOutputSensitivity(MeanSensitivity):
    r"""The mean norm of the network's Jacobian over a set, and the loss estimate built on it.

    .. math:: \hat l(X_{te}) = \frac{E_{x \in X_{te}} \|\partial f/\partial x\|_F}
        {E_{x \in X_{ref}} \|\partial f/\partial x\|_F} \, l(X_{ref})

    (Eq. 9 of Daróczy 2022, after Novak et al. 2018).

    As input to ``update``: a model and a batch of shape (N, ...). As output of ``compute``: a scalar.

    Args:
        outputs: "each" for the whole C × D Jacobian, "sum" for the gradient of the summed output, or a weighting of shape
            (C,).
        wrt: Which tensor is x, see :func:`~lightning_tansens.functional.tangent_sensitivity`.
        output: Picks the tensor of outputs, likewise.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``outputs`` is none of these.

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

    def __init__(
        self, outputs: Outputs = "each", wrt: Wrt = None, output: OutputPicker | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_outputs(outputs)
        self.outputs = outputs
        self.wrt = wrt
        self.output = output

    def of_samples(self, model: nn.Module, inputs: Any) -> Tensor:
        """Returns ‖∂f(x_n)/∂x‖_F, shape (N,)."""
        return input_output_norms(model, inputs, outputs=self.outputs, wrt=self.wrt, output=self.output)

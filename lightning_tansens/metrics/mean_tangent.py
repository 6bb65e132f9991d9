"""The tangent sensitivity of a set as a whole: the norm of the mean matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_callable
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.functional.mean_tangent import LARGEST, Weighting, tangent_matrix_sum
from lightning_tansens.metrics.base import SensitivityMeasure
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import Network, OutputPicker, Wrt, batch_length
from lightning_tansens.tangent.outputs import check_outputs


class MeanTangentSensitivity(SensitivityMeasure):
    r"""The norm of the mean tangent sensitivity of a set, for small networks, and the loss estimate built on it.

    .. math:: \Big\|\frac1N \sum_n S_u(x_n)\Big\|_F, \qquad
        \hat l(X_{te}) = \frac{\|E_{x \in X_{te}} S_u(x)\|_F^2}{\|E_{x \in X_{ref}} S_u(x)\|_F^2} \, l(X_{ref})

    (Definition 1 of Daróczy 2022 and of Rácz et al. 2023; the estimate puts its square in the place of Eq. 8's mean square,
    which it never exceeds.) The running sum is a matrix of P parameters times D input coordinates in double precision, of
    which each set holds a few copies; a batch takes D double backward passes.

    As input to ``update``: a model and a batch of shape (N, ...). As output of ``compute``: a scalar, in units of output /
    (parameter · input).

    Args:
        outputs: "sum" for u = (1, …, 1), or a weighting u of shape (C,).
        max_entries: The largest P · D that is measured; 20 million take 160 MB a copy.
        wrt: Which tensor is x, see :func:`~lightning_tansens.tangent.sensitivity`.
        output: Picks the tensor of outputs, likewise.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> measure = MeanTangentSensitivity()
        >>> measure.update(nn.Linear(4, 1), torch.randn(8, 4))
        >>> measure.compute()
        tensor(2., dtype=torch.float64)

    """

    key = "mean_tangent"

    total: Tensor
    count: Tensor

    def __init__(
        self,
        outputs: Weighting = "sum",
        max_entries: int = 20_000_000,
        wrt: Wrt = None,
        output: OutputPicker | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_outputs(outputs)
        check_callable("output", output)
        if isinstance(outputs, str) and outputs != "sum":
            raise ValueError(
                f"outputs: expected 'sum' or a weighting of shape (C,), but got {outputs!r}; the unit vector e_c takes "
                "output c"
            )
        if not isinstance(max_entries, int) or not 1 <= max_entries <= LARGEST:
            raise ValueError(f"max_entries: expected an integer between 1 and {LARGEST}, but got {max_entries!r}")
        self.outputs = outputs
        self.max_entries = max_entries
        self.wrt = wrt
        self.output = output
        self._sum_state("total")  # its shape is learnt from the network
        self._sum_state("count")

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Learns the shape of the matrix.

        Raises:
            ValueError: If the matrix is larger than ``max_entries``.

        """
        with evaluation(model):
            network = Network(model, inputs, self.wrt, self.output)
            parameters, coordinates = sum(p.numel() for p in network.trainable.values()), network.x.shape[1:].numel()
        if parameters * coordinates > self.max_entries:
            raise ValueError(
                f"MeanTangentSensitivity: expected a network with P · D of at most {self.max_entries:.1e}, but "
                f"{type(model).__name__} has {parameters} · {coordinates} = {parameters * coordinates:.1e}; use "
                "EmpiricalSensitivity, which needs no matrix, freeze parameters, or raise max_entries"
            )
        self._learn_shape(parameters, coordinates)

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...); their positions do not matter.

        Raises:
            ValueError: If the matrix is larger than ``max_entries``, or of another shape than before.

        """
        if not self.count:
            self.prepare(model, inputs)  # parameters may be frozen or unfrozen between two measurements
        matrix = tangent_matrix_sum(model, inputs, outputs=self.outputs, wrt=self.wrt, output=self.output)
        if matrix.shape != self.total.shape:
            raise ValueError(
                f"inputs: expected matrices of P · D = {tuple(self.total.shape)} as before, but got {tuple(matrix.shape)}; "
                "resize the samples to one shape, and freeze or unfreeze parameters between two measurements only"
            )
        self.total += matrix.to(self.total)
        self.count += batch_length(inputs)

    def _learn_shape(self, *shape: int) -> None:
        if self.total.shape != shape:
            device = self.total.device
            self._sum_state("total", *shape)
            self.total = self.total.to(device)

    def values(self) -> dict[str, Tensor]:
        """Returns the norm of the mean matrix; nan without samples."""
        norm: Tensor = torch.linalg.vector_norm(self.total / self.count)
        return {self.key: norm}

    def log_ratio(self, target: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Returns the logarithm of the ratio of the squared norms."""
        if not (0 < target[self.key] < math.inf and 0 < reference[self.key] < math.inf):
            raise UndefinedEstimateError(
                f"the norms of the mean matrices are {target[self.key]:.3g} and {reference[self.key]:.3g}; their ratio is "
                "an estimate only if both are positive and finite"
            )
        return 2 * (math.log(target[self.key]) - math.log(reference[self.key]))

"""The tangent sensitivity of a set as a whole: the norm of the mean matrix."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.functional.mean_tangent import LARGEST, Weighting, check_weighting, finite_matrix_sum
from lightning_tansens.metrics.base import SensitivityMeasure
from lightning_tansens.metrics.tangent import FunctionMeasure
from lightning_tansens.tangent.batches import batch_length
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import Network


class MeanTangentSensitivity(FunctionMeasure, SensitivityMeasure):
    r"""The norm of the mean tangent sensitivity of a set, for small networks, and the loss estimate built on it.

    .. math:: \Big\|\frac1N \sum_n S_u(x_n)\Big\|_F, \qquad
        \hat l(X_{te}) = \frac{\|E_{x \in X_{te}} S_u(x)\|_F^2}{\|E_{x \in X_{ref}} S_u(x)\|_F^2} \, l(X_{ref})

    (Definition 1 of Daróczy 2022 and of Rácz et al. 2023; the estimate puts its square in the place of Eq. 8's mean square,
    which it never exceeds.) The running sum is a matrix of P parameters times D input coordinates in double precision, of
    which each set holds a few copies; a batch takes D double backward passes. ``compute`` returns the norm, in units of
    output / (parameter · input).

    Args:
        outputs: "sum" for u = (1, …, 1), or a weighting u of shape (C,).
        max_entries: The largest P · D that is measured; 20 million take 160 MB a copy.
        kwargs: ``wrt`` and ``output`` of :class:`~lightning_tansens.metrics.FunctionMeasure`.

    Example:
        >>> measure = MeanTangentSensitivity()
        >>> measure.update(nn.Linear(4, 1), torch.randn(8, 4))
        >>> measure.compute()
        tensor(2., dtype=torch.float64)
    """

    key = "mean_tangent"
    quantity = "norms of the mean matrices"
    power = 2.0

    total: Tensor
    count: Tensor

    def __init__(self, outputs: Weighting = "sum", max_entries: int = 20_000_000, **kwargs: Any) -> None:
        super().__init__(outputs, **kwargs)
        check_weighting(outputs)
        if not isinstance(max_entries, int) or not 1 <= max_entries <= LARGEST:
            raise ValueError(f"max_entries: expected an integer between 1 and {LARGEST}, but got {max_entries!r}")
        self.max_entries = max_entries
        self._sum_state("total")  # its shape is learnt from the network
        self._sum_state("count")

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Learns the shape of the matrix.

        Raises:
            ValueError: If the matrix is larger than ``max_entries``.
        """
        with evaluation(model):
            network = Network(model, inputs, self.tangent.wrt, self.tangent.output)
            parameters, coordinates = sum(p.numel() for p in network.trainable.values()), network.x.shape[1:].numel()
        if parameters * coordinates > self.max_entries:
            raise ValueError(
                f"MeanTangentSensitivity: expected a network with P · D of at most {self.max_entries:.1e}, but "
                f"{type(model).__name__} has {parameters} · {coordinates} = {parameters * coordinates:.1e}; use "
                "EmpiricalSensitivity, which needs no matrix, freeze parameters, or raise max_entries"
            )
        self._learn_shape(parameters, coordinates)

    def update(self, model: nn.Module, inputs: Any = None, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch; their positions do not matter.

        Raises:
            ValueError: If the matrix is larger than ``max_entries``, or of another shape than before.
        """
        if not self.count:
            self.prepare(model, inputs)  # parameters may be frozen or unfrozen between two measurements
        matrix, unusable = finite_matrix_sum(model, inputs, **self.tangent.function)
        if matrix.shape != self.total.shape:
            raise ValueError(
                f"inputs: expected matrices of P · D = {tuple(self.total.shape)} as before, but got {tuple(matrix.shape)}; "
                "resize the samples to one shape, and freeze or unfreeze parameters between two measurements only"
            )
        self.total += matrix.to(self.total)
        self.count += batch_length(inputs) - unusable
        self.unusable += unusable

    def _learn_shape(self, *shape: int) -> None:
        if self.total.shape != shape:
            self._sum_state("total", *shape)

    def values(self) -> dict[str, Tensor]:
        """Returns the norm of the mean matrix; nan without samples."""
        norm: Tensor = torch.linalg.vector_norm(self.total / self.count)
        return {self.key: norm}

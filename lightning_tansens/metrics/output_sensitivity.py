"""The tangent sensitivity of each output."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_tansens.metrics.tangent import TangentMeasure
from lightning_tansens.tangent.sensitivity import sum_blocks


class OutputSensitivity(TangentMeasure):
    r"""The mean norm of the tangent sensitivity of each output, which needs no labels.

    .. math:: \hat S_c(X) = \frac1N \sum_n \|S_{e_c}(x_n)\|_F

    with e_c the c-th unit vector (Definition 1 of Rácz et al. 2023, whose figures show the mean of the norm, not of its
    square). ``compute`` returns the mean over the outputs; each output's value is in ``part_values``, by its number. It
    describes a set and gives no estimate.

    Args:
        kwargs: ``method``, ``num_probes``, ``seed``, ``wrt`` and ``output`` of
            :class:`~lightning_tansens.metrics.TangentMeasure`. Random probes make the norm of a sample biased low.

    Example:
        >>> import torch
        >>> measure = OutputSensitivity()
        >>> measure.update(torch.nn.Linear(9, 2), torch.randn(8, 9))
        >>> {output: f"{value:.0f}" for output, value in measure.part_values().items()}
        {'0': '3', '1': '3'}
    """

    key = "output_sensitivity"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(outputs="each", **kwargs)

    def of_samples(self, model: nn.Module, inputs: Any, positions: Sequence[int]) -> Tensor:
        """Returns ‖S_{e_c}(x_n)‖_F, shape (N, C)."""
        norms = sum_blocks(self.blocks(model, inputs, positions)).to(self.unusable).sqrt()
        self.parts = tuple(map(str, range(norms.shape[1])))
        return norms

    def values(self) -> dict[str, Tensor]:
        """Returns the mean over samples and outputs."""
        return {self.key: self.rows().mean()}

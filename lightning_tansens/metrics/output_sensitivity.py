"""The tangent sensitivity of each output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_tansens.metrics.base import Measure
from lightning_tansens.metrics.tangent import TangentQuestion
from lightning_tansens.tangent.methods import Method
from lightning_tansens.tangent.network import OutputPicker, Wrt
from lightning_tansens.tangent.sensitivity import sum_blocks


class OutputSensitivity(Measure):
    r"""The mean norm of the tangent sensitivity of each output, which needs no labels.

    .. math:: \hat S_c(X) = \frac1N \sum_n \|S_{e_c}(x_n)\|_F

    with e_c the c-th unit vector (Definition 1 of Rácz et al. 2023, whose figures show the mean of the norm, not of its
    square). It describes a set and gives no estimate.

    As input to ``update``: a model and a batch of shape (N, ...). As output of ``compute``: the mean over the outputs, a
    scalar; each output's value is in ``part_values``, by its number.

    Args:
        method: See :func:`~lightning_tansens.tangent.sensitivity`.
        num_probes: Number of random probes a sample, where the method needs them; then the norm of a sample is biased low.
        seed: Names the probes.
        wrt: Which tensor is x, see :func:`~lightning_tansens.tangent.sensitivity`.
        output: Picks the tensor of outputs, likewise.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> import torch
        >>> measure = OutputSensitivity()
        >>> measure.update(torch.nn.Linear(9, 2), torch.randn(8, 9))
        >>> {output: f"{value:.0f}" for output, value in measure.part_values().items()}
        {'0': '3', '1': '3'}

    """

    key = "output_sensitivity"

    totals: Tensor
    count: Tensor

    def __init__(
        self,
        method: Method = "auto",
        num_probes: int = 1,
        seed: int = 0,
        wrt: Wrt = None,
        output: OutputPicker | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tangent = TangentQuestion("each", method, num_probes, seed, wrt, output)
        self._sum_state("totals")  # its length is learnt from the network
        self._sum_state("count")

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Learns the number of outputs."""
        self._learn_outputs(sum_blocks(self.tangent.blocks(model, inputs)))

    def update(self, model: nn.Module, inputs: Any, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...)."""
        squares = sum_blocks(self.tangent.blocks(model, inputs, positions))
        self._learn_outputs(squares)
        self.totals += squares.to(self.totals).sqrt().sum(0)
        self.count += len(squares)

    def _learn_outputs(self, squares: Tensor) -> None:
        if not self.totals.dim():
            device = self.totals.device
            self._sum_state("totals", squares.shape[1])
            self.totals = self.totals.to(device)

    def values(self) -> dict[str, Tensor]:
        """Returns the mean over the outputs."""
        return {self.key: (self.totals / self.count).mean()}

    def part_values(self) -> dict[str, Tensor]:
        """Returns each output's mean, by its number."""
        return {str(c): mean for c, mean in enumerate(self.totals / self.count)} if self.totals.dim() else {}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots a bar for each output, or what is given, see :meth:`Measure.plot`."""
        from lightning_tansens.show.figures.labels import value_label  # matplotlib is optional
        from lightning_tansens.show.figures.measures import plot_bars, synced_parts

        if val is not None or not (parts := synced_parts(self)):
            return super().plot(val, ax)
        return plot_bars(parts, value_label(self.key), "output", ax)

    def note(self) -> str | None:
        """Returns how the network is measured, and why."""
        return self.tangent.note()

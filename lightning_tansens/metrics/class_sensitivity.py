"""The tangent sensitivity of each output on the samples of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.metrics.base import LabelledMeasure
from lightning_tansens.metrics.tangent import TangentQuestion
from lightning_tansens.tangent.methods import Method
from lightning_tansens.tangent.network import OutputPicker, Wrt
from lightning_tansens.tangent.sensitivity import sum_blocks


class ClassSensitivity(LabelledMeasure):
    r"""The mean norm of the tangent sensitivity of each output, over all samples and over those of each class.

    .. math:: \hat S_{k,c}(X) = \frac1{N_k} \sum_{n: y_n = k} \|S_{e_c}(x_n)\|_F

    with the output c, the class k and N_k its number of samples (Section 5 of Rácz et al. 2023). The published plotting
    code averages over the outputs within each class and calls that the outputs' curves; here both are told apart. It needs
    class indices as labels, describes a set and gives no estimate.

    As input to ``update``: a model, a batch of shape (N, ...) and labels of shape (N,). As output of ``compute``: the mean
    over all samples and outputs. ``part_values`` has, for each class k that has samples, ``<k>``, the mean over its samples
    and the outputs, for each output c ``all/<c>``, the mean over all samples, and, if asked for, ``<k>/<c>``.

    Args:
        matrix: Whether to report every pair of class and output.
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
        >>> measure = ClassSensitivity()
        >>> measure.update(torch.nn.Linear(9, 2), torch.randn(8, 9), torch.tensor([0, 1] * 4))
        >>> sorted(measure.part_values())
        ['0', '1', 'all/0', 'all/1']

    """

    key = "class_sensitivity"

    totals: Tensor
    counts: Tensor

    def __init__(
        self,
        matrix: bool = False,
        method: Method = "auto",
        num_probes: int = 1,
        seed: int = 0,
        wrt: Wrt = None,
        output: OutputPicker | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.matrix = matrix
        self.tangent = TangentQuestion("each", method, num_probes, seed, wrt, output)
        self._sum_state("totals")  # their shapes are learnt from the network
        self._sum_state("counts")

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Learns the number of outputs, which is the number of classes."""
        self._learn_outputs(sum_blocks(self.tangent.blocks(model, inputs)))

    def update(self, model: nn.Module, inputs: Any, targets: Any, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch of shape (N, ...) with labels of shape (N,).

        Raises:
            ValueError: If the labels are no class indices below the number of outputs.

        """
        squares = sum_blocks(self.tangent.blocks(model, inputs, positions))
        samples, classes = squares.shape
        if not isinstance(targets, Tensor) or targets.shape != (samples,) or targets.is_floating_point():
            came = (
                f"shape {tuple(targets.shape)}, {targets.dtype}" if isinstance(targets, Tensor) else type(targets).__name__
            )
            raise ValueError(
                f"targets: expected class indices of shape ({samples},), but got {came}; leave ClassSensitivity out where "
                "the labels are no classes"
            )
        if not bool(((targets >= 0) & (targets < classes)).all()):
            raise ValueError(
                f"targets: expected classes from 0 to {classes - 1}, as many as outputs, but got {int(targets.min())} to "
                f"{int(targets.max())}; leave ClassSensitivity out where outputs and classes do not pair"
            )
        self._learn_outputs(squares)
        labels = targets.to(self.totals.device)
        self.totals.index_add_(0, labels, squares.to(self.totals).sqrt())
        self.counts += torch.bincount(labels, minlength=classes)

    def _learn_outputs(self, squares: Tensor) -> None:
        if not self.totals.dim():
            device, classes = self.totals.device, squares.shape[1]
            self._sum_state("totals", classes, classes)
            self._sum_state("counts", classes)
            self.totals, self.counts = self.totals.to(device), self.counts.to(device)

    def values(self) -> dict[str, Tensor]:
        """Returns the mean over all samples and outputs."""
        outputs = self.totals.shape[-1] if self.totals.dim() else 1
        return {self.key: self.totals.sum() / self.counts.sum() / outputs}

    def part_values(self) -> dict[str, Tensor]:
        """Returns the means by class, by output and, if asked for, by both."""
        if not self.totals.dim():
            return {}
        means = self.totals / self.counts[:, None]
        present = [k for k in range(len(means)) if self.counts[k]]
        parts = {str(k): means[k].mean() for k in present}
        parts |= {f"all/{c}": mean for c, mean in enumerate(self.totals.sum(0) / self.counts.sum())}
        if self.matrix:
            parts |= {f"{k}/{c}": mean for k in present for c, mean in enumerate(means[k])}
        return parts

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots a heat map of classes and outputs with ``matrix``, else a bar for each class, or what is given.

        See :meth:`Measure.plot`.
        """
        from lightning_tansens.show.figures.labels import value_label  # matplotlib is optional
        from lightning_tansens.show.figures.measures import plot_bars, plot_matrix, synced_parts

        if val is not None or not (parts := synced_parts(self)):
            return super().plot(val, ax)
        if self.matrix:
            return plot_matrix(parts, value_label(self.key), ax)
        return plot_bars({name: mean for name, mean in parts.items() if "/" not in name}, value_label(self.key), "class", ax)

    def note(self) -> str | None:
        """Returns how the network is measured, and why."""
        return self.tangent.note()

"""The tangent sensitivity of each output on the samples of each class."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.metrics.base import LabelledMeasure, check_classes
from lightning_tansens.metrics.output_sensitivity import OutputSensitivity
from lightning_tansens.tangent.batches import batch_length


class ClassSensitivity(OutputSensitivity, LabelledMeasure):
    r"""The mean norm of the tangent sensitivity of each output, over all samples and by class.

    .. math:: \hat S_{k,c}(X) = \frac1{N_k} \sum_{n: y_n = k} \|S_{e_c}(x_n)\|_F

    with the output c, the class k and N_k its number of samples (Section 5 of Rácz et al. 2023, whose plotting code averages
    over the outputs within each class and calls that the outputs' curves). It needs class indices as labels, describes a set
    and gives no estimate. ``compute`` returns the mean over all samples and outputs; ``part_values`` has, for each class k
    that has samples, ``<k>``, the mean over its samples and the outputs, for each output c ``all/<c>``, the mean over all
    samples, and, if asked for, ``<k>/<c>``.

    Args:
        matrix: Whether to report every pair of class and output.
        kwargs: ``method``, ``num_probes``, ``seed``, ``wrt`` and ``output`` of
            :class:`~lightning_tansens.metrics.TangentMeasure`. Random probes make the norm of a sample biased low.

    Example:
        >>> import torch
        >>> measure = ClassSensitivity()
        >>> measure.update(torch.nn.Linear(9, 2), torch.randn(8, 9), torch.tensor([0, 1] * 4))
        >>> sorted(measure.part_values())
        ['0', '1', 'all/0', 'all/1']
    """

    key = "class_sensitivity"

    labels: list[Tensor]

    def __init__(self, matrix: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.matrix = matrix
        self._sample_state("labels", torch.int64)

    def update(  # type: ignore[override]
        self, model: nn.Module, inputs: Any, targets: Any, positions: Sequence[int] | None = None
    ) -> None:
        """Adds the samples of a batch with labels of shape (N,).

        Raises:
            ValueError: If the labels are no class indices below the number of outputs.
        """
        check_classes(targets, batch_length(inputs), self)
        usable = self._add(model, inputs, positions)
        classes = len(self.parts)
        if not bool(((targets >= 0) & (targets < classes)).all()):
            raise ValueError(
                f"targets: expected classes from 0 to {classes - 1}, as many as outputs, but got {int(targets.min())} to "
                f"{int(targets.max())}; leave ClassSensitivity out where outputs and classes do not pair"
            )
        self._append("labels", targets.to(usable.device)[usable])

    def part_values(self) -> dict[str, Tensor]:
        """Returns the means by class, by output and, if asked for, by both."""
        if not self.count:
            return {}
        rows, labels = self.rows(), self._joined("labels")
        means = {int(k): rows[labels == k].mean(0) for k in labels.unique()}
        parts = {str(k): mean.mean() for k, mean in means.items()}
        parts |= {f"all/{c}": mean for c, mean in enumerate(rows.mean(0))}
        if self.matrix:
            parts |= {f"{k}/{c}": value for k, mean in means.items() for c, value in enumerate(mean)}
        return parts

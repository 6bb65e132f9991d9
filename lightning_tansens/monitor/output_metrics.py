"""What accumulates on a set's outputs: its labelled loss, and the outputs that the estimators get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from lightning_tansens.metrics.criteria import Criterion
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.metrics.outputs import SetOutputs
from lightning_tansens.monitor.data.reading import Reading
from lightning_tansens.monitor.data.set_batches import SetBatches


class OutputMetrics:
    """The loss and the outputs of one set; labels reach the outputs only where the reading says that the set is labelled.

    Args:
        loss: Where to accumulate the labelled loss; None leaves the labels alone.
        batches: The set's batches.
        reading: What the estimators get.

    Attributes:
        loss: As above.
        outputs: Where to accumulate the outputs; None where no estimator needs them.

    """

    def __init__(self, loss: LabelledLoss | None, batches: SetBatches, reading: Reading) -> None:
        self.loss, self.outputs = loss, _outputs(reading)
        self._batches, self._reading = batches, reading

    def know(self, criterion: Criterion, class_scores: bool | None) -> None:
        """Takes the criterion, and whether outputs are class scores (None if unknown), before anything is accumulated."""
        self._reading = replace(self._reading, class_scores=class_scores)
        self.outputs = _outputs(self._reading)
        if self.loss is not None:
            self.loss = LabelledLoss(criterion, self.loss.by_class, class_scores)

    def metrics(self) -> list[Metric]:
        """Returns those that are accumulated."""
        return [metric for metric in (self.measured_loss, self.outputs) if metric is not None]

    @property
    def measured_loss(self) -> LabelledLoss | None:
        """The loss, unless it only tells which labels count."""
        return self.loss if self._reading.with_loss else None

    def prepare(self, outputs: Any, features: Tensor | None, targets: Any, positions: Sequence[int]) -> None:
        """Tries both on a batch, without accumulating.

        Raises:
            ValueError: If the loss is measured and the labels are missing.

        """
        if self.loss is not None:
            self.loss.prepare(outputs, self._batches.labels(targets))
        if self.outputs is not None:
            self.outputs.prepare(*self._counted(outputs, features, targets, positions)[:3])

    def update(self, outputs: Any, features: Tensor | None, targets: Any, positions: Sequence[int]) -> None:
        """Accumulates a batch.

        Args:
            outputs: What the network returned.
            features: The inputs of its last layer; None where no estimator needs them.
            targets: The labels; None where there are none.
            positions: The samples' positions in the set.

        """
        if self.measured_loss is not None:
            self.measured_loss.update_finite(outputs, self._batches.labels(targets), positions)
        self.update_outputs(outputs, features, targets, positions)

    def update_outputs(self, outputs: Any, features: Tensor | None, targets: Any, positions: Sequence[int]) -> None:
        """Accumulates the outputs of a batch alone, as far as the estimators get them; the arguments are as above."""
        count = sum(position < self._reading.num_outputs for position in positions)
        if self.outputs is not None and count:
            self.outputs.update(*self._counted(outputs, features, targets, positions[:count]))

    def _counted(
        self, outputs: Any, features: Tensor | None, targets: Any, positions: Sequence[int]
    ) -> tuple[Any, Any, Tensor | None, list[int]]:
        """Returns the outputs, labels, features and positions of a batch's first samples whose label, if any, counts."""
        kept: Any = slice(len(positions))
        own = list(positions)
        if not isinstance(outputs, Tensor):  # SetOutputs refuses it
            return outputs, targets, features, own
        if self._reading.labelled and self.loss is not None:
            counted = self.loss.counted(outputs[kept], targets[kept])
            if counted is not None:
                kept = counted.nonzero().flatten()
                own = [positions[place] for place in kept.tolist()]
        labels = targets[kept] if self._reading.labelled else None
        return outputs[kept], labels, None if features is None else features[kept], own


def _outputs(reading: Reading) -> SetOutputs | None:
    return SetOutputs(reading.class_scores, reading.labelled, reading.features) if reading.num_outputs else None

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
from lightning_tansens.monitor.data.reading import Reading, Seen
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

    def prepare(self, seen: Seen, targets: Any, positions: Sequence[int]) -> None:
        """Tries both on a batch, without accumulating.

        Raises:
            ValueError: If the loss is measured and the labels are missing.

        """
        if self.loss is not None:
            self.loss.prepare(seen.outputs, self._batches.labels(targets))
        if self.outputs is not None:
            found, labels, _ = self._counted(seen, targets, positions)
            self.outputs.prepare(found.outputs, labels, found.features, found.entries)

    def update(self, seen: Seen, targets: Any, positions: Sequence[int]) -> None:
        """Accumulates a batch.

        Args:
            seen: What the estimators see of it.
            targets: The labels; None where there are none.
            positions: The samples' positions in the set.

        """
        if self.measured_loss is not None:
            self.measured_loss.update_finite(seen.outputs, self._batches.labels(targets), positions)
        self.update_outputs(seen, targets, positions)

    def update_outputs(self, seen: Seen, targets: Any, positions: Sequence[int]) -> None:
        """Accumulates the outputs of a batch alone, as far as the estimators get them; the arguments are as above."""
        count = sum(position < self._reading.num_outputs for position in positions)
        if self.outputs is not None and count:
            found, labels, own = self._counted(seen, targets, positions[:count])
            self.outputs.update(found.outputs, labels, found.features, own, found.entries)

    def _counted(self, seen: Seen, targets: Any, positions: Sequence[int]) -> tuple[Seen, Any, list[int]]:
        """Returns what is seen, the labels and positions of a batch's first samples whose label, if any, counts."""
        kept: Any = slice(len(positions))
        own = list(positions)
        if not isinstance(seen.outputs, Tensor):  # SetOutputs refuses it
            return seen, targets, own
        if self._reading.labelled and self.loss is not None:
            counted = self.loss.counted(seen.outputs[kept], targets[kept])
            if counted is not None:
                kept = counted.nonzero().flatten()
                own = [positions[place] for place in kept.tolist()]
        labels = targets[kept] if self._reading.labelled else None
        return Seen(*(None if part is None else part[kept] for part in seen)), labels, own


def _outputs(reading: Reading) -> SetOutputs | None:
    if not reading.num_outputs:
        return None
    return SetOutputs(reading.class_scores, reading.labelled, reading.features, reading.entries)

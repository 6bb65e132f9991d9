"""What accumulates on a set's outputs: its labelled loss, and the outputs that the estimators get."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torchmetrics import Metric

from lightning_tansens.estimators import Inputs, Outputs, SetSummary, Trajectory
from lightning_tansens.metrics.criteria import Criterion
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.metrics.outputs import SetOutputs
from lightning_tansens.monitor.data.reading import Reading, Seen, channels_of
from lightning_tansens.monitor.data.set_batches import SetBatches


class OutputMetrics:
    """The loss and the outputs of one set, where they are accumulated; None where nothing needs them.

    Labels reach the outputs only where the reading says that the set is labelled.
    """

    def __init__(self, loss: LabelledLoss | None, batches: SetBatches, reading: Reading) -> None:
        self.loss, self.outputs = loss, _outputs(reading)
        self._batches, self._reading = batches, reading
        self._shape: tuple[int, ...] = ()
        self._inputs: Inputs | None = None

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

    def prepare(self, seen: Seen, inputs: Any, targets: Any, positions: Sequence[int]) -> None:
        """Tries both on a batch, without accumulating.

        Raises:
            ValueError: If the loss is measured and the labels are missing.
        """
        self._shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else ()
        if self.loss is not None:
            self.loss.prepare(seen.outputs, self._batches.labels(targets))
        if self.outputs is not None:
            found, labels, _ = self._counted(seen, targets, positions)
            self.outputs.prepare(found.outputs, labels, found.features, found.entries)

    def update(self, seen: Seen, targets: Any, positions: Sequence[int]) -> None:
        """Accumulates a batch: what the estimators see of it, its labels or None, and its samples' positions in the set."""
        if self.measured_loss is not None:
            self.measured_loss.update_finite(seen.outputs, self._batches.labels(targets), positions)
        self.update_outputs(seen, targets, positions)

    def update_outputs(self, seen: Seen, targets: Any, positions: Sequence[int]) -> None:
        """Accumulates the outputs of a batch alone, as far as the estimators get them."""
        count = sum(position < self._reading.num_outputs for position in positions)
        if self.outputs is not None and count:
            found, labels, own = self._counted(seen, targets, positions[:count])
            self.outputs.update(found.outputs, labels, found.features, own, found.entries)

    def found(self, earlier: Trajectory | None) -> Outputs | None:
        """Returns the outputs, once they are synced, with earlier ones of the same samples; None if nobody needs them."""
        if self.outputs is None:
            return None
        arrays = self.outputs.arrays()
        entries, inputs = arrays.pop("entries", None), None
        if entries is not None and not np.isnan(entries).all(1).any():  # else some samples have another shape
            inputs = Inputs(entries, len(self._shape) == 1, self._shape, channels_of(self._shape))
        if inputs is None or not inputs.same_as(self._inputs):  # what estimators know of the same inputs is kept with them
            self._inputs = inputs
        return Outputs.of(**arrays, earlier=earlier, inputs=self._inputs)

    def added_to(self, summary: SetSummary) -> SetSummary:
        """Adds the loss and the accuracy to a summary, and what :meth:`found` left out to its unusable samples."""
        counted = [self.loss, summary.outputs]
        unusable = max([summary.unusable, *(int(one.unusable) for one in counted if one is not None)])
        summary, loss, subset = replace(summary, unusable=unusable), self.measured_loss, self._batches.subset
        if loss is None:
            return summary
        # a value about exactly these samples, a whole test set, has no error; the reference stands for what it is drawn from
        is_truth = not self._reading.labelled and len(subset) == subset.available
        accuracy = loss.accuracy()
        return replace(
            summary,
            loss=loss.value(),
            loss_influence=loss.influence(),
            loss_stderr=None if is_truth else loss.standard_error(),
            accuracy=None if accuracy is None else float(accuracy),
            accuracy_stderr=None if is_truth else loss.accuracy_standard_error(),
            wrong=loss.wrong(),
            class_losses=loss.class_losses(),
        )

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

"""Loss and accuracy on a set that has labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lightning_tansens.checks import check_callable
from lightning_tansens.metrics.base import positions_from
from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error

#: On (outputs, targets), it returns a tensor; a command line takes a class only where the return type is left open.
Criterion = Callable[[Any, Any], Any]


class LabelledLoss(Metric):
    """The mean loss, and the accuracy where outputs and targets are those of a classifier.

    As input to ``update``: outputs of shape (N, ...) and targets of shape (N, ...). As output of ``compute``: the mean
    loss, in units of the criterion.

    Args:
        criterion: A callable on (outputs, targets) that returns a loss for each sample, or their mean; None for
            cross-entropy.
        by_class: Whether to keep the labels, for :meth:`class_losses`.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> loss = LabelledLoss()
        >>> loss.update(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))
        >>> loss.accuracy()
        tensor(0.5000, dtype=torch.float64)

    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor
    correct: Tensor
    classified: Tensor
    samples: list[Tensor]
    labels: list[Tensor]
    positions: list[Tensor]

    def __init__(self, criterion: Criterion | None = None, by_class: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_callable("criterion", criterion)
        # a module is kept in a tuple, so that it does not become a part of the metric's own module tree
        self._criterion = (criterion if criterion is not None else cross_entropy,)
        self.by_class = by_class
        self.add_state("samples", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")
        self.add_state("positions", [], dist_reduce_fx="cat")
        for name in ("total", "count", "correct", "classified"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Any, targets: Any, positions: Sequence[int] | None = None) -> None:
        """Adds a batch.

        Raises:
            TypeError: If the criterion returns no tensor.
            ValueError: If it returns neither a mean nor a loss for each sample, or there is no batch of targets.

        """
        if isinstance(targets, Tensor) and not targets.dim():
            raise ValueError("targets: expected one for each sample, but got a scalar; keep the batch dimension")
        samples = len(targets)
        losses = self._criterion[0](outputs, targets)
        if not isinstance(losses, Tensor):
            raise TypeError(f"criterion: expected a tensor of losses, but got {type(losses).__name__}; return a tensor")
        losses = losses.detach()
        if losses.dim() > 0 and len(losses) != samples:
            raise ValueError(
                f"criterion: expected one loss for each of the {samples} samples, or their mean, but got shape "
                f"{tuple(losses.shape)}"
            )
        start = int(self.count)
        self.total += losses.to(self.total).mean() * samples
        self.count += samples
        of_samples = self._of_samples(losses, outputs, targets)
        if of_samples is not None:
            of_samples = of_samples.to(self.total.device, self.dtype)
            self.samples.append(of_samples)
            self.positions.append(positions_from(positions, start, of_samples))
        if is_classification(outputs, targets):
            self.correct += (outputs.argmax(1) == targets).sum()
            self.classified += samples
            if self.by_class and of_samples is not None:
                self.labels.append(targets.to(of_samples))

    def _of_samples(self, losses: Tensor, outputs: Any, targets: Any) -> Tensor | None:
        """Each sample's loss; a criterion that returns means is asked for one sample at a time."""
        if losses.dim() > 0:
            return losses.flatten(1).mean(1) if losses.dim() > 1 else losses
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            return None
        criterion = self._criterion[0]
        return torch.stack([criterion(outputs[n : n + 1], targets[n : n + 1]).detach() for n in range(len(targets))])

    def influence(self) -> Influence | None:
        """Returns l_n/mean − 1 for the samples' losses l_n, where they are known. Needs synced states."""
        if not len(self.samples):
            return None
        samples = dim_zero_cat(self.samples)
        return Influence(samples / samples.mean() - 1, dim_zero_cat(self.positions)) if samples.mean() else None

    def class_losses(self) -> dict[int, float]:
        """Returns the mean loss of each class that has samples; nothing for a regression. Needs synced states."""
        if not len(self.labels):
            return {}
        labels, losses = dim_zero_cat(self.labels), dim_zero_cat(self.samples)
        return {int(label): float(losses[labels == label].double().mean()) for label in labels.unique()}

    def value(self) -> float | None:
        """Returns the mean loss. Needs synced states."""
        return float(self.total / self.count)  # compute() would sync once more

    def standard_error(self) -> float | None:
        """Returns the standard error of the mean loss, if the losses of samples are known. Needs synced states."""
        influence = self.influence()
        value = self.value()
        return None if influence is None or value is None else relative_standard_error([influence]) * abs(value)

    def wrong(self) -> float | None:
        """Returns the number of wrong predictions; None for a regression. Needs synced states."""
        return float(self.classified - self.correct) if bool(self.classified) else None

    def accuracy_standard_error(self) -> float | None:
        """Returns the standard error of the accuracy; None for a regression. Needs synced states."""
        accuracy = self.accuracy()
        return None if accuracy is None else math.sqrt(float(accuracy * (1 - accuracy) / self.classified))

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots a value, or several as a curve, as torchmetrics does; see :meth:`torchmetrics.Metric.plot`."""
        return self._plot(val, ax)

    def compute(self) -> Tensor:
        """Returns the mean loss."""
        return self.total / self.count

    def accuracy(self) -> Tensor | None:
        """Returns the share of samples whose largest output is the target's, or None for a regression."""
        return self.correct / self.classified if bool(self.classified) else None


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of each sample, in nats, shape (N,)."""
    return F.cross_entropy(outputs, targets, reduction="none")


def is_classification(outputs: Any, targets: Any) -> bool:
    """Whether outputs (N, C) and targets (N,) are logits and class indices."""
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and outputs.dim() == 2
        and outputs.shape[1] > 1
        and targets.dim() == 1
        and not targets.is_floating_point()
    )

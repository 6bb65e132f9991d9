"""What the label-free estimators of classifiers have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lightning_tansens._peers.batch import Batch, checked_batch
from lightning_tansens.checks import check_tensor
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics.base import positions_from
from lightning_tansens.show.keys import Quantity

#: What an estimate needs of a set: sums, and numbers of its samples in the order of their positions.
Summary = Mapping[str, Tensor]


@dataclass(frozen=True)
class Estimate:
    """An estimate of the loss or the accuracy of a set.

    Attributes:
        value: The estimate.
        stderr: Its standard error over the draw of both sets' samples; None where it is not known.

    """

    value: float
    stderr: float | None = None


class Peer(Metric, ABC):
    """A published estimator of a classifier's accuracy or loss on a set without labels, from its outputs there.

    Each set has a metric of its own. ``update`` takes logits; labels are given for the reference alone. A target's
    :meth:`summary` and the reference's make an estimate; what labels have left in a target's is not handed on.

    To add an estimator, subclass this in a file of its own: add states in ``__init__`` (those of :meth:`_sum_state` and
    :meth:`_sample_state` are what :meth:`summary` returns), fill them in ``_add`` and read them in ``_estimates``.

    Attributes:
        key: The name of its estimates and of its score.
        estimates: Which quantities it estimates; nothing where its score only ranks sets or networks.
        needs_labels: Whether an estimate needs the labels of the reference.
        needs_features: Whether ``update`` needs the features.

    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False

    key: str
    estimates: ClassVar[tuple[Quantity, ...]] = ()
    needs_labels: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False

    count: Tensor
    unusable: Tensor
    labelled: Tensor
    correct: Tensor
    positions: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)  # a process without samples syncs numbers of this type
        self._of_samples: list[str] = []
        self._of_labels: list[str] = []
        self._sum_state("count")
        self._sum_state("unusable")
        self._sum_state("labelled", labels=True)
        self._sum_state("correct", labels=True)

    def prepare(self, outputs: Any, features: Any = None) -> None:
        """Adds the states whose shape depends on the network; every process calls it before the first update.

        Args:
            outputs: The outputs for a batch of at least one sample, shape (N, C); their values do not matter.
            features: Its features, shape (N, F), or None.

        """
        self._prepare(checked_batch(outputs, None, features, self.device))

    def update(
        self,
        outputs: Tensor,
        targets: Tensor | None = None,
        features: Tensor | None = None,
        positions: Sequence[int] | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            outputs: Logits, shape (N, C) with C >= 2.
            targets: Class indices, shape (N,), of the reference; None for any other set.
            features: The input of the network's last layer, shape (N, F); None where it is not known.
            positions: The samples' positions in their set; None continues where the last batch ended.

        Raises:
            ValueError: If the outputs are no logits of two or more classes, the targets no class indices of theirs, the
                features missing where they are needed, or shapes are not those of the batches before.

        """
        batch = checked_batch(outputs, targets, features, self.device)
        self._prepare(batch)
        if self._of_samples:
            self.positions.append(positions_from(positions, int(self.count), batch.confidences))
        self._add(batch)
        self.count += len(batch)
        self.unusable += batch.unusable.sum()
        if batch.labels is not None:
            self.labelled += len(batch)
            self.correct += batch.correct(batch.labels).sum()

    @abstractmethod
    def _add(self, batch: Batch) -> None:
        """Adds a batch to the estimator's own states."""

    def _prepare(self, batch: Batch) -> None:
        """Learns shapes from a batch."""

    def summary(self) -> dict[str, Tensor]:
        """Returns what an estimate needs of this set: sums, and numbers of samples by position. Needs synced states."""
        of_samples = {"positions", *self._of_samples} if self._of_samples else set()
        summary = {name: getattr(self, name).clone() for name in self._defaults if name not in of_samples}
        if self._of_samples:
            order = self._joined("positions").argsort(stable=True)
            for name in self._of_samples:
                numbers = self._joined(name)
                # numbers of labels may be missing, which an estimate that needs them refuses
                known = len(numbers) and len(numbers) % len(order) == 0
                summary[name] = numbers.reshape(len(order), -1)[order].squeeze(1) if known else numbers
        return summary

    def _joined(self, name: str) -> Tensor:
        state = getattr(self, name)
        return dim_zero_cat(state) if len(state) else torch.zeros(0, dtype=torch.float64, device=self.device)

    @abstractmethod
    def score(self) -> Tensor:
        """Returns the main score of this set, a scalar. Needs synced states."""

    def scores(self) -> dict[str, Tensor]:
        """Returns the scalars to log of this set, by name; nothing where they are another one's. Needs synced states."""
        return {}

    def estimate(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        """Estimates loss or accuracy of a set without labels.

        Args:
            target: :meth:`summary` of that set.
            reference: :meth:`summary` of a labelled set.

        Returns:
            An estimate of each quantity in :attr:`estimates`.

        Raises:
            UndefinedEstimateError: If the summaries define none; the message says why.

        """
        for name, summary in (("target", target), ("reference", reference)):
            count, unusable = int(summary["count"]), int(summary["unusable"])
            if not count:
                raise UndefinedEstimateError(f"expected samples in the {name} set, but it is empty")
            if unusable:
                raise UndefinedEstimateError(
                    f"expected finite outputs, but {unusable} of the {name} set's {count} samples have none"
                )
        labelled, count = int(reference["labelled"]), int(reference["count"])
        if self.needs_labels and labelled != count:
            raise UndefinedEstimateError(f"expected labels for the reference's {count} samples, but got {labelled}")
        unlabelled = {name: value for name, value in target.items() if name not in self._of_labels}
        estimates = self._estimates(unlabelled, reference)
        for quantity, estimate in estimates.items():
            if not math.isfinite(estimate.value):
                raise UndefinedEstimateError(f"expected a finite {quantity}, but the estimate is {estimate.value}")
        return estimates

    def _estimates(self, target: Summary, reference: Summary) -> dict[Quantity, Estimate]:
        """Estimates from summaries that have samples, and the labels that are needed."""
        return {}

    def compute(self) -> Tensor:
        """Returns the main score, a scalar; under DDP over the samples of all processes."""
        return self.score()

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots a score as a point or a sequence of scores as a curve, in torchmetrics' convention.

        Args:
            val: What ``compute`` or ``scores`` returned, or a list of it; None takes the score now.
            ax: A matplotlib axis to draw on; None for one of a new figure.

        Returns:
            The figure and the axis.

        Raises:
            TypeError: If ``val`` is none of these.
            ValueError: If it is an empty sequence.

        """
        from lightning_tansens.show.figures.labels import value_label  # matplotlib is optional
        from lightning_tansens.show.figures.measures import plot_values

        return plot_values(self, val, value_label(self.key), ax)

    def _sum_state(self, name: str, *shape: int, labels: bool = False) -> None:
        """Adds a state that sums up in double precision; ``labels`` says that it is made of labels."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        if labels and name not in self._of_labels:
            self._of_labels.append(name)

    def _shaped_state(self, name: str, *shape: int, labels: bool = False) -> None:
        """Gives a sum its shape, once the first batch has told it.

        Raises:
            ValueError: If it has another one already.

        """
        state = getattr(self, name)
        check_tensor(name, state)
        if not state.dim():
            device = self.device
            self._sum_state(name, *shape, labels=labels)
            setattr(self, name, getattr(self, name).to(device))
        elif state.shape != shape:
            raise ValueError(
                f"outputs: expected as many classes and features as before, so that {name} has shape {tuple(state.shape)}, "
                f"but got {shape}; take a new {type(self).__name__} for another network"
            )

    def _sample_state(self, name: str, labels: bool = False) -> None:
        """Adds numbers of each sample, flat, in the order in which they come; :meth:`summary` sorts them."""
        if not self._of_samples:
            self.add_state("positions", [], dist_reduce_fx="cat")
        self.add_state(name, [], dist_reduce_fx="cat")
        self._of_samples.append(name)
        if labels:
            self._of_labels.append(name)

"""Loss and accuracy on a set that has labels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.checks import check_callable, positions_from
from lightning_tansens.metrics.criteria import Criterion, TorchLoss, look_like_class_scores
from lightning_tansens.metrics.states import StatefulMetric
from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error
from lightning_tansens.metrics.whole_set import WholeSet


class LabelledLoss(StatefulMetric):
    r"""The loss of a set, which does not depend on its batches, and the accuracy where outputs are class scores.

    .. math:: \hat l = \frac{\sum_n a_n}{\sum_n b_n}

    over the samples: a is the sum of a sample's losses (over pixels, words or outputs), b their number, or the sum of their
    class weights; ignored targets count in neither. A loss of PyTorch's (a module, a function or a ``functools.partial``) is
    asked for these with its own settings; ``reduction="sum"`` gives the sum over the set. A callable that returns a loss for
    each sample gives the mean, and one that returns a number is called on the outputs and targets of all samples, as long as
    these are at most 2^24 numbers in each process; beyond that the means of batches are averaged (:meth:`note` says so).

    As input to ``update``: outputs of shape (N, ...) and targets of shape (N, ...). As output of ``compute``: the loss, in
    units of the criterion.

    Args:
        criterion: A callable on (outputs, targets) that returns a loss for each sample, or one for all; None for
            cross-entropy.
        by_class: Whether to keep the labels, for :meth:`class_losses`.
        class_scores: Whether outputs are class scores: logits (N, C), or the single logit, (N,) or (N, 1), of the second of
            two classes; None if they are wherever they have shape (N, C) with integer targets of shape (N,).
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> loss = LabelledLoss()
        >>> loss.update(torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1, -100]))
        >>> loss.accuracy(), round(loss.value(), 3)
        (tensor(0.5000, dtype=torch.float64), 4.5)
    """

    total: Tensor
    count: Tensor
    correct: Tensor
    classified: Tensor
    dropped: Tensor
    unusable: Tensor
    kept: list[Tensor]

    def __init__(
        self, criterion: Criterion | None = None, by_class: bool = False, class_scores: bool | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_callable("criterion", criterion)
        self._own = criterion is not None
        # a module is kept in a tuple, so that it does not become a part of the metric's own module tree
        self._criterion = (F.cross_entropy if criterion is None else criterion,)
        self._known = (TorchLoss.of(self._criterion[0]),)
        self.by_class = by_class
        self.class_scores = class_scores
        #: The form of outputs and targets, for a criterion that returns one number for all; None for any other.
        self._whole: WholeSet | None = None
        for name in ("total", "count", "correct", "classified", "dropped", "unusable"):
            self._sum_state(name)
        for name in ("samples", "sizes", "kept"):
            self._sample_state(name)
        for name in ("labels", "positions"):
            self._sample_state(name, torch.int64)

    # ------------------------------------------------------------------------------------------ accumulation

    def prepare(self, outputs: Any, targets: Any) -> None:
        """Learns the form of outputs and targets; every process calls it before the first update.

        It raises as :meth:`update` does.
        """
        with torch.no_grad():
            self._terms(outputs, targets)

    def update(self, outputs: Any, targets: Any, positions: Sequence[int] | None = None) -> None:
        """Adds a batch.

        Raises:
            TypeError: If the criterion returns no tensor.
            ValueError: If it returns neither one loss nor one for each sample, or outputs and targets do not fit.
        """
        if isinstance(targets, Tensor) and not targets.dim():
            raise ValueError("targets: expected one for each sample, but got a scalar; keep the batch dimension")
        samples = _samples(outputs, targets)
        a, b = self._terms(outputs, targets)
        self.total += a.sum().to(self.total)
        self.count += b.sum().to(self.total)
        start = len(self._joined("positions"))
        self._append("positions", torch.tensor(positions_from("positions", positions, samples, start)))
        if self._whole is None:
            self._append("samples", a)
            self._append("sizes", b)
        else:
            self._append("samples", self._one_by_one(outputs, targets, samples))
            self._append("sizes", torch.ones(samples))
            self._keep(outputs, targets)
        found = self._classified(outputs, targets)
        if found is not None:
            labels, right = found
            self.correct += right.sum()
            self.classified += (labels >= 0).sum()
            if self.by_class:
                self._append("labels", labels)

    def update_finite(self, outputs: Any, targets: Any, positions: Sequence[int]) -> None:
        """Adds a batch without the samples whose outputs or targets are not finite; ``unusable`` counts these.

        It raises as :meth:`update` does.
        """
        if isinstance(outputs, Tensor) and isinstance(targets, Tensor) and len(outputs) == len(positions) == len(targets):
            rows = outputs.reshape(len(outputs), -1)
            finite = ~(rows.isnan() | (rows == math.inf)).any(1)  # a class may be masked by a score of -inf
            if targets.is_floating_point():
                finite &= targets.reshape(len(targets), -1).isfinite().all(1)
            self.unusable += (~finite).sum()
            places = finite.nonzero().flatten().tolist()
            if not places:
                return
            if len(places) < len(positions):
                outputs, targets, positions = outputs[finite], targets[finite], [positions[place] for place in places]
        self.update(outputs, targets, positions)

    def _terms(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Returns a and b of each sample, or of the batch for a criterion that returns one number."""
        known, samples = self._known[0], _samples(outputs, targets)
        if known is not None:
            a, b = known.terms(outputs, targets)
            return a.detach(), b.detach()
        losses = self._criterion[0](outputs, targets)
        if not isinstance(losses, Tensor):
            raise TypeError(f"criterion: expected a tensor of losses, but got {type(losses).__name__}; return a tensor")
        losses = losses.detach().to(torch.promote_types(losses.dtype, torch.float32))
        if losses.dim() == 0:
            if self._whole is None:
                self._whole = WholeSet((outputs, targets), samples)
            weight = torch.tensor(float(samples), dtype=losses.dtype, device=losses.device)
            return losses * weight, weight
        if len(losses) != samples:
            raise ValueError(
                f"criterion: expected one loss for each of the {samples} samples, or their mean, but got shape "
                f"{tuple(losses.shape)}"
            )
        rows = losses.reshape(samples, -1)
        return rows.sum(1), torch.full_like(rows[:, 0], rows.shape[1]) if samples else rows.sum(1)

    def _one_by_one(self, outputs: Any, targets: Any, samples: int) -> Tensor:
        """Each sample's loss, nan where the criterion has none for a sample alone."""
        found = torch.full((samples,), math.nan)
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            return found
        for n in range(samples):
            try:
                found[n] = float(self._criterion[0](outputs[n : n + 1], targets[n : n + 1]))
            except Exception:  # a criterion that compares samples may refuse to take one
                return torch.full((samples,), math.nan)
        return found

    def _keep(self, outputs: Any, targets: Any) -> None:
        assert self._whole is not None
        rows = self._whole.pack((outputs, targets), self.device)
        if rows is None or bool(self.dropped) or sum(map(len, self.kept)) + rows.numel() > WholeSet.NUMBERS:
            self.dropped += 1
            self.kept = [self.kept[0][:0]]
        else:
            self._append("kept", rows)

    def counted(self, outputs: Any, targets: Any) -> Tensor | None:
        """Returns which samples have a label that counts, booleans of shape (N,); None for no classifier."""
        found = self._classified(outputs, targets)
        return None if found is None else found[0] >= 0

    def _classified(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor] | None:
        """Returns the labels, -1 for those that do not count, and which predictions are right; None for no classifier."""
        if self.class_scores is False or not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            return None
        single = bool(self.class_scores) and (outputs.dim() == 1 or outputs.shape[1:] == (1,))
        if not single and not look_like_class_scores(outputs, targets):
            return None
        predicted = (outputs.reshape(-1) > 0).long() if single else outputs.argmax(1)
        labels = targets.detach().reshape(-1)
        known = self._known[0]
        counts = (labels >= 0) & (labels < (2 if single else outputs.shape[1]))
        counts = counts if known is None else counts & known.valid(labels)
        labels = torch.where(counts, labels, -torch.ones_like(labels)).long()
        return labels, predicted == labels

    # ----------------------------------------------------------------------------------------------- results

    def value(self) -> float | None:
        """Returns the loss; None without a sample that counts. Needs synced states."""
        if not bool(self.count):
            return None
        if self._known[0] is not None and self._known[0].reduction == "sum":
            return float(self.total)
        on_all = None
        if self._whole is not None and not bool(self.dropped):  # it wants all outputs and targets, and they are kept
            order = self._joined("positions").argsort(stable=True)
            on_all = self._whole.value(self._criterion[0], self._joined("kept"), order)
        return float(self.total / self.count) if on_all is None else on_all

    def influence(self) -> Influence | None:
        """Returns a_n/mean(a) − b_n/mean(b), how far each sample moves the loss, where it is known. Needs synced states.

        For a criterion on all samples it is l_n/mean(l) − 1 if the samples' own losses l_n average to the loss l, else the
        jackknife's (N−1)(1 − l₋ₙ/l), with the loss l₋ₙ of all samples but n.
        """
        a, b = self._joined("samples"), self._joined("sizes")
        positions, known = self._joined("positions"), self._known[0]
        value = self.value()
        if value is None or not value or not math.isfinite(value) or int((b != 0).sum()) < 2:
            return None
        if known is not None and known.reduction == "sum":
            return Influence(a / a.mean() - 1, positions)
        if self._whole is None or math.isclose(float(a.mean()), value, rel_tol=1e-4):
            return Influence(a / a.mean() - b / b.mean(), positions)
        without = None if bool(self.dropped) else self._whole.without_each(self._criterion[0], self._joined("kept"), len(a))
        return None if without is None else Influence((len(a) - 1) * (1 - without / value), positions)

    def standard_error(self) -> float | None:
        """Returns the loss's standard error over the draw of the samples, if it is known. Needs synced states."""
        influence, value = self.influence(), self.value()
        if influence is None or value is None:
            return None
        error = relative_standard_error([influence]) * abs(value)
        return error if math.isfinite(error) else None

    def note(self) -> str | None:
        """Says what a user should know about how the loss is computed; None for nothing."""
        known = self._known[0]
        if known is not None and known.reduction == "sum":
            return f"{known.name} sums over samples, so that losses grow with their sets; reduction='mean' can be compared"
        if bool(self.dropped):
            return "outputs and targets are too large to call the criterion on all of them, so means of batches are averaged"
        return None

    def class_losses(self) -> dict[int, float]:
        """Returns the loss of each class that has samples; nothing for a regression. Needs synced states."""
        labels, a, b = self._joined("labels"), self._joined("samples"), self._joined("sizes")
        if len(labels) != len(a):
            return {}
        chosen = (labels == int(label) for label in labels.unique() if label >= 0)
        losses = {int(labels[rows][0]): float(a[rows].sum() / b[rows].sum()) for rows in chosen}
        return {label: loss for label, loss in losses.items() if math.isfinite(loss)}

    def wrong(self) -> float | None:
        """Returns the number of wrong predictions; None for a regression. Needs synced states."""
        return float(self.classified - self.correct) if bool(self.classified) else None

    def accuracy_standard_error(self) -> float | None:
        """Returns the standard error of the accuracy; None for a regression. Needs synced states."""
        accuracy = self.accuracy()
        return None if accuracy is None else math.sqrt(float(accuracy * (1 - accuracy) / self.classified))

    def compute(self) -> Tensor:
        """Returns the loss; nan without a sample that counts."""
        value = self.value()
        return torch.tensor(math.nan if value is None else value, dtype=torch.float64, device=self.device)

    def accuracy(self) -> Tensor | None:
        """Returns the share of samples whose prediction is the label, of those that count; None for a regression."""
        return self.correct / self.classified if bool(self.classified) else None


def _samples(outputs: Any, targets: Any) -> int:
    """The number of samples: a list of targets may hold several tensors of all samples, as of two annotators."""
    return len(outputs if isinstance(outputs, Tensor) and not isinstance(targets, Tensor) else targets)

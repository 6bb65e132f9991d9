"""The loss, by today's loss on what the network said earlier."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_tansens.checks import check_callable, check_choice
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimates, Estimator, Need, SetSummary
from lightning_tansens.estimators.disagreement import earlier_predictions, first_used
from lightning_tansens.estimators.outputs import Array, Outputs
from lightning_tansens.estimators.spread import scaled

#: What stands for targets: earlier outputs themselves ("outputs"), the largest of their scores along the second dimension
#: ("classes", as for a segmentation), or whether each is positive ("signs", as for independent labels).
PseudoLabels = Literal["outputs", "classes", "signs"]


class PseudoLabelLoss(Estimator):
    r"""Scales the reference's loss by the ratio of the losses on pseudo-labels, which earlier measurements gave.

    .. math:: \hat l(X_{te}) = l_{ref} \, \frac{\ell(X_{te})}{\ell(X_{ref})}, \qquad
              \ell(X) = \frac1{NS} \sum_{n,s} \mathrm{criterion}\big(f_t(x_n), \hat y_s(x_n)\big)

    over the earlier measurements s without the first tenth, with their predicted classes ŷ_s and the cross-entropy for class
    scores. It needs no classes: with a regression ŷ_s are earlier outputs. The standard error is by the delta method; with
    a criterion other than the cross-entropy it holds the reference's loss fixed.

    Args:
        criterion: A callable on (outputs, targets) that returns a loss for each sample, or their mean; None for the
            cross-entropy of class scores.
        pseudo_labels: "outputs", "classes" or "signs"; not used with the cross-entropy of class scores.

    Raises:
        TypeError: If the criterion cannot be called.
        ValueError: If the pseudo-labels are none of these.

    Example:
        >>> from lightning_tansens.estimators import Trajectory
        >>> def summary(name, before, now, **labels):
        ...     earlier = Trajectory().updated(Outputs.of(before))
        ...     return SetSummary(name, outputs=Outputs.of(now, earlier=earlier), **labels)
        >>> target, reference = summary("test", [0.0, 0.0], [2.0, 2.0]), summary("val", [1.0, 1.0], [2.0, 2.0], loss=0.3)
        >>> estimator = PseudoLabelLoss(torch.nn.functional.mse_loss)
        >>> round(estimator.estimate(target, reference)["loss"].value, 6)  # it has moved twice as far, squared
        1.2
    """

    key = "pseudo_label_loss"
    quantities = ("loss",)

    def __init__(self, criterion: Callable[[Any, Any], Any] | None = None, pseudo_labels: PseudoLabels = "outputs") -> None:
        check_callable("criterion", criterion)
        check_choice("pseudo_labels", pseudo_labels, get_args(PseudoLabels))
        self.criterion, self.pseudo_labels = criterion, pseudo_labels
        self.needs = frozenset({Need.CLASSES if criterion is None else Need.OUTPUTS, Need.EARLIER})

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        own = reference.usable
        labelled = own.is_classifier and own.labels is not None
        loss = float(own.losses.mean()) if reference.loss is None and labelled else reference.loss
        if loss is None:
            raise UndefinedEstimateError(f"expected a loss of the {reference.name} set, but it has none")
        on_target, on_reference = self.losses(target.usable), self.losses(own)
        if not on_reference.mean() > 0:
            raise UndefinedEstimateError(
                f"expected a positive mean loss on earlier predictions of the reference, but it is {on_reference.mean()}"
            )
        paired = own.losses if labelled and self.criterion is None else np.ones(len(own))
        return {"loss": scaled(loss, on_target, on_reference, paired)}

    def losses(self, outputs: Outputs) -> Array:
        """Returns each sample's mean loss on the earlier measurements' pseudo-labels, shape (N,)."""
        past = outputs.past
        if outputs.is_classifier:
            earlier = earlier_predictions(outputs)
            if self.criterion is None:
                losses = -np.take_along_axis(outputs.log_probabilities, np.maximum(earlier, 0).T.astype(np.int64), 1)
                return np.asarray((losses * (earlier >= 0).T).sum(1) / np.maximum((earlier >= 0).sum(0), 1))
            return self._by_criterion(outputs, earlier.astype(np.int64), earlier >= 0)
        if self.criterion is None:
            raise UndefinedEstimateError("expected a criterion for outputs that are no class scores, but got None; pass it")
        assert past.outputs is not None
        kept = past.outputs[first_used(len(past.outputs)) :]
        known = np.asarray(~np.isnan(kept).reshape(*kept.shape[:2], -1).any(2))
        labels = np.nan_to_num(kept)
        if self.pseudo_labels == "classes":
            return self._by_criterion(outputs, labels.argmax(2), known)
        labels = (labels > 0).astype(np.float32) if self.pseudo_labels == "signs" else labels
        return self._by_criterion(outputs, labels, known)

    def _by_criterion(self, outputs: Outputs, labels: NDArray[Any], known: NDArray[np.bool_]) -> Array:
        assert self.criterion is not None
        now = torch.from_numpy(outputs.outputs.astype(np.float32))
        rows = [_losses(self.criterion, now, torch.from_numpy(np.ascontiguousarray(row))) for row in labels]
        return np.asarray((np.stack(rows) * known).sum(0) / np.maximum(known.sum(0), 1))


def _losses(criterion: Callable[[Any, Any], Any], outputs: Tensor, targets: Tensor) -> Array:
    with torch.no_grad():
        losses = criterion(outputs, targets)
        if losses.dim() == 0 or len(losses) != len(outputs):  # a mean: one sample at a time
            losses = torch.stack([criterion(outputs[n : n + 1], targets[n : n + 1]) for n in range(len(outputs))])
    return np.asarray(losses.double().flatten(1).mean(1) if losses.dim() > 1 else losses.double())

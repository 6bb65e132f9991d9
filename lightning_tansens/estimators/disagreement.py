"""The error rate, by how often earlier predictions differ from today's."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, Need, SetSummary
from lightning_tansens.estimators.outputs import Array, Outputs
from lightning_tansens.estimators.spread import scaled

#: The share of the earlier measurements that is left out at the start: a network that has hardly learnt says little.
LEFT_OUT = 0.1


class DisagreementRatio(Estimator):
    r"""Scales the reference's error rate by the ratio of the disagreements with earlier predictions.

    .. math:: \widehat{err}(X_{te}) = err_{ref} \, \frac{d(X_{te})}{d(X_{ref})}, \qquad
              d(X) = \frac1{NS} \sum_{n,s} [\hat y_s(x_n) \ne \hat y_t(x_n)]

    over the earlier measurements s without the first tenth. (The disagreement of independently trained networks is their
    test error: Jiang et al., ICLR 2022; here the networks are those of one run, and the reference tells the ratio.) The
    standard error is by the delta method.

    Example:
        >>> from lightning_tansens.estimators import Trajectory
        >>> first, second = [3.0, 0.0], [0.0, 3.0]
        >>> earlier = Trajectory().updated(Outputs.of([first] * 4))
        >>> reference = SetSummary("val", outputs=Outputs.of([first, first, first, second], [0, 0, 0, 0], earlier=earlier))
        >>> target = SetSummary("test", outputs=Outputs.of([first, first, second, second], earlier=earlier))
        >>> DisagreementRatio().estimate(target, reference)["accuracy"].value  # twice as many
        0.5

    """

    key = "disagreement"
    quantities = ("accuracy",)
    needs = frozenset({Need.CLASSES, Need.EARLIER})

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled = reference.labelled
        on_target, on_reference = disagreements(target.class_scores), disagreements(labelled)
        if not on_reference.any():
            raise UndefinedEstimateError("expected predictions of the reference that have changed, but none has")
        errors = 1 - labelled.correct
        found = scaled(float(errors.mean()), on_target, on_reference, errors)
        return {"accuracy": Estimate(1 - found.value, found.stderr)}


def disagreements(outputs: Outputs) -> Array:
    """Returns the share of the earlier predictions that differ from today's, for each sample, shape (N,)."""
    earlier = earlier_predictions(outputs)
    known = earlier >= 0
    return np.asarray(((earlier != outputs.predictions) & known).sum(0) / np.maximum(known.sum(0), 1))


def earlier_predictions(outputs: Outputs) -> NDArray[np.integer]:
    """Returns the classes predicted at earlier measurements without the first tenth, shape (S, N); -1 where unknown."""
    predictions = outputs.past.predictions
    if predictions is None:
        raise UndefinedEstimateError("expected earlier predictions of classes, but the outputs are no class scores")
    return predictions[first_used(len(predictions)) :]


def first_used(snapshots: int) -> int:
    """Returns the index of the first one that is used of so many earlier measurements."""
    return math.ceil(LEFT_OUT * snapshots) if snapshots > 1 else 0

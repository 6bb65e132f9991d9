"""Estimates of the accuracy by how often the networks of a run agree."""

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lightning_tansens.checks import check_choice
from lightning_tansens.errors import TooEarlyError, UndefinedEstimateError
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, Need, SetSummary
from lightning_tansens.estimators.outputs import Array, Outputs
from lightning_tansens.estimators.spread import scaled

#: The share of the earlier measurements that is left out at the start: a network that has hardly learnt says little.
LEFT_OUT = 0.1

#: How accuracies follow from the line: each by itself ("S") or together, from all pairs ("D").
Form = Literal["S", "D"]


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


class AgreementOnTheLine(Estimator):
    r"""Estimates the accuracy from the line of agreements (Baek et al., NeurIPS 2022).

    Over all pairs of today's and earlier networks i, j (without the first tenth of the run), the probits of their agreements
    lie near a line, and so do those of the accuracies:

    .. math:: \Phi^{-1}(agr_{te}^{ij}) \approx a \, \Phi^{-1}(agr_{ref}^{ij}) + b

    Form "S" puts today's accuracy on that line. Form "D" solves, in the least squares over all pairs,

    .. math:: \tfrac12 (u_i + u_j) = \Phi^{-1}(agr_{te}^{ij})
              + a \big(\tfrac12 (v_i + v_j) - \Phi^{-1}(agr_{ref}^{ij})\big)

    for the probits u of the accuracies on the target, with those on the reference v. Shares of 0 and 1 are moved inside by
    half a sample. The standard error is not known, because the networks of one run are not independent. It needs two
    earlier measurements.

    Args:
        form: "S" or "D"; the key is ``agreement_line_s`` or ``agreement_line_d``.

    Raises:
        ValueError: If the form is neither.

    Example:
        >>> AgreementOnTheLine("D").key
        'agreement_line_d'
    """

    quantities = ("accuracy",)
    needs = frozenset({Need.CLASSES, Need.EARLIER})

    def __init__(self, form: Form = "D") -> None:
        check_choice("form", form, get_args(Form))
        self.form: Form = form
        self.key = f"agreement_line_{form.lower()}"

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled = reference.labelled
        (seen, known_samples), (of_target, _) = _predictions(labelled), _predictions(target.class_scores)
        networks = len(seen)
        if networks < 3 or len(of_target) != networks:
            raise TooEarlyError(
                f"expected earlier measurements of the same samples, two or more of both sets, but there are {networks - 1}"
            )
        first, second = np.triu_indices(networks, 1)
        known = labelled.once("agreements", lambda: _agreements(seen))
        unknown = target.class_scores.once("agreements", lambda: _agreements(of_target))
        slope, level = _line(known, unknown)
        accuracies = _probits((seen == labelled.known_labels[known_samples]).mean(1), seen.shape[1])
        if self.form == "S":
            probit = slope * accuracies[-1] + level
        else:
            sums = unknown + slope * ((accuracies[first] + accuracies[second]) / 2 - known)
            # the normal equations of (u_i + u_j) / 2 = sums, for all pairs of K networks: ((K - 2) I + 1 1^T) u = 2 g
            totals = np.bincount(first, sums, networks) + np.bincount(second, sums, networks)
            probit = 2 * (totals[-1] - totals.sum() / (2 * networks - 2)) / (networks - 2)
        return {"accuracy": Estimate(float(ndtr(probit)))}


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


def _predictions(outputs: Outputs) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
    """Returns the predictions of all networks on the samples whose outputs were always finite, and which these are."""
    predictions = np.concatenate([earlier_predictions(outputs), outputs.predictions[None]])
    known = np.asarray((predictions >= 0).all(0))
    if not known.any():
        raise UndefinedEstimateError("expected samples with finite outputs at all measurements, but there is none")
    return predictions[:, known], known


def _agreements(predictions: NDArray[np.integer]) -> Array:
    """Returns the probits of the agreements of all pairs, shape (K (K - 1) / 2,)."""
    shares = [(predictions[k] == predictions[k + 1 :]).mean(1) for k in range(len(predictions) - 1)]
    return _probits(np.concatenate(shares), predictions.shape[1])


def _probits(shares: Array, samples: int) -> Array:
    return np.asarray(ndtri(np.clip(shares, 0.5 / samples, 1 - 0.5 / samples)))


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Returns the slope and the level of the least squares; a slope of one where all x are alike."""
    spread = float(np.square(x - x.mean()).sum())
    slope = float((x - x.mean()) @ (y - y.mean())) / spread if spread > 1e-12 else 1.0
    return slope, float(y.mean() - slope * x.mean())

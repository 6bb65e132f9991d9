"""The cost of moving a target's probabilities to the reference's labels."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lightning_tansens.checks import check_choice
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimator, Need
from lightning_tansens.estimators.outputs import Outputs
from lightning_tansens.estimators.spread import error_of_mean, root_of_squares, scaled
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate, Quantity

#: Whose probabilities are moved: today's, or those of the temporal ensemble.
Probabilities = Literal["now", "ensemble"]

#: The most samples of one transport, whose time grows with their cube; a larger set is cut into parts.
BLOCK = 256

#: Both sets are cut into so many to see how the cost spreads.
CUTS = 4

#: The last plans, by a digest of what they move; each has a number for each of at most BLOCK samples.
_PLANS: dict[bytes, NDArray[np.int64]] = {}
_KEPT_PLANS = 1024

#: With fewer samples nothing is known of error and bias.
FEWEST = 64

#: With fewer samples a class there is no estimate, or none whose error is known.
LEAST, ENOUGH = 2, 5


class ConfidenceOptimalTransport(Estimator):
    r"""Estimates the error rate by an optimal transport from probabilities to labels (COT; Lu et al., NeurIPS 2023).

    .. math:: \widehat{err}(X_{te}) = \min_{T \ge 0} \sum_{n,c} T_{nc} \, (1 - p_c(x_n)) + \overline{conf}_{ref} - acc_{ref},
              \qquad \sum_c T_{nc} = \tfrac1N, \quad \sum_n T_{nc} = m_c

    with the share m_c of class c among the reference's labels; 1 − p_c is half the L1 distance from p to the one-hot
    vector of c. The difference of confidence and accuracy on the reference stands for the calibration of the probabilities
    that the paper does first. With "ensemble" p is what the temporal ensemble gives. It assumes that the classes have the
    same shares in both sets; the estimate is clamped to [0, 1].

    The cost is a mean over parts of at most 256 target samples, so that the time grows with N and not with N³ (about 2 ms
    for 256). The mean of the parts is at least the whole set's cost, which few samples raise because their class shares are
    noisy: with the excess e over the cost without any constraint on the shares, and the excess b of one half of the
    reference moved to the labels of the other, :math:`\sqrt{e^2 - b^2}` is taken for e (nothing if e < b). So where the
    excess is no larger than chance the estimate is that of the difference of confidences. On simulated calibrated
    predictions of 1,000 samples without shift, with 10 classes the accuracy by the exact transport is low by 0.011, and
    with the correction by 0.004; with 100 classes by 0.09 and by less than 0.002 (``tests/estimators/test_transport.py``).
    With fewer than five samples a class the error is not known, and with fewer than two there is no estimate. The standard
    error is from the spread over quarters of both sets, and of confidence minus accuracy on the reference.

    Args:
        probabilities: "now" (key ``cot``) or "ensemble" (key ``cot_ensemble``).

    Raises:
        ValueError: If the probabilities are neither.

    Example:
        >>> certain = np.log([[1.0, 1e-300], [1e-300, 1.0]] * 2)
        >>> reference = SetSummary("val", outputs=Outputs.of(certain, [0, 1, 0, 1]))  # right and sure
        >>> target = SetSummary("test", outputs=Outputs.of(np.log([[0.75, 0.25]] * 4)))  # two must be of class 1
        >>> round(ConfidenceOptimalTransport().estimate(target, reference)["accuracy"].value, 6)
        0.5

    """

    quantities = ("accuracy",)

    def __init__(self, probabilities: Probabilities = "now") -> None:
        check_choice("probabilities", probabilities, get_args(Probabilities))
        self.probabilities: Probabilities = probabilities
        self.key = "cot" if probabilities == "now" else "cot_ensemble"
        self.needs = _needs(probabilities)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Mapping[Quantity, Estimate]:
        labelled, outputs = _pair(target, reference)
        own, other = (_probabilities(found, labelled, self.probabilities) for found in (labelled, outputs))
        assert labelled.labels is not None
        cost, error = transport_mean(other, 1 - other, labelled.labels)
        if min(len(own), len(other)) >= FEWEST:
            free, by_chance = (
                float(1 - other.max(1).mean()),
                crossed(own, 1 - own, labelled.labels, len(other)) - 1 + own.max(1),
            )
            cost = free + np.sqrt(max((cost - free) ** 2 - by_chance.mean() ** 2, 0.0))
        gaps = own.max(1) - labelled.correct
        return {"accuracy": Estimate(float(1 - cost - gaps.mean()), root_of_squares(error, error_of_mean(gaps)))}


class TransportLoss(Estimator):
    r"""Scales the reference's loss by the ratio of the losses on the labels that an optimal transport assigns.

    .. math:: \hat l(X_{te}) = l_{ref} \, \frac{\ell(X_{te})}{\ell(X_{ref})}, \qquad
              \ell(X) = -\sum_{n,c} T_{nc} \log p_c(x_n)

    with the plan T of :class:`ConfidenceOptimalTransport`, from the temporal ensemble or from today's probabilities, and
    today's p. The reference is moved to its own labels, and each half of it to those of the other: the difference, scaled
    to the size of both sets by 1/√n, is what chance adds to the target's loss, and is added to the reference's too. Parts
    and limits are as there; the standard error has the target's part from quarters.

    Args:
        probabilities: "ensemble" (key ``transport_loss``) or "now" (key ``transport_loss_now``): whose give the plan.

    Raises:
        ValueError: If the probabilities are neither.

    Example:
        >>> TransportLoss().key
        'transport_loss'

    """

    quantities = ("loss",)

    def __init__(self, probabilities: Probabilities = "ensemble") -> None:
        check_choice("probabilities", probabilities, get_args(Probabilities))
        self.probabilities: Probabilities = probabilities
        self.key = "transport_loss" if probabilities == "ensemble" else "transport_loss_now"
        self.needs = _needs(probabilities)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Mapping[Quantity, Estimate]:
        labelled, outputs = _pair(target, reference)
        own, other = (_probabilities(found, labelled, self.probabilities) for found in (labelled, outputs))
        assert labelled.labels is not None
        on_target, error = transport_mean(other, -outputs.log_probabilities, labelled.labels)
        costs, parts = -labelled.log_probabilities, -(-len(own) // BLOCK)
        on_reference = np.empty(len(own))
        for k in range(parts):
            (on_reference[k::parts],) = _parts(own[k::parts], costs[k::parts], labelled.labels[k::parts], 1)
        noise = np.sqrt((len(own) / min(len(other), BLOCK) + 1) / 4)  # of shares, over that of halves of the reference
        on_reference += noise * (crossed(own, costs, labelled.labels, len(other)) - on_reference)
        loss = float(labelled.losses.mean()) if reference.loss is None else reference.loss
        ratio = scaled(loss, np.full(2, max(on_target, 0.0)), on_reference, labelled.losses)
        relative = None if ratio.stderr is None or not ratio.value else ratio.stderr / ratio.value
        if relative is None or not on_target > 0:
            return {"loss": Estimate(ratio.value)}
        total = root_of_squares(relative, error / on_target)
        return {"loss": Estimate(ratio.value, None if total is None else total * ratio.value)}


def transport_cost(probabilities: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Solves the assignment problem of :class:`ConfidenceOptimalTransport` exactly, for shares of whole samples.

    Args:
        probabilities: p_c(x_n), shape (N, C).
        shares: m_c, shape (C,), with the sum 1; rounded to multiples of 1/N, which changes the cost by C/(2N) at most.

    Returns:
        The mean cost of a sample. The time grows with N³.

    Example:
        >>> transport_cost(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0.5, 0.5]))
        0.5

    """
    return float(_assign(probabilities, 1 - probabilities, shares).mean())


def transport_mean(
    probabilities: NDArray[np.float64], costs: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """Returns the mean cost of a transport to the labels of another set, and its standard error.

    Args:
        probabilities: Those that are moved, shape (N, C).
        costs: What a sample costs at each class, shape (N, C).
        labels: The labels whose shares are the classes', shape (M,).

    Returns:
        The mean, and its error; nan where there are too few samples.

    """
    parts, samples = -(-len(probabilities) // BLOCK), min(len(probabilities), len(labels))
    whole = float(np.mean(np.concatenate(_parts(probabilities, costs, labels, parts))))
    if samples < max(FEWEST, ENOUGH * probabilities.shape[1]):
        return whole, np.nan
    quarters = np.array(
        [[part.mean() for part in _parts(probabilities, costs, labels[k::CUTS], CUTS * parts)] for k in range(CUTS)]
    )
    return whole, float(np.hypot(error_of_mean(quarters.mean(0)), error_of_mean(quarters.mean(1))))


def crossed(
    probabilities: NDArray[np.float64], costs: NDArray[np.float64], labels: NDArray[np.int64], size: int
) -> NDArray[np.float64]:
    """Returns what each sample costs where one half of a set is moved to the labels of the other, shape (N,).

    Args:
        probabilities: Those that are moved, shape (N, C).
        costs: What a sample costs at each class, shape (N, C).
        labels: The same samples' labels, shape (N,).
        size: The most samples of a part; not more than BLOCK either way.

    """
    found = np.empty(len(probabilities))
    for half, other in ((0, 1), (1, 0)):
        own = probabilities[half::2]
        parts = -(-len(own) // min(size, BLOCK))
        for k, part in enumerate(_parts(own, costs[half::2], labels[other::2], parts)):
            found[half::2][k::parts] = part
    return found


def _parts(
    probabilities: NDArray[np.float64], costs: NDArray[np.float64], labels: NDArray[np.int64], parts: int
) -> list[NDArray[np.float64]]:
    """The assigned costs in disjoint parts of the samples, with the same labels for each."""
    shares = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    return [_assign(probabilities[k::parts], costs[k::parts], shares) for k in range(parts)]


def _assign(
    probabilities: NDArray[np.float64], costs: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    samples = len(probabilities)
    places = np.floor(shares * samples + 1e-9).astype(int)
    remainders = shares * samples - places
    places[np.argsort(-remainders, kind="stable")[: samples - places.sum()]] += 1
    classes = np.repeat(np.arange(len(places)), places)  # a column for each place
    return np.asarray(costs[np.arange(samples), classes[_plan(probabilities, classes)]])


def _plan(probabilities: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The column of each sample; estimators that move the same probabilities share it, as each takes milliseconds."""
    known = blake2b(np.ascontiguousarray(probabilities).tobytes() + classes.tobytes(), digest_size=16).digest()
    if known not in _PLANS:
        _PLANS[known] = linear_sum_assignment(1 - probabilities[:, classes])[1]
        if len(_PLANS) > _KEPT_PLANS:
            del _PLANS[next(iter(_PLANS))]
    return _PLANS[known]


def _pair(target: SetSummary, reference: SetSummary) -> tuple[Outputs, Outputs]:
    labelled, outputs = reference.labelled, target.classes
    if (samples := min(len(labelled), len(outputs))) < LEAST * labelled.classes:
        raise UndefinedEstimateError(
            f"expected {LEAST} samples or more for each of the {labelled.classes} classes, whose shares a transport "
            f"compares, but got {samples} in all; take more samples"
        )
    return labelled, outputs


def _probabilities(outputs: Outputs, labelled: Outputs, which: Probabilities) -> NDArray[np.float64]:
    return outputs.probabilities if which == "now" else outputs.tempered(labelled.temperature.value)


def _needs(which: Probabilities) -> frozenset[Need]:
    return frozenset({Need.CLASSES} if which == "now" else {Need.CLASSES, Need.EARLIER})

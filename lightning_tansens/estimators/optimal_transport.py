"""The cost of moving a target's probabilities to the reference's labels, and the accuracy that it says."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax

from lightning_tansens.checks import check_choice, check_numbers
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimator, Need
from lightning_tansens.estimators.outputs import Outputs
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate, Quantity

#: Whose probabilities are moved: today's, or those of the temporal ensemble.
Probabilities = Literal["now", "ensemble"]

#: The most samples of one transport, whose time grows with their cube; a larger set is cut into parts.
BLOCK = 512

#: The last plans, by a digest of what they move: a number for each of at most BLOCK samples.
_PLANS: dict[bytes, NDArray[np.int64]] = {}
_KEPT_PLANS = 256

#: The number of resamples of a bootstrap, and the seed that draws them.
RESAMPLES, SEED = 200, 0

#: With fewer samples nothing is known of error and bias.
FEWEST = 64

#: A temperature is no lower than this, at which probabilities are next to zero and one.
LEAST_TEMPERATURE = 1e-3

#: With fewer samples a class there is no estimate, or none whose error is known.
LEAST, ENOUGH = 2, 5


class ConfidenceOptimalTransport(Estimator):
    r"""Estimates the error rate by an optimal transport from probabilities to labels (COT; Lu et al., NeurIPS 2023).

    .. math:: \widehat{err}(X_{te}) = \min_{T \ge 0} \sum_{n,c} T_{nc} \, (1 - p_c(x_n)) + \overline{conf}_{ref} - acc_{ref},
              \qquad \sum_c T_{nc} = \tfrac1N, \quad \sum_n T_{nc} = m_c

    with the share m_c of class c among the reference's labels; 1 − p_c is half the L1 distance from p to the one-hot
    vector of c. As in the paper p is calibrated, by one temperature; what that leaves between confidence and accuracy on the
    reference is taken off. With "ensemble" p is what the temporal ensemble gives. It assumes that the classes have the
    same shares in both sets; the estimate is clamped to [0, 1].

    **Parts.** The cost is a mean over parts of at most 512 target samples, so that the time grows with N and not with N³.

    **Bias.** The cost is convex in the shares, so that their noise raises it. With the excess e over the cost without any
    constraint on the shares, and the excess b of each half of the reference moved to the labels of the other,
    :math:`\sqrt{e^2 - b^2}` is taken for e (nothing if e < b). So where the excess is no larger than chance the estimate
    is the difference of confidences. On simulated calibrated predictions of 1,000 samples without shift, the accuracy is
    low by 0.019 without the correction and by 0.004 with it for 10 classes, by 0.12 and less than 0.002 for 100.

    **Standard error.** A bootstrap of both sets' samples, in which each resample costs what the dual potentials say:
    :math:`\frac1N \sum_n u_n + \sum_c m_c v_c`, to first order what its own transport would, see :func:`dual_costs`. The
    correction is part of it. It is within a factor of 1.5 of the spread over draws (``tests/estimators/test_transport.py``).
    With fewer than five samples a class the error is not known, and with fewer than two there is no estimate.

    Args:
        probabilities: "now" (key ``cot``) or "ensemble" (key ``cot_ensemble``).
        temperature: Of the probabilities, softmax(log p / T); None to fit it to the reference's labels, 1 to leave them.

    Raises:
        ValueError: If the probabilities are neither, or the temperature is below 0.001.

    Example:
        >>> certain = np.log([[1.0, 1e-300], [1e-300, 1.0]] * 2)
        >>> reference = SetSummary("val", outputs=Outputs.of(certain, [0, 1, 0, 1]))  # right and sure
        >>> target = SetSummary("test", outputs=Outputs.of(np.log([[0.75, 0.25]] * 4)))  # two must be of class 1
        >>> round(ConfidenceOptimalTransport(temperature=1).estimate(target, reference)["accuracy"].value, 6)
        0.5

    """

    quantities = ("accuracy",)

    def __init__(self, probabilities: Probabilities = "now", temperature: float | None = None) -> None:
        check_choice("probabilities", probabilities, get_args(Probabilities))
        if temperature is not None:
            check_numbers(at_least=LEAST_TEMPERATURE, temperature=temperature)
        self.probabilities: Probabilities = probabilities
        self.temperature = temperature
        self.key = "cot" if probabilities == "now" else "cot_ensemble"
        self.needs = needs_of(probabilities)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Mapping[Quantity, Estimate]:
        labelled, outputs = labelled_pair(target, reference)
        own, other = calibrated(labelled, outputs, self.probabilities, self.temperature)
        labels = labelled.labels
        assert labels is not None
        parts = _assignments(other, labels, -(-len(other) // BLOCK))
        cost = float(np.concatenate([1 - _at(other[chosen], classes) for chosen, classes in parts]).mean())
        free, gaps = 1 - other.max(1), own.max(1) - labelled.correct
        samples, by_chance = min(len(own), len(other)), 0.0
        if samples >= FEWEST:
            by_chance = float((crossed(own, 1 - own, labels, len(other)) - 1 + own.max(1)).mean())
        value = _accuracy(float(free.mean()), cost - float(free.mean()), by_chance, float(gaps.mean()))
        if samples < max(FEWEST, ENOUGH * labelled.classes):
            return {"accuracy": Estimate(float(value))}
        rows, columns = np.empty(len(other)), np.zeros(labelled.classes)
        for chosen, classes in parts:
            rows[chosen], of_part = dual_costs(1 - other[chosen], classes)
            columns += of_part / len(parts)
        generator = np.random.default_rng(SEED)
        here, there = (generator.integers(size, size=(RESAMPLES, size)) for size in (len(other), len(own)))
        excess = rows - free
        moved = excess[here].mean(1) - excess.mean() + columns[labels][there].mean(1) - columns[labels].mean()
        # noise enters twice, by the draw of the samples and by that of the resamples
        drawn = _accuracy(
            free[here].mean(1), np.maximum(cost - free.mean() + moved, 0), np.sqrt(2) * by_chance, gaps[there].mean(1)
        )
        return {"accuracy": Estimate(float(value), float(drawn.std()))}


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
    return float(1 - _at(probabilities, _assign(probabilities, shares)).mean())


def dual_costs(costs: NDArray[np.float64], classes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Returns the dual potentials of an optimal assignment, which say what other samples and shares would cost.

    .. math:: \max_{u, v} \frac1N \sum_n u_n + \sum_c m_c v_c, \qquad u_n + v_c \le \mathrm{cost}_{nc},

    with equality where sample n is assigned to class c. The maximum is the assignment's mean cost, and u and v are its
    derivatives by the samples' weights and by the shares. Where these differ on both sides v is half-way.

    Args:
        costs: What a sample costs at each class, shape (N, C).
        classes: The class that the optimal assignment gives each sample, shape (N,).

    Returns:
        u, shape (N,), and v, shape (C,), which is zero for classes without samples. The time grows with N C + C³.

    Example:
        >>> rows, columns = dual_costs(np.array([[0.0, 1.0], [0.2, 0.8]]), np.array([0, 1]))
        >>> rows.round(6), columns.round(6)
        (array([0.4, 0.4]), array([-0.4,  0.4]))

    """
    used, codes = np.unique(classes, return_inverse=True)
    own = _at(costs, classes)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(used)))
    # the least that it costs to move one sample of a class to another one, directly, then by way of others
    moves = np.minimum.reduceat((costs[:, used] - own[:, None])[order], starts, axis=0)
    for way in range(len(used)):
        moves = np.minimum(moves, moves[:, [way]] + moves[[way]])
    columns = np.zeros(costs.shape[1])
    columns[used] = (moves.mean(0) - moves.mean(1)) / 2
    return own - columns[classes], columns


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
        for k, part in enumerate(parts_of(own, costs[half::2], labels[other::2], parts)):
            found[half::2][k::parts] = part
    return found


def _accuracy(free: Any, excess: Any, by_chance: float, gap: Any) -> Any:
    """One minus the corrected cost and the gap of confidence and accuracy; numbers, or an array for each resample."""
    return 1 - free - np.sqrt(np.maximum(np.square(excess) - by_chance**2, 0)) - gap


def parts_of(
    probabilities: NDArray[np.float64], costs: NDArray[np.float64], labels: NDArray[np.int64], parts: int
) -> list[NDArray[np.float64]]:
    """Returns the assigned costs in disjoint parts of the samples, with the same labels for each."""
    return [_at(costs[chosen], classes) for chosen, classes in _assignments(probabilities, labels, parts)]


def _assignments(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], parts: int
) -> list[tuple[slice, NDArray[np.int64]]]:
    """Disjoint parts of the samples, and the class of each of their samples; with the same labels for each."""
    shares = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    return [(chosen := slice(k, None, parts), _assign(probabilities[chosen], shares)) for k in range(parts)]


def _assign(probabilities: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """The class of each sample by the assignment of least cost 1 − p."""
    samples = len(probabilities)
    places = np.floor(shares * samples + 1e-9).astype(int)
    remainders = shares * samples - places
    places[np.argsort(-remainders, kind="stable")[: samples - places.sum()]] += 1
    classes = np.repeat(np.arange(len(places)), places)  # a column for each place
    columns = _plan(probabilities, classes)
    return np.asarray(classes[columns])


def _plan(probabilities: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each sample; estimators that move the same probabilities share it, as each takes milliseconds."""
    known = blake2b(np.ascontiguousarray(probabilities).tobytes() + classes.tobytes(), digest_size=16).digest()
    if known not in _PLANS:
        _PLANS[known] = linear_sum_assignment(1 - probabilities[:, classes])[1]
        if len(_PLANS) > _KEPT_PLANS:
            del _PLANS[next(iter(_PLANS))]
    return _PLANS[known]


def _at(values: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(values[np.arange(len(classes)), classes])


def labelled_pair(target: SetSummary, reference: SetSummary) -> tuple[Outputs, Outputs]:
    """Returns the class scores of the labelled reference and of the target.

    Raises:
        UndefinedEstimateError: If there are too few samples for a transport between them.

    """
    labelled, outputs = reference.labelled, target.classes
    if (samples := min(len(labelled), len(outputs))) < LEAST * labelled.classes:
        raise UndefinedEstimateError(
            f"expected {LEAST} samples or more for each of the {labelled.classes} classes, whose shares a transport "
            f"compares, but got {samples} in all; take more samples"
        )
    return labelled, outputs


def calibrated(
    labelled: Outputs, outputs: Outputs, which: Probabilities, temperature: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the reference's and the target's probabilities at a temperature; None for the one that fits the labels."""
    if which == "ensemble":
        value = labelled.temperature.value if temperature is None else temperature
        return labelled.tempered(value), outputs.tempered(value)
    value = labelled.temperature_now.value if temperature is None else temperature
    own, other = (np.asarray(softmax(found.log_probabilities / value, axis=1)) for found in (labelled, outputs))
    return own, other


def needs_of(which: Probabilities) -> frozenset[Need]:
    """Returns what must be gathered for these probabilities."""
    return frozenset({Need.CLASSES} if which == "now" else {Need.CLASSES, Need.EARLIER})

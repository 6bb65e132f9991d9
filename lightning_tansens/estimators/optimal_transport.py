"""Estimates by the optimal transport of a target's probabilities to the reference's labels."""

from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lightning_tansens.checks import check_choice, check_numbers
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimate, Estimates, Estimator, Need, SetSummary
from lightning_tansens.estimators.outputs import Array, Outputs
from lightning_tansens.estimators.spread import scaled
from lightning_tansens.estimators.transport import Transport, transport

#: Which probabilities are moved: today's, or the temporal ensemble's.
Probabilities = Literal["now", "ensemble"]

#: The number of resamples of a bootstrap, and the seed that draws them.
RESAMPLES, SEED = 200, 0

#: The draws for sets of at most this many samples are kept from one measurement to the next.
KEPT = 4096

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

    with the share m_c of class c among the reference's labels; 1 − p_c is half the L1 distance from p to the one-hot vector
    of c. As in the paper p is calibrated, by one temperature; what that leaves between confidence and accuracy on the
    reference is taken off. It assumes that the classes have the same shares in both sets; the estimate is clamped to [0, 1].
    :func:`~lightning_tansens.estimators.transport.transport` solves the transport.

    **Bias.** The cost is convex in the shares, so that their noise raises it. With the excess e over the cost without any
    constraint on the shares, and the excess b of each half of the reference moved to the labels of the other, times
    :math:`\sqrt{(N_{ref} / N_{te} + 1) / 2}`, :math:`\sqrt{e^2 - b^2}` is taken for e (nothing if e < b); the noise of both
    shares is counted twice, because e is one draw of it. So where the excess is no larger than chance the estimate is the
    difference of confidences. On simulated calibrated predictions of 1,000 samples without shift, the accuracy is low by
    0.019 without the correction and by 0.004 with it for 10 classes, by 0.12 and less than 0.002 for 100.

    **Standard error.** A bootstrap of both sets' samples, correction included, in which each resample costs what the dual
    potentials say, to first order what its own transport would: :math:`\frac1N \sum_n u_n + \sum_c m_c v_c`. It is within a
    factor of 1.5 of the spread over draws (``tests/estimators/test_transport.py``). With fewer than five samples a class the
    error is not known, and with fewer than two there is no estimate.

    Args:
        probabilities: "now" (key ``cot``), or "ensemble" (key ``cot_ensemble``) for what the temporal ensemble gives.
        temperature: Of the probabilities, softmax(log p / T); None to fit it to the reference's labels, 1 to leave them.

    Raises:
        ValueError: If the probabilities are neither, or the temperature is below 0.001.

    Example:
        >>> certain = np.log([[1.0, 1e-300], [1e-300, 1.0]] * 2)
        >>> reference = SetSummary("val", outputs=Outputs.of(certain, [0, 1, 0, 1]))  # right and sure
        >>> target = SetSummary("test", outputs=Outputs.of(np.log([[0.75, 0.25]] * 4)))  # two must be of class 1
        >>> round(ConfidenceOptimalTransport(temperature=1).estimate(target, reference)["accuracy"].value, 3)
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

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled, outputs = labelled_pair(target, reference)
        which, value = self.probabilities, self.temperature
        temperature = temperature_of(labelled, which) if value is None else value
        own, other = (calibrated(found, which, temperature) for found in (labelled, outputs))
        moved = moved_to(labelled, outputs, which, temperature)
        free, gaps = 1 - other.max(1), own.max(1) - labelled.correct
        samples, by_chance = min(len(own), len(other)), 0.0
        if samples >= FEWEST:
            plan = crossed_plan(labelled, which, temperature)
            by_chance = float(((plan * (1 - own)).sum(1) - 1 + own.max(1)).mean())
            by_chance *= np.sqrt(2) * noise_of_shares(len(own), len(other))
        value = _accuracy(float(free.mean()), moved.cost - float(free.mean()), by_chance, float(gaps.mean()))
        if samples < max(FEWEST, ENOUGH * labelled.classes):
            return {"accuracy": Estimate(float(value))}
        draw = resamples if max(len(own), len(other)) <= KEPT else resamples.__wrapped__
        here, there = draw(len(other), len(own))
        excess, prices = moved.rows - free, moved.columns[labelled.known_labels]
        changes = here @ excess - excess.mean() + there @ prices - prices.mean()
        # noise enters twice, by drawing the samples and by drawing the resamples
        drawn = _accuracy(
            here @ free, np.maximum(moved.cost - free.mean() + changes, 0), np.sqrt(2) * by_chance, there @ gaps
        )
        return {"accuracy": Estimate(float(value), float(drawn.std()))}


class TransportLoss(Estimator):
    r"""Scales the reference's loss by the ratio of the losses on the labels that an optimal transport assigns.

    .. math:: \hat l(X_{te}) = l_{ref} \, \frac{\ell(X_{te})}{\ell(X_{ref})}, \qquad
              \ell(X) = -\sum_{n,c} T_{nc} \log p_c(x_n)

    with the plan T of :class:`ConfidenceOptimalTransport`, from the temporal ensemble or from today's probabilities, both
    calibrated, and today's p. The reference is moved to its own labels, and each half of it to those of the other: the
    difference, scaled to the size of both sets by 1/√n, is what chance adds to the target's loss, and is added to the
    reference's too. Limits are as there; the standard error is by the delta method, the shares' noise included.

    Args:
        probabilities: "ensemble" (key ``transport_loss``) or "now" (key ``transport_loss_now``): which probabilities give
            the plan.

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
        self.needs = needs_of(probabilities)

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        labelled, outputs = labelled_pair(target, reference)
        which, costs = self.probabilities, -labelled.log_probabilities
        temperature = temperature_of(labelled, which)
        plans = moved_to(labelled, labelled, which, temperature).plan, crossed_plan(labelled, which, temperature)
        moved = moved_to(labelled, outputs, which, temperature)
        on_target, of_labels = moved.influences(-outputs.log_probabilities, labelled.known_labels)
        on_reference, on_halves = ((plan * costs).sum(1) for plan in plans)
        on_reference += noise_of_shares(len(labelled), len(outputs)) * (on_halves - on_reference)
        # a label of the reference is part of its own mean, and of the target's by the shares
        on_reference -= on_reference.mean() / on_target.mean() * of_labels
        loss = float(labelled.losses.mean()) if reference.loss is None else reference.loss
        found = scaled(loss, on_target, on_reference, labelled.losses)
        known = min(len(labelled), len(outputs)) >= max(FEWEST, ENOUGH * labelled.classes)
        return {"loss": found if known else Estimate(found.value)}


@lru_cache(maxsize=1)
def resamples(*sizes: int) -> list[Array]:
    """Returns how often each of N samples is drawn, over N, in each resample of sets of some sizes, shapes (R, N)."""
    generator, counts = np.random.default_rng(SEED), []
    for size in sizes:
        drawn = generator.integers(size, size=(RESAMPLES, size)) + size * np.arange(RESAMPLES)[:, None]
        counts.append(np.bincount(drawn.ravel(), minlength=RESAMPLES * size).reshape(RESAMPLES, size) / size)
    return counts


def moved_to(labelled: Outputs, outputs: Outputs, which: Probabilities, temperature: float) -> Transport:
    """Returns the transport of a set's probabilities, see :func:`calibrated`, to the labels of the reference."""
    shares = shares_of(labelled.known_labels, labelled.classes)
    # the reference must not refer to itself, or it outlives the measurement
    key = ("moved", None if outputs is labelled else labelled, which, temperature)
    return outputs.once(key, lambda: transport(1 - calibrated(outputs, which, temperature), shares))


def crossed_plan(labelled: Outputs, which: Probabilities, temperature: float) -> Array:
    """Returns the plan that moves each half of the reference to the labels of the other, shape (N, C)."""

    def plan() -> Array:
        own, labels = calibrated(labelled, which, temperature), labelled.known_labels
        found = np.empty_like(own)
        for half, other in ((0, 1), (1, 0)):
            found[half::2] = transport(1 - own[half::2], shares_of(labels[other::2], labelled.classes)).plan
        return found

    return labelled.once(("crossed", which, temperature), plan)


def noise_of_shares(own: int, other: int) -> float:
    """Returns the noise of the class shares of two sets over that of two halves of the first one: √((1/N + 1/M) / (4/N))."""
    return float(np.sqrt((own / other + 1) / 4))


def shares_of(labels: NDArray[np.int64], classes: int) -> Array:
    """Returns the share of each class among labels, shape (C,)."""
    return np.bincount(labels, minlength=classes) / len(labels)


def _accuracy(free: Any, excess: Any, by_chance: float, gap: Any) -> Any:
    """Returns one minus the corrected cost and the gap of confidence and accuracy; numbers, or arrays over resamples."""
    return 1 - free - np.sqrt(np.maximum(np.square(excess) - by_chance**2, 0)) - gap


def labelled_pair(target: SetSummary, reference: SetSummary) -> tuple[Outputs, Outputs]:
    """Returns the class scores of the labelled reference and of the target, if they suffice for a transport between them."""
    labelled, outputs = reference.labelled, target.class_scores
    if (samples := min(len(labelled), len(outputs))) < LEAST * labelled.classes:
        raise UndefinedEstimateError(
            f"expected {LEAST} samples or more for each of the {labelled.classes} classes, whose shares a transport "
            f"compares, but got {samples} in all; take more samples"
        )
    return labelled, outputs


def calibrated(outputs: Outputs, which: Probabilities, temperature: float) -> Array:
    """Returns a set's probabilities at a temperature."""
    ensemble = which == "ensemble"
    return outputs.tempered(temperature) if ensemble else softmax(outputs.log_probabilities / temperature, axis=1)


def temperature_of(labelled: Outputs, which: Probabilities) -> float:
    """Returns the temperature that fits the probabilities to the reference's labels."""
    return (labelled.temperature if which == "ensemble" else labelled.temperature_now).value


def needs_of(which: Probabilities) -> frozenset[Need]:
    """Returns what must be gathered for these probabilities."""
    return frozenset({Need.CLASSES} if which == "now" else {Need.CLASSES, Need.EARLIER})

"""The transport's correction for small samples, its error, its growth."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.special import softmax

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators import ConfidenceOptimalTransport, Outputs, SetSummary, TransportLoss, optimal_transport
from lightning_tansens.estimators.optimal_transport import BLOCK, transport_cost
from tests.estimators.data import LABELS, REFERENCE, TARGET, estimated, summary


def calibrated(rng, samples, classes, separation):
    """Outputs and labels of classes that are normal clouds, by Bayes' rule."""
    labels = rng.integers(classes, size=samples)
    outputs = rng.normal(size=(samples, classes))
    outputs[np.arange(samples), labels] += separation
    return separation * outputs, labels


def runs(classes, separation, samples=1000, of_target=None, repetitions=25):
    """Errors of the corrected and of the uncorrected estimate, and the standard errors."""
    rng = np.random.default_rng(0)
    for _ in range(repetitions):
        reference = SetSummary("val", outputs=Outputs.of(*calibrated(rng, samples, classes, separation)))
        outputs, _ = calibrated(rng, of_target or samples, classes, separation)
        target = SetSummary("test", outputs=Outputs.of(outputs))
        found = ConfidenceOptimalTransport().estimate(target, reference)["accuracy"]
        own, others = reference.outputs, target.outputs
        gap = (own.confidences - own.correct).mean()
        plain = 1 - transport_cost(others.probabilities[:1024], own.label_shares) - gap
        truth = others.confidences.mean() - gap
        yield found.value - truth, plain - truth, found.stderr


@pytest.mark.parametrize(("classes", "separation", "low", "left"), [(10, 2.5, 0.009, 0.006), (100, 3.5, 0.08, 0.002)])
def test_the_bias_of_small_samples_is_taken_off(classes, separation, low, left):
    """Against the confidences, whose mean is the accuracy here, so that the noise of the labels is not in the way."""
    errors, plain, stderrs = map(np.array, zip(*runs(classes, separation, repetitions=12)))
    assert plain.mean() < -low
    assert abs(errors.mean()) < left
    assert np.mean(stderrs) == pytest.approx(0.014, abs=0.005)  # as the estimates spread about the truth


def test_a_shift_of_the_predictions_is_still_seen():
    """A third of the classes is preferred: the transport says most of it, the confidences nothing."""
    rng = np.random.default_rng(0)
    found, truths, confidences = [], [], []
    for _ in range(6):
        reference = SetSummary("val", outputs=Outputs.of(*calibrated(rng, 1000, 10, 2.5)))
        outputs, labels = calibrated(rng, 1000, 10, 2.5)
        outputs[:, :3] += 2.5 * 2.0
        target = SetSummary("test", outputs=Outputs.of(outputs))
        found.append(ConfidenceOptimalTransport().estimate(target, reference)["accuracy"].value)
        truths.append((outputs.argmax(1) == labels).mean())
        confidences.append(target.outputs.confidences.mean())
    assert np.mean(confidences) - np.mean(truths) > 0.2
    assert abs(np.mean(found) - np.mean(truths)) < 0.06


def test_a_target_larger_than_the_reference():
    errors, _, _ = map(np.array, zip(*runs(20, 3.0, samples=300, of_target=1200, repetitions=6)))
    assert abs(errors.mean()) < 0.01


def test_few_samples_a_class_have_no_known_error_or_no_estimate():
    ((_, _, error),) = runs(30, 3.0, samples=100, repetitions=1)
    assert error is None
    with pytest.raises(UndefinedEstimateError, match=r"expected 2 samples or more for each of the 60 classes, .* got 100"):
        list(runs(60, 3.0, samples=100, repetitions=1))


def test_a_large_set_is_never_assigned_as_a_whole(monkeypatch):
    sizes = []

    def assigned(costs):
        sizes.append(costs.shape)
        return linear_sum_assignment(costs)

    monkeypatch.setattr(optimal_transport, "linear_sum_assignment", assigned)
    rng = np.random.default_rng(2)
    (other, labels), (outputs, _) = calibrated(rng, 2048, 5, 1.0), calibrated(rng, 8192, 5, 1.0)
    reference = SetSummary("val", loss=1.0, outputs=Outputs.of(other, labels))
    for estimator in (ConfidenceOptimalTransport(), TransportLoss("now")):
        estimator.estimate(SetSummary("test", outputs=Outputs.of(outputs)), reference)
    assert max(rows for rows, _ in sizes) == max(columns for _, columns in sizes) == BLOCK
    # as often as the size says: the parts of both sets, and as many smaller ones for the errors
    assert len([size for size in sizes if size[0] == BLOCK]) <= 2 * (8192 + 2048) // BLOCK
    assert len(optimal_transport._PLANS) <= optimal_transport._KEPT_PLANS


def test_beyond_a_part_the_cost_is_the_mean_of_the_parts():
    rng = np.random.default_rng(1)
    outputs, _ = calibrated(rng, 2 * BLOCK, 3, 1.0)
    outputs[:, 0] += 1.0
    other, labels = calibrated(rng, 400, 3, 1.0)
    reference = SetSummary("val", outputs=Outputs.of(other, labels))
    own, p = reference.outputs, softmax(outputs, axis=1)

    def cost(p, parts, labels):
        shares = np.bincount(labels, minlength=3) / len(labels)
        return np.mean([transport_cost(p[k::parts], shares) for k in range(parts)])

    r, free = own.probabilities, 1 - p.max(1).mean()
    by_chance = (cost(r[::2], 1, labels[1::2]) + cost(r[1::2], 1, labels[::2])) / 2 - (1 - r.max(1).mean())
    excess = np.sqrt(max((cost(p, 2, labels) - free) ** 2 - by_chance**2, 0))
    assert excess > 0.03
    value = 1 - free - excess - (own.confidences - own.correct).mean()
    found = ConfidenceOptimalTransport().estimate(SetSummary("test", outputs=Outputs.of(outputs)), reference)
    assert found["accuracy"].value == pytest.approx(value, rel=1e-12)


def test_the_loss_of_a_transport():
    """Of 40 and 60 samples, which are not cut: the ratio of the losses at the assigned labels."""
    own, other = summary(REFERENCE, LABELS).outputs, summary(TARGET).outputs
    q = [found.tempered(own.temperature.value) for found in (other, own)]

    def losses(q, outputs, labels):
        """By the plan of least cost, found as a linear program."""
        samples = len(q)
        shares = np.bincount(labels, minlength=4) / len(labels)
        rows, columns = np.kron(np.eye(samples), np.ones(4)), np.tile(np.eye(4), samples)
        plan = linprog((1 - q).ravel(), A_eq=np.concatenate([rows, columns]), b_eq=np.r_[np.ones(samples), shares * samples])
        return (plan.x.reshape(samples, 4) * -outputs).sum(1)

    found = estimated("transport_loss")["loss"]
    on_target, on_reference = losses(q[0], other.log_probabilities, LABELS), losses(q[1], own.log_probabilities, LABELS)
    crossed = [losses(q[1][k::2], own.log_probabilities[k::2], LABELS[1 - k :: 2]).mean() for k in range(2)]
    # the noise of the shares of 40 and 60 samples, over that of 30 and 30
    noise = np.sqrt((1 / 40 + 1 / 60) / (1 / 30 + 1 / 30))
    on_reference = on_reference.mean() + noise * (np.mean(crossed) - on_reference.mean())
    value = own.losses.mean() * on_target.mean() / on_reference
    assert found.value == pytest.approx(value, rel=0.03)  # shares of 60 labels, rounded to 40 samples
    assert found.stderr is None
    assert TransportLoss("now").key == "transport_loss_now"


def test_the_probabilities_are_named():
    for estimator in (ConfidenceOptimalTransport, TransportLoss):
        with pytest.raises(ValueError, match="probabilities: expected one of"):
            estimator("earlier")


def test_a_transport_loss_without_shift_is_the_loss_and_its_error_the_spread():
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(25):
        reference = SetSummary("val", outputs=Outputs.of(*calibrated(rng, 400, 5, 2.0)))
        outputs, labels = calibrated(rng, 400, 5, 2.0)
        found = TransportLoss("now").estimate(SetSummary("test", outputs=Outputs.of(outputs)), reference)["loss"]
        values.append(found.value / Outputs.of(outputs, labels).losses.mean())
        errors.append(found.stderr / found.value)
    assert np.mean(values) == pytest.approx(1, abs=0.05)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.5)

"""The transport's correction for small samples, its error, its growth."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from scipy.sparse import eye_array, kron, vstack
from scipy.special import softmax

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators import (
    ConfidenceOptimalTransport,
    Outputs,
    SetSummary,
    TransportLoss,
    optimal_transport,
    transport,
)
from tests.estimators.data import LABELS, REFERENCE, TARGET, estimated, summary


def program(costs, shares):
    """The plan of least mean cost, as a linear program."""
    samples, classes = costs.shape
    rows, columns = kron(eye_array(samples), np.ones((1, classes))), kron(np.ones((1, samples)), eye_array(classes))
    plan = linprog(costs.ravel() / samples, A_eq=vstack([rows, columns]), b_eq=np.r_[np.ones(samples), shares * samples])
    return plan.x.reshape(samples, classes)


def least_cost(costs, shares):
    return (program(costs, shares) * costs).sum() / len(costs)


def shares_of(labels, classes):
    return np.bincount(labels, minlength=classes) / len(labels)


def calibrated(rng, samples, classes, separation):
    """Outputs and labels of classes that are normal clouds, by Bayes' rule."""
    labels = rng.integers(classes, size=samples)
    outputs = rng.normal(size=(samples, classes))
    outputs[np.arange(samples), labels] += separation
    return separation * outputs, labels


def runs(classes, separation, samples=1000, of_target=None, repetitions=25, preferred=0.0):
    """Errors of the corrected and of the uncorrected estimate, and the standard errors."""
    rng = np.random.default_rng(0)
    for _ in range(repetitions):
        reference = SetSummary("val", outputs=Outputs.of(*calibrated(rng, samples, classes, separation)))
        outputs, _ = calibrated(rng, of_target or samples, classes, separation)
        outputs[:, : classes // 3] += preferred
        target = SetSummary("test", outputs=Outputs.of(outputs))
        found = ConfidenceOptimalTransport().estimate(target, reference)["accuracy"]
        own, others = reference.outputs, target.outputs
        gap = (own.confidences - own.correct).mean()
        plain = 1 - transport.transport(1 - others.probabilities, shares_of(own.labels, classes)).cost - gap
        truth = others.confidences.mean() - gap
        yield found.value - truth, plain - truth, found.stderr, found.value


@pytest.mark.parametrize(
    ("classes", "separation", "low", "left"),
    [(10, 2.5, 0.009, 0.006), pytest.param(100, 3.5, 0.08, 0.002, marks=pytest.mark.thorough)],
)
def test_the_bias_of_small_samples_is_taken_off(classes, separation, low, left):
    """Against the confidences, whose mean is the accuracy here, so that the noise of the labels is not in the way."""
    errors, plain, stderrs, _ = map(np.array, zip(*runs(classes, separation, repetitions=12)))
    assert plain.mean() < -low
    assert abs(errors.mean()) < left
    assert np.mean(stderrs) == pytest.approx(0.014, abs=0.005)  # as the estimates spread about the truth


@pytest.mark.parametrize(
    ("classes", "samples", "of_target", "preferred"),
    [(10, 300, 300, 0.0), (10, 300, 300, 2.5), (2, 300, 300, 1.0), (10, 200, 600, 0.0), (10, 600, 200, 5.0)],
)
def test_the_standard_error_is_the_spread_over_draws(classes, samples, of_target, preferred):
    """With and without a shift, for equal and unequal sizes and beyond a part."""
    *_, stderrs, values = map(np.array, zip(*runs(classes, 2.0, samples, of_target, 40, preferred)))
    assert 0.7 < stderrs.mean() / values.std(ddof=1) < 1.5


@pytest.mark.parametrize(("samples", "labelled"), [pytest.param(300, 80, marks=pytest.mark.thorough), (80, 300)])
def test_the_standard_error_is_the_bootstrap_s_that_solves_each_transport_anew(samples, labelled):
    """The smaller set has most of the error."""
    rng = np.random.default_rng(3)
    outputs, _ = calibrated(rng, samples, 4, 1.5)
    outputs[:, 0] += 3.0
    own, labels = calibrated(rng, labelled, 4, 1.5)
    target, reference = Outputs.of(outputs), Outputs.of(own, labels)
    summaries = SetSummary("test", outputs=target), SetSummary("val", outputs=reference)
    found = ConfidenceOptimalTransport(temperature=1).estimate(*summaries)["accuracy"]
    p, r, drawn = target.probabilities, reference.probabilities, []
    for _ in range(150):
        here, there = rng.integers(samples, size=samples), rng.integers(labelled, size=labelled)
        shares = shares_of(labels[there], 4)
        gap = (r[there].max(1) - reference.correct[there]).mean()
        drawn.append(1 - least_cost(1 - p[here], shares) - gap)
    # the shift is large, so that the correction hardly matters
    assert found.stderr == pytest.approx(np.std(drawn), rel=0.15)


def test_the_error_is_the_same_each_time_and_leaves_the_random_state_alone():
    def found():
        rng = np.random.default_rng(4)
        reference = SetSummary("val", outputs=Outputs.of(*calibrated(rng, 200, 4, 1.5)))
        target = SetSummary("test", outputs=Outputs.of(calibrated(rng, 200, 4, 1.5)[0]))
        optimal_transport.resamples.cache_clear()
        return ConfidenceOptimalTransport().estimate(target, reference)

    before = np.random.get_state()[1].copy()
    first, again = found(), found()
    assert first == again
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(("name", "most"), [("NEWTON_STEPS", 2), ("HALVINGS", 0)])
def test_where_newton_s_method_does_not_end_another_goes_on(monkeypatch, name, most):
    rng = np.random.default_rng(5)
    costs, shares = 1 - softmax(3 * rng.normal(size=(300, 10)), axis=1), rng.dirichlet(np.full(10, 3.0))
    by_newton = transport.transport(costs, shares)
    monkeypatch.setattr(transport, name, most)
    found = transport.transport(costs, shares)
    assert found.cost == pytest.approx(by_newton.cost, abs=1e-5)
    assert found.plan == pytest.approx(by_newton.plan, abs=0.02)
    assert not np.array_equal(found.plan, by_newton.plan)


def test_resamples_are_the_counts_of_what_is_drawn():
    generator = np.random.default_rng(optimal_transport.SEED)
    for counts in optimal_transport.resamples(30, 20):
        values = np.arange(counts.shape[1]) ** 2.0
        drawn = generator.integers(len(values), size=counts.shape)
        assert counts @ values == pytest.approx(values[drawn].mean(1))


def test_the_errors_of_large_sets_are_those_of_small_ones(monkeypatch):
    kept = [stderr for *_, stderr, _ in runs(4, 1.5, 100, 200, 2)]
    monkeypatch.setattr(optimal_transport, "KEPT", 150)
    optimal_transport.resamples.cache_clear()
    assert [stderr for *_, stderr, _ in runs(4, 1.5, 100, 200, 2)] == kept
    assert not optimal_transport.resamples.cache_info().currsize


@pytest.mark.parametrize(("classes", "sharpness"), [(2, 3.0), (3, 3.0), (10, 0.5), (10, 3.0), (40, 3.0)])
def test_a_transport_is_the_linear_program_s(classes, sharpness):
    """Feasible, as costly in all to 0.0006, and with the derivative by the shares."""
    rng, samples = np.random.default_rng(classes), 300
    costs = 1 - softmax(sharpness * rng.normal(size=(samples, classes)), axis=1)
    shares = rng.dirichlet(np.full(classes, 3.0))
    found = transport.transport(costs, shares)
    assert (found.rows[:, None] + found.columns <= costs + 1e-12).all()
    least = least_cost(costs, shares)
    assert least - 6e-4 < found.cost < least + 1e-9
    assert found.plan.sum(1) == pytest.approx(np.ones(samples))
    assert found.plan.mean(0) == pytest.approx(shares, abs=0.02 * shares.min())
    first, second = np.argsort(-shares)[:2]
    step = np.zeros(classes)
    step[[first, second]] = 0.02, -0.02  # six samples' worth
    slope = (least_cost(costs, shares + step) - least_cost(costs, shares - step)) / 0.04
    assert found.columns[first] - found.columns[second] == pytest.approx(slope, abs=0.05)


def test_classes_without_samples_have_no_dual_cost():
    found = transport.transport(np.array([[0.2, 0.5, 0.9], [0.4, 0.1, 0.9]]), np.array([1.0, 0.0, 0.0]))
    assert found.rows + found.columns[0] == pytest.approx([0.2, 0.4])
    assert found.columns[1:] == pytest.approx([0, 0])
    assert found.plan == pytest.approx(np.array([[1, 0, 0], [1, 0, 0]]))


def test_the_influences_are_the_derivatives_of_the_mean_cost(monkeypatch):
    """By weighing a sample and a label a little more."""
    monkeypatch.setattr(transport, "TOLERANCE", 1e-5)
    rng = np.random.default_rng(5)
    probabilities = softmax(2 * rng.normal(size=(80, 4)), axis=1)
    labels = rng.integers(4, size=50)
    costs = -np.log(softmax(rng.normal(size=(80, 4)), axis=1))
    samples, labelled = transport.transport(1 - probabilities, shares_of(labels, 4)).influences(costs, labels)

    def mean(times_sample, times_label):
        """With sample 3 and label 7 repeated, each copy of everything else as often as in the whole."""
        n = np.r_[np.repeat(np.arange(80), 20), np.full(times_sample, 3)]
        k = np.r_[np.repeat(np.arange(50), 20), np.full(times_label, 7)]
        return (transport.transport(1 - probabilities[n], shares_of(labels[k], 4)).plan * costs[n]).sum() / len(n)

    base = mean(0, 0)
    assert samples.mean() == pytest.approx(base, rel=1e-3)
    assert (mean(2, 0) - base) * 1602 / 2 == pytest.approx(samples[3] - samples.mean(), rel=0.05)
    assert (mean(0, 2) - base) * 1002 / 2 == pytest.approx(labelled[7], rel=0.05)
    assert labelled.mean() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("probabilities", ["now", "ensemble"])
def test_probabilities_are_calibrated_on_the_reference(probabilities):
    """By the temperature of least loss; 1 leaves them as they are."""
    own, other = summary(REFERENCE, LABELS).outputs, summary(TARGET).outputs
    scores = [
        found.log_probabilities if probabilities == "now" else np.log(found.ensemble + 1e-12) for found in (own, other)
    ]
    losses = {t: -np.log(softmax(scores[0] / t, axis=1)[np.arange(60), LABELS]).mean() for t in np.geomspace(0.1, 10, 2000)}
    for temperature, value in ((None, min(losses, key=losses.get)), (1.0, 1.0), (2.5, 2.5)):
        r, p = (softmax(score / value, axis=1) for score in scores)
        cost = transport.transport(1 - p, shares_of(LABELS, 4)).cost
        expected = 1 - cost - (r.max(1) - own.correct).mean()
        estimator = ConfidenceOptimalTransport(probabilities, temperature)
        found = estimator.estimate(summary(TARGET), summary(REFERENCE, LABELS))["accuracy"]
        assert found.value == pytest.approx(expected, abs=2e-4 if temperature is None else 1e-9)


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
    errors, *_ = map(np.array, zip(*runs(20, 3.0, samples=300, of_target=1200, repetitions=6)))
    assert abs(errors.mean()) < 0.01


def test_few_samples_a_class_have_no_known_error_or_no_estimate():
    ((_, _, error, _),) = runs(30, 3.0, samples=100, repetitions=1)
    assert error is None
    with pytest.raises(UndefinedEstimateError, match=r"expected 2 samples or more for each of the 60 classes, .* got 100"):
        list(runs(60, 3.0, samples=100, repetitions=1))


def test_the_work_of_a_large_set_is_bounded(monkeypatch):
    steps = []

    def minimised(*args, options, **kwargs):
        steps.append(options["maxiter"])
        return minimize(*args, options=options, **kwargs)

    monkeypatch.setattr(transport, "minimize", minimised)
    rng = np.random.default_rng(2)
    for samples, expected in ((500, 100), (4000, 31), (8000, 20)):
        transport.transport(rng.random((samples, 400)), np.full(400, 1 / 400))
        assert steps.pop() == steps.pop() == expected


def test_the_correction_is_that_of_both_sizes():
    rng = np.random.default_rng(1)
    outputs, _ = calibrated(rng, 250, 5, 1.0)
    outputs[:, 0] += 0.8
    other, labels = calibrated(rng, 100, 5, 1.0)
    reference = SetSummary("val", outputs=Outputs.of(other, labels))
    own, p = reference.outputs, softmax(outputs, axis=1)
    r, free = own.probabilities, 1 - p.max(1).mean()
    halves = [least_cost(1 - r[k::2], shares_of(labels[1 - k :: 2], 5)) for k in range(2)]
    by_chance = (np.mean(halves) - (1 - r.max(1).mean())) * np.sqrt((100 / 250 + 1) / 2)
    cost = least_cost(1 - p, shares_of(labels, 5))
    excess = np.sqrt((cost - free) ** 2 - by_chance**2)
    assert 0.3 * excess < by_chance
    value = 1 - free - excess - (own.confidences - own.correct).mean()
    found = ConfidenceOptimalTransport(temperature=1).estimate(SetSummary("test", outputs=Outputs.of(outputs)), reference)
    assert found["accuracy"].value == pytest.approx(value, abs=5e-4)


def test_the_loss_of_a_transport():
    """The ratio of the losses at the assigned labels."""
    own, other = summary(REFERENCE, LABELS).outputs, summary(TARGET).outputs
    q = [found.tempered(own.temperature.value) for found in (other, own)]

    def losses(q, outputs, labels):
        """By the plan of least cost."""
        return (program(1 - q, shares_of(labels, 4)) * -outputs).sum(1)

    found = estimated("transport_loss")["loss"]
    on_target, on_reference = losses(q[0], other.log_probabilities, LABELS), losses(q[1], own.log_probabilities, LABELS)
    crossed = [losses(q[1][k::2], own.log_probabilities[k::2], LABELS[1 - k :: 2]).mean() for k in range(2)]
    # the noise of the shares of 40 and 60 samples, over that of 30 and 30
    noise = np.sqrt((1 / 40 + 1 / 60) / (1 / 30 + 1 / 30))
    on_reference = on_reference.mean() + noise * (np.mean(crossed) - on_reference.mean())
    value = own.losses.mean() * on_target.mean() / on_reference
    assert found.value == pytest.approx(value, rel=0.02)  # by a plan that is blurred
    assert found.stderr is None
    assert TransportLoss("now").key == "transport_loss_now"


def test_the_probabilities_are_named():
    for estimator in (ConfidenceOptimalTransport, TransportLoss):
        with pytest.raises(ValueError, match="probabilities: expected one of"):
            estimator("earlier")
    with pytest.raises(ValueError, match=r"temperature: expected a finite number >= 0\.001, but got 0"):
        ConfidenceOptimalTransport(temperature=0)


@pytest.mark.parametrize(("samples", "of_target", "preferred"), [(400, 400, 0.0), (150, 1200, 3.0), (1200, 150, 3.0)])
def test_the_error_of_a_transport_loss_is_the_spread_over_draws(samples, of_target, preferred):
    rng, values, errors = np.random.default_rng(0), [], []
    for _ in range(60):
        reference = SetSummary("val", outputs=Outputs.of(*calibrated(rng, samples, 5, 1.5)))
        outputs, labels = calibrated(rng, of_target, 5, 1.5)
        outputs[:, 0] += preferred
        found = TransportLoss("now").estimate(SetSummary("test", outputs=Outputs.of(outputs)), reference)["loss"]
        values.append((found.value, Outputs.of(outputs, labels).losses.mean()))
        errors.append(found.stderr)
    estimates, truths = np.array(values).T
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.2)
    if not preferred:
        assert estimates.mean() == pytest.approx(truths.mean(), rel=0.05)

"""The transport's correction for small samples, its error, its growth."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.special import softmax

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators import ConfidenceOptimalTransport, Outputs, SetSummary, TransportLoss, optimal_transport
from lightning_tansens.estimators.optimal_transport import BLOCK, dual_costs, transport_cost
from tests.estimators.data import LABELS, REFERENCE, TARGET, estimated, summary


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
        plain = 1 - transport_cost(others.probabilities[:1024], own.label_shares) - gap
        truth = others.confidences.mean() - gap
        yield found.value - truth, plain - truth, found.stderr, found.value


@pytest.mark.parametrize(("classes", "separation", "low", "left"), [(10, 2.5, 0.009, 0.006), (100, 3.5, 0.08, 0.002)])
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


@pytest.mark.parametrize(("samples", "labelled"), [(300, 80), (80, 300)])
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
        shares = np.bincount(labels[there], minlength=4) / labelled
        gap = (r[there].max(1) - reference.correct[there]).mean()
        drawn.append(1 - transport_cost(p[here], shares) - gap)
    # the shift is large, so that the correction hardly matters
    assert found.stderr == pytest.approx(np.std(drawn), rel=0.15)


def test_the_error_is_the_same_each_time_and_leaves_the_random_state_alone():
    rng = np.random.default_rng(4)
    reference = SetSummary("val", outputs=Outputs.of(*calibrated(rng, 200, 4, 1.5)))
    target = SetSummary("test", outputs=Outputs.of(calibrated(rng, 200, 4, 1.5)[0]))
    before = np.random.get_state()[1].copy()
    first, again = (ConfidenceOptimalTransport().estimate(target, reference) for _ in range(2))
    assert first == again
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_dual_costs_are_those_of_the_linear_program(classes):
    """Feasible, as much in all as the transport, and the derivative by the shares."""
    rng, samples = np.random.default_rng(classes), 60
    costs = 1 - softmax(3 * rng.normal(size=(samples, classes)), axis=1)
    places = rng.multinomial(samples, np.full(classes, 1 / classes))
    columns_of_places = np.repeat(np.arange(classes), places)
    assigned = np.empty(samples, int)
    assigned[np.arange(samples)] = columns_of_places[linear_sum_assignment(costs[:, columns_of_places])[1]]
    rows, columns = dual_costs(costs, assigned)
    assert (rows[:, None] + columns <= costs + 1e-12).all()
    assert rows.sum() + places @ columns == pytest.approx(costs[np.arange(samples), assigned].sum(), abs=1e-10)

    def cost(shares):
        marginals = [np.kron(np.eye(samples), np.ones(classes)), np.tile(np.eye(classes), samples)]
        return linprog(costs.ravel(), A_eq=np.concatenate(marginals), b_eq=np.r_[np.ones(samples), shares]).fun

    step = np.zeros(classes)
    step[:2] = 1e-3, -1e-3
    slopes = [(cost(places + step) - cost(places)) / 1e-3, (cost(places) - cost(places - step)) / 1e-3]
    assert min(slopes) - 1e-6 <= columns[0] - columns[1] <= max(slopes) + 1e-6


def test_classes_without_samples_have_no_dual_cost():
    rows, columns = dual_costs(np.array([[0.2, 0.5, 0.9], [0.4, 0.1, 0.9]]), np.array([0, 0]))
    assert rows == pytest.approx([0.2, 0.4])
    assert columns == pytest.approx([0, 0, 0])


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
        cost = transport_cost(p, np.bincount(LABELS, minlength=4) / 60)
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
    # as often as the sizes say: the parts of the target, and those of the reference as it is and by halves
    assert len([size for size in sizes if size[0] == BLOCK]) <= 2 * (8192 + 2 * 2048) // BLOCK


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
    found = ConfidenceOptimalTransport(temperature=1).estimate(SetSummary("test", outputs=Outputs.of(outputs)), reference)
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
    with pytest.raises(ValueError, match=r"temperature: expected a finite number >= 0\.001, but got 0"):
        ConfidenceOptimalTransport(temperature=0)


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

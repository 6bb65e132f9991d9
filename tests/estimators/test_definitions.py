"""Each estimator against its published definition, written out with NumPy."""

import itertools
import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from lightning_tansens.estimators import ConfidenceOptimalTransport, ThresholdedConfidence
from lightning_tansens.estimators.transport import transport
from tests.estimators.data import FEATURES_OF, LABELS, REFERENCE, TARGET, estimated, score, summary


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


P, Q = softmax(REFERENCE), softmax(TARGET)
RIGHT = P.argmax(1) == LABELS
CONFIDENCE, CONFIDENCE_OF_TARGET = P.max(1), Q.max(1)
LOSS = -np.log(P[np.arange(60), LABELS])


def entropy(p):
    return -(p * np.log(p)).sum(1)


def standard_error(*samples):
    """Of the sum of means of independent samples."""
    return math.sqrt(sum(sample.var(ddof=1) / len(sample) for sample in samples))


def accuracy(key):
    return estimated(key)["accuracy"]


def test_the_cases_are_neither_right_nor_wrong_altogether():
    assert 0.5 < RIGHT.mean() < 0.9
    assert CONFIDENCE_OF_TARGET.mean() < CONFIDENCE.mean()


def test_average_confidence():
    assert accuracy("average_confidence").value == pytest.approx(CONFIDENCE_OF_TARGET.mean(), rel=1e-12)
    assert accuracy("average_confidence").stderr == pytest.approx(standard_error(CONFIDENCE_OF_TARGET), rel=1e-9)


def test_difference_of_confidences():
    estimate = accuracy("difference_of_confidences")
    assert estimate.value == pytest.approx(RIGHT.mean() - (CONFIDENCE.mean() - CONFIDENCE_OF_TARGET.mean()), rel=1e-12)
    assert estimate.stderr == pytest.approx(standard_error(CONFIDENCE_OF_TARGET, RIGHT - CONFIDENCE), rel=1e-9)


def test_importance_weighting():
    total = weight = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, 11)):
        of_target = ((low < CONFIDENCE_OF_TARGET) & (high >= CONFIDENCE_OF_TARGET)).mean()
        inside = (low < CONFIDENCE) & (high >= CONFIDENCE)
        if inside.any():
            total += of_target * RIGHT[inside].mean()
            weight += of_target
    assert accuracy("importance_weighting").value == pytest.approx(total / weight, rel=1e-12)


def test_confidence_based_estimation():
    fit = IsotonicRegression(out_of_bounds="clip").fit(CONFIDENCE, RIGHT)
    assert accuracy("cbpe").value == pytest.approx(fit.predict(CONFIDENCE_OF_TARGET).mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("key", "scores", "of_target"),
    [
        ("atc_confidence", CONFIDENCE, CONFIDENCE_OF_TARGET),
        ("atc_entropy", -entropy(P), -entropy(Q)),
    ],
)
def test_thresholded_confidence(key, scores, of_target):
    thresholds = [t for t in scores if (scores < t).mean() == pytest.approx(1 - RIGHT.mean())]
    assert len(thresholds) == 1
    estimate = accuracy(key)
    assert estimate.value == (of_target >= thresholds[0]).mean()
    variance = estimate.value * (1 - estimate.value) / 40 + RIGHT.mean() * (1 - RIGHT.mean()) / 60
    assert estimate.stderr == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_a_transport_costs_what_the_best_of_all_assignments_costs():
    probabilities = softmax(np.random.default_rng(1).normal(size=(6, 3)))
    places = (0, 0, 0, 1, 1, 2)
    best = min(np.mean([1 - probabilities[n, c] for n, c in enumerate(labels)]) for labels in itertools.permutations(places))
    assert best - 5e-4 < transport(1 - probabilities, np.array([3, 2, 1]) / 6).cost <= best


def test_shares_of_no_whole_number_of_samples_split_a_sample():
    costs = np.array([[0.0, 1.0], [0.0, 1.0]])
    for share in (0.2, 0.3):
        assert transport(costs, np.array([1 - share, share])).cost == pytest.approx(share, abs=5e-3)


def test_optimal_transport():
    shares = np.bincount(LABELS, minlength=4) / 60
    value = 1 - (transport(1 - Q, shares).cost + CONFIDENCE.mean() - RIGHT.mean())
    found = ConfidenceOptimalTransport(temperature=1).estimate(summary(TARGET), summary(REFERENCE, LABELS))
    assert found["accuracy"].value == pytest.approx(value, rel=1e-12)


def test_nuclear_norm():
    assert score("nuclear_norm", TARGET) == pytest.approx(np.linalg.norm(Q, "nuc") / math.sqrt(40 * 4), rel=1e-9)


def test_nuclear_norm_of_fewer_samples_than_classes():
    # the matrix of products has half the digits: a zero eigenvalue may be 1e-17 there, whose root is 3e-9
    assert score("nuclear_norm", TARGET[:3]) == pytest.approx(np.linalg.norm(Q[:3], "nuc") / 3, abs=1e-8)


@pytest.mark.parametrize("scale", [1, 10])
def test_mano(scale):
    logits = scale * TARGET
    p = softmax(scale * TARGET)
    divergence = -np.log(p).mean()
    v = 1 + logits + logits**2 / 2
    normalised = p if divergence > 5 else v / v.sum(1, keepdims=True)
    assert (divergence > 5) == (scale == 10)
    assert score("mano", scale * TARGET) == pytest.approx((normalised**4).mean() ** 0.25, rel=1e-9)


def test_dispersion():
    features, predicted = FEATURES_OF[id(TARGET)], Q.argmax(1)
    total = 0.0
    for c in range(4):
        members = features[predicted == c]
        total += len(members) * np.square(members.mean(0) - features.mean(0)).sum()
    assert score("dispersion", TARGET) == pytest.approx(math.log(total / 3), rel=1e-9)


def test_entropy_ratio():
    estimate = estimated("entropy_ratio")["loss"]
    value = LOSS.mean() * entropy(Q).mean() / entropy(P).mean()
    assert estimate.value == pytest.approx(value, rel=1e-12)
    relative = standard_error(entropy(Q) / entropy(Q).mean(), LOSS / LOSS.mean() - entropy(P) / entropy(P).mean())
    assert estimate.stderr == pytest.approx(value * relative, rel=1e-9)


def test_entropy_difference():
    estimate = estimated("entropy_difference")["loss"]
    assert estimate.value == pytest.approx(LOSS.mean() + entropy(Q).mean() - entropy(P).mean(), rel=1e-12)
    assert estimate.stderr == pytest.approx(standard_error(entropy(Q), LOSS - entropy(P)), rel=1e-9)


def test_an_accuracy_of_zero_thresholds_everything():
    wrong = (REFERENCE.argmax(1) + 1) % 4
    assert estimated("atc_confidence", labels=wrong)["accuracy"].value == 0


def test_an_accuracy_of_one_takes_the_least_score_of_the_reference():
    share = (CONFIDENCE.min() <= CONFIDENCE_OF_TARGET).mean()
    assert estimated("atc_confidence", labels=REFERENCE.argmax(1))["accuracy"].value == share


def test_a_threshold_of_another_score_is_refused():
    with pytest.raises(ValueError, match="score: expected one of"):
        ThresholdedConfidence("margin")

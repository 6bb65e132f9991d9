"""The calibrated estimator on readings, and its options."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators import Calibrated, Outputs, SetSummary, estimate_set
from lightning_tansens.estimators.calibrated import Noise
from lightning_tansens.estimators.calibrated.estimator import log_features
from lightning_tansens.estimators.calibrated.ridge import Ridge
from lightning_tansens.metrics.uncertainty import Influence

FEATURES = ["entropy", "confidence", "sensitivity", "active_nodes"]


class Known:
    """Outputs with a mean entropy and a mean confidence, and nothing else."""

    is_classifier, kept = True, np.ones(10, bool)

    def __init__(self, entropy, doubt):
        self.entropies, self.confidences = np.full(10, entropy), np.full(10, 1 - doubt)

    def __len__(self):
        return 10

    def unlabelled(self):
        return self


def reading(entropy=1.0, doubt=0.25, sensitivity=2.0, nodes=50.0, loss=1.0, accuracy=0.5, copies=(), **known):
    values = {"empirical": {"empirical": sensitivity}, "active_nodes": {"active_nodes_mean": nodes}}
    found = {"loss": loss, "accuracy": accuracy, "wrong": 50, "copies": tuple(copies), "values": values, **known}
    return SetSummary("set", 100, Known(entropy, doubt), **found)


def estimate(features, reference, sets, target):
    return Calibrated(features=features).estimate(target, replace(reference, copies=tuple(sets)))


def test_features_are_logarithms_of_means():
    logarithms = [math.log(value) for value in (1.5, 0.2, 3.0, 40.0)]
    assert log_features(reading(1.5, 0.2, 3.0, 40.0), FEATURES) == pytest.approx(logarithms, rel=1e-6)


def copies():
    """The loss is the reference's times the entropy's ratio squared; the error rate grows with its root."""
    return [reading(entropy=ratio, loss=ratio**2, accuracy=1 - 0.5 * ratio**0.5) for ratio in (1.1, 1.3, 1.6, 2.0)]


def test_a_law_of_powers_is_found():
    target = reading(entropy=1.5, loss=None, accuracy=None)
    found = estimate(["entropy"], reading(), copies(), target)
    assert found["loss"].value == pytest.approx(1.5**2, rel=1e-3)
    assert found["accuracy"].value == pytest.approx(1 - 0.5 * 1.5**0.5, rel=1e-3)
    assert Calibrated(features=["entropy"]).inside(target, reading(copies=copies())) is True


def test_values_and_errors_are_those_of_the_fit():
    target = reading(entropy=2.5, sensitivity=3.0)
    sets = [
        reading(entropy=e, sensitivity=s, loss=loss) for e, s, loss in ((1.2, 2.5, 1.3), (1.5, 1.0, 1.1), (2.0, 2.2, 2.4))
    ]
    points = [[a, s - math.log(2)] for a, s in (log_features(of, ["entropy", "sensitivity"]) for of in sets)]
    expected = Ridge(points, [math.log(s.loss) for s in sets]).predict([math.log(2.5), math.log(1.5)])
    loss = estimate(["entropy", "sensitivity"], reading(), sets, target)["loss"]
    assert loss.value == pytest.approx(math.exp(expected.value), rel=1e-6)
    assert loss.stderr == pytest.approx(math.exp(expected.value) * expected.stderr, rel=1e-5)
    inside = Calibrated(features=["entropy", "sensitivity"]).inside(target, reading(copies=sets))
    assert inside is expected.inside is False


def test_the_error_of_the_reference_s_own_loss_counts():
    influence = Influence(torch.tensor([0.5, -0.5] * 10), torch.arange(20))
    noisy = reading(loss_influence=influence)
    loss, without = (estimate(["entropy"], r, copies(), reading())["loss"] for r in (noisy, reading()))
    own = 0.5 * math.sqrt(20 / 19 / 20)
    assert loss.stderr == pytest.approx(loss.value * math.hypot(without.stderr / without.value, own))


@pytest.mark.parametrize(
    ("reference", "sets", "message"),
    [
        (reading(accuracy=1.0), copies(), "expected a reference with an error rate to scale"),
        (reading(), [*copies(), reading(accuracy=1.0)], "expected copies of the reference with an error rate"),
        (reading(entropy=0.0), copies(), "expected a positive mean entropy on every set, but it is 0.0"),
    ],
)
def test_what_has_no_logarithm_has_no_estimate(reference, sets, message):
    with pytest.raises(UndefinedEstimateError, match=message):
        estimate(["entropy"], reference, sets, reading())


def test_a_feature_that_is_not_finite_is_named():
    with pytest.raises(UndefinedEstimateError, match="expected a positive mean sensitivity on every set, but it is nan"):
        log_features(reading(sensitivity=math.nan), FEATURES)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"copies": [Noise(0.1), Noise(0.2)]}, ValueError, "copies: expected 3 or more to fit on, but got 2; add some"),
        ({"copies": Noise(0.1)}, TypeError, "copies: expected a list"),
        ({"copies": "blur"}, TypeError, "copies: expected a list"),
        ({"copies": [Noise(0.1)] * 3 + ["blur"]}, TypeError, "copies: expected callables on a sample, but got 'blur'"),
        ({"copies": [Noise(0.1)] * 3 + [None]}, TypeError, "copies: expected callables on a sample, but got None"),
        ({"features": ["entropy", "margin"]}, ValueError, "features: expected one of"),
        ({"features": []}, TypeError, "features: expected a list of features"),
    ],
)
def test_wrong_options_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Calibrated(**arguments)


def test_a_reference_with_too_few_copies_has_no_fit():
    with pytest.raises(UndefinedEstimateError, match="expected 3 copies of the reference or more, but got 2"):
        estimate(["entropy"], reading(), copies()[:2], reading())


def test_the_measures_of_the_features_are_named():
    assert Calibrated(features=FEATURES).measure_keys == {"empirical", "active_nodes"}
    assert Calibrated().measure_keys == set()


def test_a_target_beyond_the_copies_is_noticed():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=200)

    def copy(noise, **known):
        outputs = Outputs.of(3 * np.eye(3)[labels] + noise * rng.normal(size=(200, 3)), labels)
        wrong = float((1 - outputs.correct).sum())
        known = {"loss": float(outputs.losses.mean()), "accuracy": 1 - wrong / 200, "wrong": wrong, **known}
        return SetSummary("copy", 200, outputs, **known)

    reference = copy(2.0, copies=tuple(copy(noise) for noise in (2.2, 2.5, 3.0, 3.5)))
    far, near = copy(9.0), copy(2.7)
    verdicts = [estimate_set([Calibrated()], target, reference)[0]["loss"]["calibrated"].doubts for target in (far, near)]
    assert "the target lies outside of the range seen" in verdicts[0]
    assert "the target lies outside of the range seen" not in verdicts[1]

"""The calibrated estimator on readings, and its options."""

import math

import pytest
import torch

from lightning_tansens._peers.calibration import Calibration, calibrated_estimates, check_features
from lightning_tansens._peers.calibration.features import log_features
from lightning_tansens._peers.calibration.ridge import Ridge
from lightning_tansens._peers.estimated import Undefined
from lightning_tansens._peers.reading import Reading
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity
from lightning_tansens.metrics.uncertainty import Influence

FEATURES = ["entropy", "confidence", "sensitivity", "active_nodes"]


def reading(entropy=1.0, doubt=0.25, sensitivity=2.0, nodes=50.0, loss=1.0, accuracy=0.5):
    count = torch.tensor(10.0)
    summaries = {
        "entropy_ratio": {"entropy": 10 * torch.tensor(entropy), "count": count},
        "average_confidence": {"confidence": 10 * torch.tensor(1 - doubt), "count": count},
    }
    values = {"empirical": {"empirical": sensitivity}, "active_nodes": {"active_nodes_mean": nodes}}
    return Reading(values, 100, loss=loss, accuracy=accuracy, wrong=50, summaries=summaries)


def test_features_are_logarithms_of_means():
    logarithms = [math.log(value) for value in (1.5, 0.2, 3.0, 40.0)]
    assert log_features(reading(1.5, 0.2, 3.0, 40.0), FEATURES) == pytest.approx(logarithms, rel=1e-6)


def copies():
    """The loss is the reference's times the entropy's ratio squared; the error rate grows with its root."""
    return [reading(entropy=ratio, loss=ratio**2, accuracy=1 - 0.5 * ratio**0.5) for ratio in (1.1, 1.3, 1.6, 2.0)]


def test_a_law_of_powers_is_found():
    target = reading(entropy=1.5, loss=None, accuracy=None)
    loss, accuracy = calibrated_estimates(["entropy"], reading(), copies(), target)
    assert (loss.quantity, loss.name) == ("loss", "calibrated")
    assert loss.value == pytest.approx(1.5**2, rel=1e-3)
    assert accuracy.value == pytest.approx(1 - 0.5 * 1.5**0.5, rel=1e-3)
    assert loss.evidence.inside is True


def test_values_and_errors_are_those_of_the_fit():
    target = reading(entropy=2.5, sensitivity=3.0)
    sets = [
        reading(entropy=e, sensitivity=s, loss=loss) for e, s, loss in ((1.2, 2.5, 1.3), (1.5, 1.0, 1.1), (2.0, 2.2, 2.4))
    ]
    points = [[a, s - math.log(2)] for a, s in (log_features(of, ["entropy", "sensitivity"]) for of in sets)]
    expected = Ridge(points, [math.log(s.loss) for s in sets]).predict([math.log(2.5), math.log(1.5)])
    loss, _ = calibrated_estimates(["entropy", "sensitivity"], reading(), sets, target)
    assert loss.value == pytest.approx(math.exp(expected.value), rel=1e-6)
    assert loss.stderr == pytest.approx(math.exp(expected.value) * expected.stderr, rel=1e-5)
    assert loss.evidence.inside is expected.inside is False


def test_the_error_of_the_reference_s_own_loss_counts():
    influence = Influence(torch.tensor([0.5, -0.5] * 10), torch.arange(20))
    noisy = Reading(**{**vars(reading()), "loss_influence": influence})
    (loss, _), (without, _) = (list(calibrated_estimates(["entropy"], r, copies(), reading())) for r in (noisy, reading()))
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
    *_, last = calibrated_estimates(["entropy"], reference, sets, reading())
    assert isinstance(last, Undefined)
    assert message in last.reason


def test_a_feature_that_is_not_finite_is_named():
    with pytest.raises(UndefinedEstimateError, match="expected a positive mean sensitivity on every set, but it is nan"):
        log_features(reading(sensitivity=math.nan), FEATURES)


def test_features_need_their_measures():
    check_features(FEATURES, [EmpiricalSensitivity(), ActiveNodeSensitivity()])
    check_features(Calibration().features, [])
    with pytest.raises(ValueError, match="features: expected a measure with the key 'empirical' for the feature"):
        check_features(["sensitivity"], [])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"noise_scales": [0.1], "masked_shares": [], "contrasts": [0.5]},
            ValueError,
            "noise_scales: expected 3 copies or more to fit on, with .*transforms, but got 2; add some",
        ),
        ({"noise_scales": [0.1, 0.2, -1]}, ValueError, "noise_scales: expected a finite number >= 0"),
        ({"masked_shares": [1.0]}, ValueError, "masked_shares: expected a number between 0 and 1"),
        ({"contrasts": [-0.5]}, ValueError, "contrasts: expected a finite number >= 0"),
        ({"contrasts": 0.5}, TypeError, "contrasts: expected a list"),
        ({"noise_scales": 0.1}, TypeError, "noise_scales: expected a list"),
        ({"transforms": "blur"}, TypeError, "transforms: expected a list"),
        ({"transforms": ["blur"]}, TypeError, "transforms: expected a callable"),
        ({"transforms": [None]}, TypeError, "transforms: expected callables on a sample, but got None"),
        ({"features": ["entropy", "margin"]}, ValueError, "features: expected one of"),
        ({"features": []}, TypeError, "features: expected a list of features"),
    ],
)
def test_wrong_options_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Calibration(**arguments)

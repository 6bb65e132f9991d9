"""What all estimators have in common: labels, degenerate sets, unusable samples, failures, order."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from torch.nn.functional import mse_loss

from lightning_tansens import estimators as room
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators import (
    EntropyDifference,
    EntropyRatio,
    Estimator,
    MaNo,
    Need,
    Outputs,
    PseudoLabelLoss,
    SetSummary,
    default_estimators,
    estimate_set,
    score_set,
)
from lightning_tansens.estimators.spread import binomial_error, error_of_mean, root_of_squares, scaled
from lightning_tansens.record import TRIVIAL, Estimate, Missing
from tests.estimators.data import CLASSES, EARLIER, LABELS, REFERENCE, TARGET, by_key, estimated, score, summary, trajectory

KEYS = [estimator.key for estimator in default_estimators()]
ESTIMATING = [estimator.key for estimator in default_estimators() if estimator.quantities]
SCORING = ["average_confidence", "nuclear_norm", "mano", "dispersion"]
NEED_LABELS = [key for key in ESTIMATING if key != "average_confidence"]


def test_no_estimator_is_forgotten():
    public = {value for value in vars(room).values() if inspect.isclass(value) and issubclass(value, Estimator)}
    by_themselves = {room.Estimator, room.Score, room.MeasureRatio, room.Trivial, room.Calibrated}
    assert {type(estimator) for estimator in default_estimators()} == public - by_themselves
    assert len(set(KEYS)) == len(KEYS)
    assert TRIVIAL not in KEYS


def test_the_default_ones_are_given_the_criterion_and_the_pseudo_labels():
    found = default_estimators(mse_loss, "signs")
    given = {e.key: (e.criterion, e.pseudo_labels) for e in found if hasattr(e, "criterion")}
    assert given == dict.fromkeys(["estimate", "pseudo_label_loss"], (mse_loss, "signs"))
    assert [estimator.key for estimator in found] == KEYS


def test_every_estimator_gives_what_it_says():
    for key in ESTIMATING:
        assert set(estimated(key)) == set(by_key(key).quantities)
    scores, missing = score_set(default_estimators(), summary(TARGET))
    assert sorted(scores) == sorted(SCORING)
    assert not missing


@pytest.mark.parametrize("key", ESTIMATING)
def test_labels_of_a_target_change_nothing(key):
    reference = summary(REFERENCE, LABELS)
    without = by_key(key).estimate(summary(TARGET), reference)
    for labels in (np.zeros(40, int), TARGET.argmax(1)):
        labelled = replace(summary(TARGET, labels), loss=float(labels.sum()), accuracy=0.3, wrong=3.0)
        assert by_key(key).estimate(labelled, reference) == without


@pytest.mark.parametrize("key", NEED_LABELS)
def test_a_reference_without_labels_is_refused(key):
    message = "expected a loss of" if key == "pseudo_label_loss" else "expected labels for the target set's 60 samples"
    with pytest.raises(UndefinedEstimateError, match=message):
        by_key(key).estimate(summary(TARGET), summary(REFERENCE))


@pytest.mark.parametrize("key", ESTIMATING)
@pytest.mark.parametrize("nothing", [None, Outputs.of(np.zeros((0, CLASSES)))], ids=["none", "empty"])
def test_an_empty_set_is_refused(key, nothing):
    with pytest.raises(UndefinedEstimateError, match="expected samples in the test set, but it is empty"):
        by_key(key).estimate(SetSummary("test", outputs=nothing), summary(REFERENCE, LABELS))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("place", [(3, 1), (slice(0, 19), 2)], ids=["one", "just under a half"])
def test_samples_without_finite_outputs_are_left_out(key, place):
    outputs = TARGET.copy()
    outputs[place] = math.nan
    kept = np.isfinite(outputs).all(1)
    earlier = trajectory(EARLIER[id(TARGET)])
    features = summary(TARGET).outputs.features
    broken = SetSummary("test", outputs=Outputs.of(outputs, None, features, earlier))
    whole = SetSummary("test", outputs=Outputs.of(outputs[kept], None, features[kept], earlier.selected(kept)))
    assert broken.outputs.unusable == 40 - kept.sum()
    reference = summary(REFERENCE, LABELS)
    assert by_key(key).estimate(broken, reference) == by_key(key).estimate(whole, reference)
    assert by_key(key).scores(broken) == by_key(key).scores(whole)


@pytest.mark.parametrize("key", ESTIMATING)
def test_a_set_of_which_most_is_unusable_has_no_estimate(key):
    outputs = TARGET.copy()
    outputs[:20, 1] = math.inf
    broken = SetSummary("test", outputs=Outputs.of(outputs, earlier=trajectory(EARLIER[id(TARGET)])))
    with pytest.raises(UndefinedEstimateError, match="20 of the test set's 40 samples have none"):
        by_key(key).estimate(broken, summary(REFERENCE, LABELS))


@pytest.mark.parametrize("key", [key for key in KEYS if Need.EARLIER in by_key(key).needs and key != "estimate"])
def test_a_first_measurement_is_told(key):
    target = SetSummary("test", outputs=Outputs.of(TARGET))
    with pytest.raises(
        UndefinedEstimateError, match="expected earlier measurements of the same samples, but this is the first"
    ):
        by_key(key).estimate(target, replace(summary(REFERENCE, LABELS), outputs=Outputs.of(REFERENCE, LABELS)))


# the pseudo-label loss asks for a criterion instead
OF_CLASSES = [key for key in ESTIMATING if Need.CLASSES in by_key(key).needs and key != "pseudo_label_loss"]


@pytest.mark.parametrize("key", OF_CLASSES)
def test_outputs_that_are_no_class_scores_are_refused(key):
    regression = SetSummary("test", outputs=Outputs.of(np.zeros((40, 3, 2))))
    with pytest.raises(UndefinedEstimateError, match=r"expected class scores of shape \(N, C\), but got shape \(40, 3, 2\)"):
        by_key(key).estimate(regression, replace(regression, loss=1.0))


def test_the_order_of_the_samples_does_not_matter():
    order = np.random.default_rng(3).permutation(40)
    target = Outputs.of(TARGET[order], earlier=trajectory([snapshot[order] for snapshot in EARLIER[id(TARGET)]]))
    for key in ESTIMATING:
        found = by_key(key).estimate(SetSummary("test", outputs=target), summary(REFERENCE, LABELS))
        for quantity, estimate in estimated(key).items():
            assert found[quantity].value == pytest.approx(estimate.value, rel=1e-9)


def test_a_masked_class_is_no_missing_output():
    masked = np.concatenate([TARGET, np.full((40, 1), -math.inf)], 1)
    assert Outputs.of(masked).unusable == 0
    assert Outputs.of(masked).entropies == pytest.approx(Outputs.of(TARGET).entropies)
    assert Outputs.of(np.full((3, 2), -math.inf)).unusable == 3


@pytest.mark.parametrize("logits", [np.array([2.0, -1.0]), np.array([[2.0], [-1.0]])])
def test_a_single_logit_is_the_second_of_two_classes(logits):
    outputs = Outputs.of(logits, [1, 1], is_classifier=True)
    assert outputs.probabilities[:, 1] == pytest.approx(1 / (1 + np.exp([-2.0, 1.0])))
    assert outputs.correct.tolist() == [1, 0]


def test_outputs_say_what_does_not_fit():
    with pytest.raises(ValueError, match="labels: expected classes from 0 to 1, as many as outputs, but got 0 to 2"):
        Outputs.of(np.zeros((2, 2)), [0, 2])
    with pytest.raises(ValueError, match=r"labels: expected shape \(3,\), one row for each sample, but got \(2,\)"):
        Outputs.of(np.zeros((3, 2)), [0, 1])
    with pytest.raises(ValueError, match=r"features: expected shape \(3, F\), one row for each sample, but got \(2, 5\)"):
        Outputs.of(np.zeros((3, 2)), features=np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"outputs: expected class scores of shape \(N, C\), but got shape \(3, 2, 2\)"):
        Outputs.of(np.zeros((3, 2, 2)), is_classifier=True)
    with pytest.raises(ValueError, match=r"outputs: expected shape \(N, ...\), but got shape \(\)"):
        Outputs.of(1.0)
    with pytest.raises(ValueError, match="labels: expected outputs with labels, but these have none"):
        Outputs.of(TARGET).losses  # noqa: B018


def test_missing_features_are_told():
    _, missing = score_set([by_key("dispersion")], SetSummary("test", outputs=Outputs.of(TARGET)))
    assert "expected features, the input of the network's last layer, but got none" in missing["dispersion"].reason


def test_one_predicted_class_has_no_dispersion():
    assert score("dispersion", np.tile([1.0, 0.0], (5, 1))) == -math.inf


def test_certain_references_have_no_ratio_of_entropies():
    with pytest.raises(UndefinedEstimateError, match="all of its predictions are certain"):
        estimated("entropy_ratio", reference=1e6 * np.eye(CLASSES), labels=np.arange(CLASSES))


def test_bins_without_a_common_sample_are_refused():
    with pytest.raises(UndefinedEstimateError, match="expected a bin of confidences in which both sets have samples"):
        estimated("importance_weighting", np.zeros((1, 2)), np.array([[9.0, 0.0]]), [0])


@pytest.mark.parametrize("order", [0, 1.5])
def test_wrong_orders_are_refused(order):
    with pytest.raises(ValueError, match="order: expected a positive integer"):
        MaNo(order)


def test_wrong_thresholds_are_refused():
    with pytest.raises(ValueError, match="threshold: expected a finite number"):
        MaNo(threshold=math.nan)


def test_wrong_criteria_are_refused():
    with pytest.raises(TypeError, match="criterion: expected a callable or None, but got 'mse'"):
        PseudoLabelLoss("mse")
    with pytest.raises(ValueError, match="pseudo_labels: expected one of"):
        PseudoLabelLoss(pseudo_labels="labels")


def test_spreads():
    numbers = np.array([1.0, 2.0, 4.0])
    assert error_of_mean(numbers) == pytest.approx(numbers.std(ddof=1) / math.sqrt(3))
    assert math.isnan(error_of_mean(numbers[:1]))
    assert math.isnan(binomial_error(0.5, 0))
    assert root_of_squares(3.0, 4.0) == 5
    assert root_of_squares(3.0, math.nan) is None
    assert scaled(0.0, numbers, numbers, np.zeros(3)) == Estimate(0.0)


class Failing(Estimator):
    key = "failing"
    quantities = ("loss",)

    def _estimate(self, target, reference):
        raise ZeroDivisionError("by hand")

    def scores(self, summary):
        raise KeyError("gone")


class Fixed(Estimator):
    key = "fixed"
    quantities = ("loss", "accuracy")

    def __init__(self, **estimates):
        self.estimates = estimates

    def _estimate(self, target, reference):
        return self.estimates


@pytest.mark.parametrize(
    ("earlier", "expected"), [(0, ["temporal_ensemble", "agreement_line_s"]), (1, ["agreement_line_s"])]
)
def test_an_estimate_that_comes_later_in_the_run_is_told_apart(earlier, expected):
    past = [trajectory(EARLIER[id(outputs)][:earlier]) if earlier else None for outputs in (TARGET, REFERENCE)]
    target = SetSummary("test", outputs=Outputs.of(TARGET, earlier=past[0]))
    reference = SetSummary("val", outputs=Outputs.of(REFERENCE, LABELS, earlier=past[1]))
    estimators = [by_key(key) for key in ("temporal_ensemble", "agreement_line_s")]
    _, missing = estimate_set([*estimators, Failing()], target, reference)
    assert [key for key, one in missing.items() if one.too_early] == expected
    assert not missing["failing"].too_early


def test_an_estimator_that_fails_loses_its_own_estimates():
    reference = replace(summary(REFERENCE, LABELS), loss=1.0)
    found, missing = estimate_set([Failing(), by_key("entropy_ratio")], summary(TARGET), reference)
    assert list(found["loss"]) == [TRIVIAL, "entropy_ratio"]
    assert missing == {"failing": Missing("it failed with ZeroDivisionError: by hand")}
    assert score_set([Failing()], reference) == ({}, {"failing": Missing("it failed with KeyError: 'gone'")})


def test_estimates_are_finite_and_shares_are_shares():
    with pytest.raises(UndefinedEstimateError, match="expected a finite loss, but the estimate is nan"):
        Fixed(loss=Estimate(math.nan)).estimate(SetSummary("test"), SetSummary("val"))
    found = Fixed(accuracy=Estimate(1.2, math.nan)).estimate(SetSummary("test"), SetSummary("val"))
    assert found == {"accuracy": Estimate(1.0, None, has_flag=False)}


@pytest.mark.parametrize("estimator", [EntropyRatio(), EntropyDifference()], ids=lambda estimator: estimator.key)
def test_a_loss_of_another_criterion_is_estimated_in_its_units(estimator):
    generator = np.random.default_rng(0)
    reference = Outputs.of(generator.normal(size=(50, 3)), generator.integers(0, 3, 50))
    target = SetSummary("test", 50, Outputs.of(2 * generator.normal(size=(50, 3))))
    own = float(reference.losses.mean())
    plain = estimator.estimate(target, SetSummary("val", 50, reference, loss=own))["loss"]
    weighted = estimator.estimate(target, SetSummary("val", 50, reference, loss=0.3 * own))["loss"]
    assert weighted.value == pytest.approx(0.3 * plain.value)
    assert weighted.stderr == pytest.approx(0.3 * plain.stderr)


def test_what_measures_made_of_a_target_s_labels_reaches_no_estimator():
    seen = SetSummary("test", 9, values={"mine": {"mine": 1.0}, "plain": {"plain": 2.0}}, of_labels=("mine",))
    assert seen.unlabelled().values == {"plain": {"plain": 2.0}}
    assert seen.unlabelled().of_labels == ()

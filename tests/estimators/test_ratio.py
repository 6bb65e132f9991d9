"""Estimates from a ratio in logarithms."""

import math
from dataclasses import replace

import pytest
import torch

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators import MeasureRatio, SetSummary, Trivial
from lightning_tansens.estimators.ratio import scale_accuracy, scale_loss
from lightning_tansens.metrics import EmpiricalSensitivity, LayerwiseNormSensitivity
from lightning_tansens.metrics.uncertainty import Influence, relative_standard_error


@pytest.mark.parametrize(("ratio", "loss", "expected"), [(1, 1.25, 1.25), (2, 0.5, 1.0), (0.1, 3.0, 0.3), (5, 0.0, 0.0)])
def test_loss(ratio, loss, expected):
    assert scale_loss(math.log(ratio), loss) == pytest.approx(expected)


def test_loss_beyond_the_range_of_floats():
    assert scale_loss(1000.0, 1.0) == math.inf
    assert scale_loss(math.inf, 1.0) == math.inf
    assert scale_loss(1000.0, -1.0) == -math.inf
    assert scale_loss(1000.0, 0.0) == 0
    assert scale_loss(-math.inf, 1.0) == 0
    assert math.isnan(scale_loss(math.nan, 1.0))
    assert math.isnan(scale_loss(0.0, math.nan))


@pytest.mark.parametrize(
    ("ratio", "accuracy", "by_error", "by_ratio"),
    [
        (1, 0.9, 0.9, 0.9),
        (2, 0.9, 0.8, 1.0),
        (0.5, 0.8, 0.9, 0.4),
        (20, 0.9, 0.0, 1.0),
        (3, 1.0, 1.0, 1.0),
        (2, 0.0, 0.0, 0.0),
    ],
)
def test_accuracy(ratio, accuracy, by_error, by_ratio):
    assert scale_accuracy(math.log(ratio), accuracy) == pytest.approx(by_error)
    assert scale_accuracy(math.log(ratio), accuracy, "error") == pytest.approx(by_error)
    assert scale_accuracy(math.log(ratio), accuracy, "ratio") == pytest.approx(by_ratio)


@pytest.mark.parametrize("form", ["error", "ratio"])
def test_an_undefined_ratio_has_no_accuracy(form):
    assert math.isnan(scale_accuracy(math.nan, 0.5, form))
    assert 0 <= scale_accuracy(1000.0, 0.5, form) <= 1


def test_wrong_form():
    with pytest.raises(ValueError, match=r"form: expected one of .*'ratio'.*, but got 'both'"):
        scale_accuracy(0.0, 0.5, "both")


def influence(values):
    return Influence(values / values.mean() - 1, torch.arange(len(values)))


def sets():
    """A target and a reference whose measure is the mean of one number a sample, the reference's with losses."""
    gamma = torch.distributions.Gamma(4.0, 1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        of_target, of_reference, losses = 1.5 * gamma.sample((200,)), gamma.sample((300,)), gamma.sample((300,)) / 8
    found = []
    for name, values in (("test", of_target), ("val", of_reference)):
        found.append(
            SetSummary(
                name,
                len(values),
                values={"empirical": {"empirical": float(values.double().mean())}},
                influences={"empirical": influence(values.double())},
                distributions={"empirical": {"": values}},
                weights={"layer_norm": {"layer_norm": 2.0}},
            )
        )
    loss = {"loss": float(losses.mean()), "accuracy": 0.8, "wrong": 60.0, "loss_influence": influence(losses.double())}
    return found[0], replace(found[1], **loss)


def test_a_ratio_scales_loss_and_error_with_the_error_of_both_sets():
    target, reference = sets()
    found = MeasureRatio(EmpiricalSensitivity()).estimate(target, reference)
    ratio = target.values["empirical"]["empirical"] / reference.values["empirical"]["empirical"]
    assert found["loss"].value == pytest.approx(ratio * reference.loss)
    assert found["accuracy"].value == pytest.approx(1 - 0.2 * ratio)
    terms = [reference.loss_influence, target.influences["empirical"], reference.influences["empirical"]]
    assert found["loss"].stderr == pytest.approx(found["loss"].value * relative_standard_error(terms, [1, 1, -1]))
    own, of_ratio = math.sqrt(0.8 * 0.2 / 300), relative_standard_error(terms[1:], [1, -1])
    assert found["accuracy"].stderr == pytest.approx(ratio * math.hypot(own, 0.2 * of_ratio))


def test_the_papers_form_scales_the_accuracy_itself():
    target, reference = sets()
    found = MeasureRatio(EmpiricalSensitivity(), "ratio").estimate(target, reference)
    assert found["accuracy"].value == 1  # 0.8 times about 1.5
    with pytest.raises(ValueError, match="accuracy_form: expected one of"):
        MeasureRatio(EmpiricalSensitivity(), "both")
    with pytest.raises(TypeError, match=r"measure: expected a SensitivityMeasure, .* but got 'empirical'"):
        MeasureRatio("empirical")


def test_the_trivial_estimate_is_the_references_with_its_own_error():
    found = Trivial().estimate(*sets())
    reference = sets()[1]
    assert (found["loss"].value, found["accuracy"].value) == (reference.loss, 0.8)
    assert found["loss"].stderr == pytest.approx(reference.loss * relative_standard_error([reference.loss_influence]))
    assert found["accuracy"].stderr == pytest.approx(math.sqrt(0.8 * 0.2 / 300))


def test_a_measure_of_the_weights_compares_now_with_before():
    target, reference = sets()
    target = replace(target, weights={"layer_norm": {"layer_norm": 3.0}})
    estimator = MeasureRatio(LayerwiseNormSensitivity())
    factor = math.exp(LayerwiseNormSensitivity().log_ratio({"layer_norm": 3.0}, {"layer_norm": 2.0}))
    found = estimator.estimate(target, reference)["loss"]
    assert found.value == pytest.approx(factor * reference.loss)
    assert found.stderr is None
    assert not estimator.looks_at_target
    with pytest.raises(UndefinedEstimateError, match="expected values of layer_norm on both sets, but val has none"):
        estimator.estimate(target, replace(reference, weights={}))


@pytest.mark.parametrize(("factor", "inside"), [(1.0, True), (5.0, False), (0.01, False)])
@pytest.mark.parametrize("known", ["distributions", "influences"])
def test_the_range_seen_is_the_references_samples(factor, inside, known):
    target, reference = sets()
    mean = factor * reference.values["empirical"]["empirical"]
    target = replace(
        target, values={"empirical": {"empirical": mean}}, distributions={"empirical": {"": torch.full((9,), mean)}}
    )
    if known == "influences":
        reference = replace(reference, distributions={})
    assert MeasureRatio(EmpiricalSensitivity()).inside(target, reference) is inside


def test_a_range_that_is_not_known():
    target, reference = sets()
    blind = replace(reference, distributions={}, influences={})
    assert MeasureRatio(EmpiricalSensitivity()).inside(target, blind) is None

"""What speaks against an estimate: the rules by themselves, and the evidence that is taken from the sets."""

import math
from dataclasses import replace

import pytest

from lightning_tansens.estimators import Estimator, Limits, Reason, SetSummary, Trivial, estimate_set
from lightning_tansens.estimators.doubts import doubts, with_doubts
from lightning_tansens.record import Estimate
from tests.estimators.data import LABELS, REFERENCE, TARGET, by_key, summary

GOOD = {"samples": 100, "errors": 20, "relative_error": 0.1, "inside": True}


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, ()),
        ({"errors": 15}, (Reason.FEW_ERRORS,)),
        ({"errors": None}, ()),
        ({"inside": False}, (Reason.OUT_OF_RANGE,)),
        ({"inside": None}, ()),
        ({"samples": 29}, (Reason.FEW_SAMPLES,)),
        ({"relative_error": 0.21}, (Reason.FEW_SAMPLES,)),
        ({"relative_error": None}, (Reason.NO_ERROR,)),
        ({"of_target": False}, (Reason.NO_DATA,)),
        ({"relative_error": math.nan}, (Reason.FEW_SAMPLES,)),
        ({"relative_error": 0.2}, ()),
        (
            {"samples": 1, "errors": 0, "relative_error": None, "inside": False, "of_target": False},
            tuple(Reason),
        ),
    ],
)
def test_reasons(change, reasons):
    assert set(doubts(**{**GOOD, **change})) == set(reasons)


def test_limits_are_the_users():
    evidence = {**GOOD, "samples": 10}
    assert doubts(**evidence, limits=Limits(samples=10)) == ()
    assert set(doubts(**evidence, limits=Limits(samples=11))) == {Reason.FEW_SAMPLES}
    assert set(doubts(**evidence, limits=Limits(errors=21, samples=0, relative_error=0.05))) == {
        Reason.FEW_ERRORS,
        Reason.FEW_SAMPLES,
    }


@pytest.mark.parametrize("name", ["errors", "samples", "relative_error", "deviations"])
def test_wrong_limits_are_named(name):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        Limits(**{name: -1})


class Known(Estimator):
    key = "known"
    quantities = ("loss", "accuracy")
    needs = frozenset()

    def _estimate(self, target, reference):
        return {}


SETS = SetSummary("test", 100), SetSummary("val", 200, loss=0.5, accuracy=0.8, wrong=40.0)


@pytest.mark.parametrize(
    ("quantity", "value", "stderr", "verdict"),
    [
        ("loss", 0.6, 0.09, "worse"),
        ("loss", 0.4, 0.07, "better"),
        ("loss", 0.6, 0.11, "like the reference"),
        ("accuracy", 0.6, 0.09, "worse"),
        ("accuracy", 0.9, 0.05, "better"),
        ("accuracy", 0.9, None, "unsure"),
    ],
)
def test_a_verdict_compares_with_the_trivial_estimate(quantity, value, stderr, verdict):
    found = with_doubts(Estimate(value, stderr), quantity, Known(), *SETS)
    assert found.verdict == verdict
    assert with_doubts(Estimate(value, stderr), quantity, Known(), *SETS, Limits(deviations=9)).verdict in (
        "like the reference",
        "unsure",
    )
    # to be like the reference is no doubt, an unknown error is
    assert found.doubts == (() if stderr is not None else (Reason.NO_ERROR.value,))


class Flagged(Known):
    has_flag = True


@pytest.mark.parametrize("stderr", [0.01, None])
def test_only_an_estimator_whose_doubts_tell_is_called_reliable(stderr, monkeypatch):
    monkeypatch.setattr(Known, "_estimate", lambda self, target, reference: {"loss": Estimate(0.6, stderr)})
    assert Known().estimate(*SETS)["loss"].reliable is None
    known, flagged = (estimate_set([estimator()], *SETS)[0]["loss"]["known"] for estimator in (Known, Flagged))
    assert known.doubts == flagged.doubts
    assert known.reliable is None
    assert flagged.reliable is (stderr is not None)
    assert ("doubts: " in str(known), "not reliable: " in str(flagged)) == (stderr is None, stderr is None)


def test_an_estimators_own_verdict_and_doubts_stay():
    own = Estimate(0.6, 0.01, doubts=("mine",), verdict="unsure")
    found = with_doubts(own, "loss", Known(), SETS[0], replace(SETS[1], wrong=3.0))
    assert (found.verdict, found.doubts) == ("unsure", ("mine", Reason.FEW_ERRORS.value))


def test_the_trivial_estimate_does_not_look_at_the_target():
    found, _ = estimate_set([], *SETS)
    assert Reason.NO_DATA.value in found["accuracy"]["trivial"].doubts
    assert found["accuracy"]["trivial"].verdict is None
    assert not Trivial().looks_at_target


def test_samples_are_those_that_the_estimate_looks_at():
    """The measures may see fewer samples than the outputs are gathered for."""
    target, reference = summary(TARGET), replace(summary(REFERENCE, LABELS), wrong=20.0, accuracy=0.6)
    few = replace(target, samples=5)
    judge = {"quantity": "accuracy", "target": few, "reference": reference, "limits": Limits(samples=40)}
    assert with_doubts(Estimate(0.6, 0.01), estimator=by_key("cbpe"), **judge).doubts == ()
    assert with_doubts(Estimate(0.6, 0.01), estimator=Known(), **judge).doubts == (Reason.FEW_SAMPLES.value,)


def test_an_estimate_of_zero_without_error_is_no_relative_error():
    assert with_doubts(Estimate(0.0, 0.0), "loss", Flagged(), *SETS).reliable
    assert not with_doubts(Estimate(0.0, 0.1), "loss", Flagged(), *SETS).reliable

"""Why an estimate is not trusted: the rules by themselves, and what the monitor makes of a run."""

import csv
import math

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning_tansens._peers.trust import Evidence, Limits, Reason, doubts

from lightning_tansens import TangentSensitivityMonitor
from tests.boring import BoringModule, Points, fit, make_monitor, mlp

GOOD = {"samples": 100, "errors": 20, "change": 0.5, "change_stderr": 0.1, "relative_error": 0.1, "inside": True}


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, ()),
        ({"errors": 15}, (Reason.FEW_ERRORS,)),
        ({"errors": None}, ()),
        ({"change": -0.1}, (Reason.LIKE_TRIVIAL,)),
        ({"change": -0.11}, ()),
        ({"change": 0.0, "change_stderr": None}, (Reason.LIKE_TRIVIAL,)),
        ({"change": None}, ()),
        ({"inside": False}, (Reason.OUT_OF_RANGE,)),
        ({"inside": None}, ()),
        ({"samples": 29}, (Reason.FEW_SAMPLES,)),
        ({"relative_error": 0.21}, (Reason.FEW_SAMPLES,)),
        ({"relative_error": None}, ()),
        ({"of_target": False}, (Reason.NO_DATA,)),
        ({"change": math.nan}, (Reason.LIKE_TRIVIAL,)),
        ({"change_stderr": math.nan}, (Reason.LIKE_TRIVIAL,)),
        ({"relative_error": math.nan}, (Reason.FEW_SAMPLES,)),
        ({"relative_error": 0.2}, ()),
        ({"samples": 1, "errors": 0, "change": 0.0, "inside": False, "of_target": False}, tuple(Reason)),
    ],
)
def test_reasons(change, reasons):
    assert set(doubts(Evidence(**{**GOOD, **change}))) == set(reasons)


def test_limits_are_the_users():
    evidence = Evidence(**{**GOOD, "samples": 10, "change": 0.15})
    assert doubts(evidence, Limits(samples=10)) == ()
    assert set(doubts(evidence, Limits(samples=11, deviations=2))) == {Reason.FEW_SAMPLES, Reason.LIKE_TRIVIAL}
    assert set(doubts(evidence, Limits(errors=21, samples=0, relative_error=0.05))) == {
        Reason.FEW_ERRORS,
        Reason.FEW_SAMPLES,
    }


@pytest.mark.parametrize("name", ["errors", "samples", "relative_error", "deviations"])
def test_wrong_limits_are_named(name):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        Limits(**{name: -1})


def test_what_is_no_limits_is_refused():
    with pytest.raises(TypeError, match="limits: expected Limits or None, but got 30"):
        TangentSensitivityMonitor(limits=30)


def test_seven_samples_are_too_few(capsys):
    monitor = make_monitor(verbose=True)
    fit(monitor)
    assert monitor.history[-1]["tansens/test_loss/empirical_trusted"] == 0
    assert "too few samples" in capsys.readouterr().out


def test_a_target_far_out_of_the_references_range_is_noticed(capsys):
    far = Points(10, seed=2)
    far.inputs = far.inputs * 100
    lax = Limits(errors=0, samples=0, relative_error=10, deviations=0)
    said = []
    for target in (Points(10, seed=2), far):
        monitor = make_monitor(test_dataloaders=target, limits=lax, num_samples=10, verbose=True)
        # far out a smooth network is flat
        smooth = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
        fit(monitor, module=lambda smooth=smooth: BoringModule(smooth), max_epochs=1)
        said.append((monitor.history[0]["tansens/test_loss/empirical_trusted"], capsys.readouterr().out))
    assert said[0][0] == 1
    assert said[1][0] == 0
    assert Reason.OUT_OF_RANGE.value not in said[0][1]
    assert Reason.OUT_OF_RANGE.value in said[1][1]


def test_what_does_not_look_at_the_target_is_not_trusted():
    monitor = make_monitor()
    fit(monitor)
    for name in ("trivial", "layer_norm"):
        assert monitor.history[-1][f"tansens/test_loss/{name}_trusted"] == 0


def test_a_reference_without_errors_has_none_to_scale():
    certain = mlp()
    with torch.no_grad():
        certain[2].weight.zero_()
        certain[2].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    data = Points(12)
    data.labels = torch.zeros_like(data.labels)
    monitor = make_monitor(
        test_dataloaders=Points(10), reference=data, limits=Limits(samples=0, errors=1, relative_error=10)
    )
    fit(monitor, module=lambda: BoringModule(certain, lr=0.0), max_epochs=1)
    assert monitor.history[0]["tansens/reference_accuracy"] == 1
    assert monitor.history[0]["tansens/test_loss/trivial_trusted"] == 0


def test_a_run_keeps_its_scorecard_and_its_doubts(tmp_path, capsys):
    monitor = make_monitor(compare_with_labels=True, verbose=True)
    trainer = fit(monitor, logger=CSVLogger(tmp_path))
    with open(f"{trainer.log_dir}/tansens_scorecard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["estimator"] for row in rows} == {"trivial", "empirical", "layer_norm", "active_nodes"}
    expected = monitor.scorecard.compute()
    assert [float(row["mae"]) for row in rows] == [score.mae for score in expected]
    (said,) = [path.read_text() for path in tmp_path.rglob("tansens_trust.md")]
    assert "| tansens/test_loss/empirical | False | " in said
    assert "regret" in capsys.readouterr().out


def test_without_the_truth_there_is_no_scorecard(tmp_path):
    monitor = make_monitor()
    fit(monitor, logger=CSVLogger(tmp_path))
    assert monitor.scorecard.compute() == []
    assert not list(tmp_path.rglob("*scorecard*"))
    assert list(tmp_path.rglob("tansens_trust.md"))

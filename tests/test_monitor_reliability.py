"""What speaks against an estimate, as the monitor finds it in a run."""

import csv

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_tansens.estimators import Limits, Reason
from lightning_tansens.monitor import Options
from tests.boring import BoringModule, Points, fit, make_monitor, mlp


def test_what_is_no_limits_is_refused():
    with pytest.raises(TypeError, match="limits: expected Limits, but got 30"):
        Options(limits=30)


def test_seven_samples_are_too_few(capsys):
    monitor = make_monitor(verbose=True)
    fit(monitor)
    doubts = monitor.records[-1].targets["test"].estimates["loss"]["empirical"].doubts
    assert Reason.FEW_SAMPLES.value in doubts
    assert doubts[0] in capsys.readouterr().out


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
        said.append((monitor.records[0].targets["test"].estimates["loss"]["empirical"].doubts, capsys.readouterr().out))
    assert said[0][0] == ()
    assert said[1][0] == (Reason.OUT_OF_RANGE.value,)
    assert Reason.OUT_OF_RANGE.value not in said[0][1]
    assert Reason.OUT_OF_RANGE.value in said[1][1]


def test_what_does_not_look_at_the_target_is_said():
    monitor = make_monitor()
    fit(monitor)
    for name in ("trivial", "layer_norm"):
        assert Reason.NO_DATA.value in monitor.records[-1].targets["test"].estimates["loss"][name].doubts


def test_a_reference_without_errors_has_none_to_scale():
    certain = mlp()
    with torch.no_grad():
        certain[2].weight.zero_()
        certain[2].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    data = Points(12)
    data.labels = torch.zeros_like(data.labels)
    limits = Limits(samples=0, errors=1, relative_error=10)
    monitor = make_monitor(test_dataloaders=Points(10), reference=data, limits=limits)
    fit(monitor, module=lambda: BoringModule(certain, lr=0.0), max_epochs=1)
    assert monitor.history[0]["tansens/reference_accuracy"] == 1
    assert Reason.FEW_ERRORS.value in monitor.records[0].targets["test"].estimates["loss"]["trivial"].doubts


def test_a_run_keeps_its_scorecard_and_its_doubts(tmp_path, capsys):
    monitor = make_monitor(compare_with_labels=True, verbose=True)
    trainer = fit(monitor, logger=CSVLogger(tmp_path))
    with open(f"{trainer.log_dir}/tansens_scorecard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["estimator"] for row in rows} == {"trivial", "empirical", "layer_norm", "active_nodes"}
    expected = monitor.scorecard.compute()
    assert [float(row["mae"]) for row in rows] == [score.mae for score in expected]
    (said,) = [path.read_text() for path in tmp_path.rglob("0_tansens_unlabelled_sets.md")]
    doubts = monitor.records[-1].targets["test"].estimates["loss"]["empirical"].doubts
    assert doubts
    assert f"| {doubts[0]}" in said.replace("<br>", " ")
    shown = capsys.readouterr().out
    assert "mean error: " in shown
    assert f"{trainer.log_dir}/tansens_scorecard.csv" in shown


def test_without_the_truth_there_is_no_scorecard(tmp_path):
    monitor = make_monitor()
    fit(monitor, logger=CSVLogger(tmp_path))
    assert monitor.scorecard.compute() == []
    assert not list(tmp_path.rglob("*scorecard*"))
    assert list(tmp_path.rglob("0_tansens_unlabelled_sets.md"))

"""A run that is killed and goes on from its last checkpoint logs what an uninterrupted one logs."""

import json
import signal
import sys

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_tansens.estimators import AverageConfidence, TemporalEnsemble
from lightning_tansens.metrics import (
    EmpiricalSensitivity,
    LayerwiseNormSensitivity,
    SensitivityMovement,
    SpectralNormSensitivity,
)
from tests.boring import BoringData, Points, fit, make_monitor
from tests.interrupted import EPOCHS, KILLED_IN
from tests.processes import ROOT, run


def start(folder, when):
    return run(sys.executable, "-W", "ignore", ROOT / "tests" / "interrupted.py", folder, when, limit=300)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = start(folder, "never")
    assert done.code == 0, done.complained[-2000:]
    return json.loads((folder / "history.json").read_text())


@pytest.mark.parametrize("when", ["epoch", "measurement", "checkpoint"])
def test_killed_and_resumed(when, whole, tmp_path):
    killed = start(tmp_path, when)
    assert killed.code == -signal.SIGKILL
    # nothing of the epoch in which it was killed is there, and what is there loads without unpickling code
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == [f"epoch={epoch}.ckpt" for epoch in range(KILLED_IN)]
    for path in tmp_path.glob("*.ckpt"):
        torch.load(path, weights_only=True)
    resumed = start(tmp_path, "never")
    assert resumed.code == 0, resumed.complained[-2000:]
    assert json.loads((tmp_path / "history.json").read_text()) == whole
    assert len(whole) == EPOCHS


def test_a_state_loads():
    monitor = make_monitor()
    fit(monitor, max_epochs=1)
    other = make_monitor()
    other.load_state_dict(monitor.state_dict())
    assert other.history == monitor.history


@pytest.mark.parametrize("field", ["records", "weights_before", "memories", "trajectories", "measured_step"])
def test_a_state_without_a_field_is_refused(field):
    monitor = make_monitor()
    fit(monitor, max_epochs=1)
    state = monitor.state_dict()
    del state[field]
    with pytest.raises(ValueError, match=f"but '{field}' is missing from it"):
        make_monitor().load_state_dict(state)


def test_a_state_of_something_else_says_why():
    message = "expected the state of a TangentSensitivityMonitor, but 'records' is missing from it"
    with pytest.raises(ValueError, match=message):
        make_monitor().load_state_dict({"weights_before": {}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("records", 3),
        ("records", [1, 2, 3]),
        ("records", [{"epoch": 0}]),
        ("memories", "x"),
        ("memories", {"test": {"empirical": 3}}),
        ("memories", {"test": {"empirical": {"first": "x"}}}),
        ("weights_before", {"layer_norm": {"layer_norm": "high"}}),
        ("weights_before", [0.5]),
        ("trajectories", {"test": {"samples": "a"}}),
        ("trajectories", {"test": 3}),
        ("measured_step", "x"),
        ("measured_step", True),
    ],
    ids=str,
)
def test_a_field_of_another_kind_is_named_in_one_line(field, value):
    state = {**make_monitor().state_dict(), field: value}
    with pytest.raises(ValueError, match=f"but its '{field}' is no such thing: ") as caught:
        make_monitor().load_state_dict(state)
    assert "\n" not in str(caught.value)


OTHERWISE = {
    "a measure of the weights": (
        {"measures": [EmpiricalSensitivity(), LayerwiseNormSensitivity(), SpectralNormSensitivity()]},
        ["the measure 'spectral_norm' starts now, as the checkpoint does not know it"],
        "spectral_norm",
    ),
    "a measure that remembers": (
        {"measures": [EmpiricalSensitivity(), SensitivityMovement()]},
        ["the measure 'movement' starts now, as the checkpoint does not know it"]
        + ["the measure 'layer_norm' does not go on"],
        "movement/test",
    ),
    "estimators": (
        {"estimators": [AverageConfidence(), TemporalEnsemble()]},
        ["the estimator 'average_confidence' starts now, as the checkpoint does not know it"],
        "test_accuracy/average_confidence",
    ),
    "a set": (
        {"test_dataloaders": {"test": Points(10, seed=2), "other": Points(9, seed=5)}},
        ["the set 'other' starts now, as the checkpoint does not know it"],
        "empirical/other",
    ),
    "the size of the subset": (
        {"num_samples": 9},
        ["9 samples of the train set are measured and no longer 7", "9 samples of the test set are measured"],
        "empirical/test",
    ),
    "the reference": (
        {"reference": Points(11, seed=4)},
        ["the reference 'reference' starts now, as the checkpoint does not know it"]
        + ["the reference 'train' does not go on"],
        "reference_loss",
    ),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_is_measured_otherwise_after_a_resume_starts_now_and_is_said_once(name, tmp_path, caplog):
    changed, notes, key = OTHERWISE[name]
    plain = {"measures": [EmpiricalSensitivity(), LayerwiseNormSensitivity()]}
    save = ModelCheckpoint(tmp_path, "first")
    fit(make_monitor(**plain), save, enable_checkpointing=True, max_epochs=1)
    monitor = make_monitor(**{**plain, **changed}, on_failure="raise")
    with caplog.at_level("INFO"):
        fit(monitor, ckpt_path=tmp_path / "first.ckpt", max_epochs=4)
    assert [row["epoch"] for row in monitor.history] == [0, 1, 2, 3]
    assert all(f"tansens/{key}" in row for row in monitor.history[2:])
    for note in notes:
        assert sum(note in message for message in caplog.messages) == 1, (note, caplog.messages)


def test_an_unchanged_run_goes_on_without_a_note(tmp_path, caplog):
    save = ModelCheckpoint(tmp_path, "first")
    fit(make_monitor(), save, enable_checkpointing=True, max_epochs=1)
    with caplog.at_level("INFO"):
        fit(make_monitor(), ckpt_path=tmp_path / "first.ckpt", max_epochs=2)
    assert not any("starts now" in message or "go on" in message for message in caplog.messages)


def test_a_fit_with_nothing_left_to_do_keeps_the_history(tmp_path):
    monitor, save = make_monitor(), ModelCheckpoint(tmp_path, "last")
    trainer = fit(monitor, save, enable_checkpointing=True)
    before = monitor.history
    trainer.fit(trainer.lightning_module, datamodule=BoringData())
    assert monitor.history == before
    fit(monitor, ckpt_path=tmp_path / "last.ckpt")
    assert monitor.history == before
    other = make_monitor()
    fit(other, ckpt_path=tmp_path / "last.ckpt")
    assert other.history == before
    assert len(before) == 2

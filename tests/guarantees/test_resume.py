"""A run that is killed and goes on from its last checkpoint logs what an uninterrupted one logs."""

import csv
import json
import shutil
import signal
import sys

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG

from lightning_tansens.estimators import AverageConfidence, TemporalEnsemble
from lightning_tansens.metrics import (
    EmpiricalSensitivity,
    LayerwiseNormSensitivity,
    SensitivityMovement,
    SpectralNormSensitivity,
)
from tests.boring import BoringData, Points, fit, make_monitor, unwrapped
from tests.interrupted import EPOCHS, KILLED_IN, STRAIGHT, WHOLE_OR_NOTHING, last_whole, train
from tests.processes import ROOT, run


def start(folder, when):
    return run(sys.executable, "-W", "ignore", ROOT / "tests" / "interrupted.py", folder, when, limit=300)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Returns a function that makes a folder, which nobody else uses, of a run that was killed at some moment."""
    folders = {}

    def copy_of(when):
        if when not in folders:
            folders[when] = tmp_path_factory.mktemp("killed")
            assert start(folders[when], when).code == -signal.SIGKILL
        return shutil.copytree(folders[when], tmp_path_factory.mktemp("again"), dirs_exist_ok=True)

    return copy_of


@pytest.mark.parametrize(
    ("when", "anew"),
    [(STRAIGHT, False), ("measurement", False), ("epoch", True), (WHOLE_OR_NOTHING, True), (STRAIGHT, True)],
)
@pytest.mark.thorough
def test_killed_and_resumed(when, anew, whole, killed):
    """It goes on in this process, or in one of its own."""
    folder = killed(when)
    # nothing of the epoch in which it was killed can be read, and what is there loads without unpickling code
    there = KILLED_IN + (when == STRAIGHT)
    assert sorted(path.name for path in folder.glob("*.ckpt")) == [f"epoch={epoch}.ckpt" for epoch in range(there)]
    assert last_whole(folder).name == f"epoch={KILLED_IN - 1}.ckpt"
    for epoch in range(KILLED_IN):
        torch.load(folder / f"epoch={epoch}.ckpt", weights_only=True)
    if when in (WHOLE_OR_NOTHING, STRAIGHT):  # the epoch was logged, and its checkpoint is lost
        assert [step for step, _ in events_of(folder)["tansens/empirical/test"]] == [2, 5, 8, 11]
    if anew:
        started = start(folder, "never")
        assert started.code == 0, started.complained[-2000:]
    else:
        train(folder)
    history = json.loads((whole / "history.json").read_text())
    assert json.loads((folder / "history.json").read_text()) == history
    assert len(history) == EPOCHS
    assert_the_same_is_logged(folder, whole)


def assert_the_same_is_logged(folder, whole):
    """Every tag of TensorBoard and every column holds each step once, and what an uninterrupted run logs there."""
    found, expected = events_of(folder), events_of(whole)
    assert found.keys() == expected.keys()
    assert len(found) > 70
    for tag, values in expected.items():
        kept = found[tag]
        if tag in ("train_loss", "epoch"):  # Lightning writes these: what it wrote twice it holds twice, the same
            kept = list(dict.fromkeys(kept))
        if tag == CONFIG_SUMMARY_TAG:  # the layout, to which each monitor adds; the last one is shown
            assert kept[-1] == values[-1]
        elif "/figures/" in tag:  # drawn where there is time
            assert len({step for step, _ in kept}) == len(kept), tag
        elif tag.endswith("/measures/text_summary"):  # each process describes its measures
            assert len({step for step, _ in kept}) == len(kept) == 2, tag
        else:
            assert kept == values, tag
    rows, expected = rows_of(folder), rows_of(whole)
    assert rows
    assert rows == expected[-len(rows) :]


def events_of(folder):
    """What TensorBoard shows: pairs of a step and a value, by tag; without the time that measurements took."""
    everything = dict.fromkeys(("scalars", "histograms", "images", "tensors"), 0)
    events = EventAccumulator(str(folder / "events"), everything)
    events.Reload()
    kinds = {
        "scalars": lambda tag: [(row.step, row.value) for row in events.Scalars(tag)],
        "histograms": lambda tag: [(row.step, tuple(row.histogram_value.bucket)) for row in events.Histograms(tag)],
        "images": lambda tag: [(row.step, None) for row in events.Images(tag)],
        "tensors": lambda tag: [(row.step, row.tensor_proto.SerializeToString()) for row in events.Tensors(tag)],
    }
    tags = events.Tags()
    return {tag: read(tag) for kind, read in kinds.items() for tag in tags[kind] if not tag.endswith("seconds")}


def rows_of(folder):
    """What the CSV logger keeps of the last process, without the time that measurements took."""
    with (folder / "rows" / "metrics.csv").open() as file:
        return [{name: cell for name, cell in row.items() if not name.endswith("seconds")} for row in csv.DictReader(file)]


def test_with_a_purge_step_lightnings_own_values_stand_once_too(whole, killed):
    folder = killed(STRAIGHT)
    train(folder, purge_step=torch.load(last_whole(folder), weights_only=True)["global_step"])
    found, expected = events_of(folder), events_of(whole)
    assert len(expected["train_loss"]) == 18
    for tag in set(expected) - {CONFIG_SUMMARY_TAG}:
        steps = [step for step, _ in found[tag]]
        assert len(set(steps)) == len(steps), tag
    scalars = [tag for tag, values in expected.items() if isinstance(values[0][1], float)]
    assert {tag: found[tag] for tag in scalars} == {tag: expected[tag] for tag in scalars}


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
        assert sum(note in unwrapped(message) for message in caplog.messages) == 1, (note, caplog.messages)


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

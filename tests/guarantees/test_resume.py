"""A run that is killed and goes on from its last checkpoint logs what an uninterrupted one logs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.boring import fit, make_monitor
from tests.interrupted import EPOCHS, KILLED_IN

ROOT = Path(__file__).parents[2]


def run(folder, when):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "interrupted.py"), str(folder), when]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, "never")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "history.json").read_text())


@pytest.mark.parametrize("when", ["epoch", "measurement", "checkpoint"])
def test_killed_and_resumed(when, whole, tmp_path):
    killed = run(tmp_path, when)
    assert killed.returncode == -signal.SIGKILL
    # nothing of the epoch in which it was killed is there, and what is there loads without unpickling code
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == [f"epoch={epoch}.ckpt" for epoch in range(KILLED_IN)]
    for path in tmp_path.glob("*.ckpt"):
        torch.load(path, weights_only=True)
    resumed = run(tmp_path, "never")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
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

"""Two and three processes give the values of one, under the same keys, in runs as users start them.

Every run has a logger and all displays; a run that hangs is killed when its time is over, and has failed.
"""

import functools
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.launched import CASES, DOUBLE, STOPS, TESTED, USED, WITHIN, folder_of, train, train_all
from tests.processes import LIMIT, launch, limited, run, several_processes

#: Seconds, for a run of all cases.
LIMIT_OF_ALL = 1200


def found_by(way, processes, logger, folder, *cases, limit=LIMIT):
    """What the processes have found, by case and stage."""
    launch(train_all, folder, *cases, way=way, processes=processes, logger=logger, limit=limit)
    found = {}
    for case in cases or CASES:
        for file in sorted(folder_of(case, folder).glob("*.json")):
            stage, _, _ = file.name.split(".")
            found.setdefault((case, stage), []).append(json.loads(file.read_text()))
    assert all(len(ranks) == processes for ranks in found.values())
    return found


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.processes
def test_what_hangs_is_killed_with_its_children(tmp_path):
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"
    start = time.monotonic()
    assert limited([sys.executable, "-c", parent, child, str(tmp_path / "pid")], 8) is None
    assert time.monotonic() - start < 60
    pid, patience = int((tmp_path / "pid").read_text()), time.monotonic() + 30
    while exists(pid):  # whoever takes in orphans may bury them late
        assert time.monotonic() < patience
        time.sleep(0.1)
    assert limited([sys.executable, "-c", "raise SystemExit(3)"], 30) == 3


@pytest.mark.processes
def test_a_hang_is_a_failure_that_says_what_was_printed():
    """``launch`` starts its processes with ``run``."""
    waits = "import sys, time; print('here', flush=True); print('and there', file=sys.stderr, flush=True); time.sleep(600)"
    with pytest.raises(AssertionError, match=r"hangs: killed after 20 s\nhere\n\nand there"):
        run(sys.executable, "-c", waits, limit=20)
    assert run(sys.executable, "-c", "print(1); raise SystemExit(2)", limit=30) == (2, "1\n", "")


@functools.cache
def alone(name):
    """One process, in this one."""
    with tempfile.TemporaryDirectory() as folder:
        train(name, Path(folder), lambda root: {"logger": True, "default_root_dir": root})
        return {file.name.split(".")[0]: json.loads(file.read_text()) for file in Path(folder).glob("*.json")}


def assert_values(row, other, **tolerance):
    values, others = ({key: compared(key, value) for key, value in found.items() if key != "step"} for found in (row, other))
    assert values == pytest.approx(others, **tolerance, nan_ok=True)


def compared(key, value):
    """The error rate for an accuracy, because estimators scale and add up errors."""
    return 1 - value if "_accuracy/" in key and not key.endswith("_stderr") else value


def assert_same_on_all(ranks, expected):
    for found in ranks:
        assert found["keys"] == expected["keys"]
        assert found["epoch"] == expected["epoch"]
        assert len(found["history"]) == len(expected["history"])
        for row, other in zip(found["history"], expected["history"]):
            assert_values(row, other, rel=1e-6, abs=1e-12)
        assert json.dumps(found["history"]) == json.dumps(ranks[0]["history"])


@pytest.fixture(scope="module", params=[2, 3])
def processes(request, tmp_path_factory):
    return found_by("torchrun", request.param, "default", tmp_path_factory.mktemp("ddp"), limit=LIMIT_OF_ALL)


@several_processes
@pytest.mark.parametrize("name", CASES)
def test_several_processes_give_the_values_of_one(name, processes):
    expected = alone(name)
    stages = {TESTED: {"fit": 2, "test": 3}, USED: {"fit": 2, "test": 3, "resumed": 3}}.get(name, {"fit": 2})
    assert {stage: len(found["history"]) for stage, found in expected.items()} == stages
    for stage in stages:
        assert_same_on_all(processes[name, stage], expected[stage])
    if name == STOPS:
        assert expected["fit"]["epoch"] == 2


@several_processes
def test_snapshots_within_epochs_are_of_all_processes(processes):
    expected = alone(WITHIN)["fit"]["snapshots"]
    assert {len(kept) for kept in expected.values()} == {4}  # within two epochs, and at their ends
    assert {len(kept[0]) for kept in expected.values()} >= {9}
    for found in processes[WITHIN, "fit"]:
        assert found["snapshots"] == expected


@several_processes
def test_sums_agree_to_double_precision(processes):
    for row, other in zip(processes[DOUBLE, "fit"][0]["history"], alone(DOUBLE)["fit"]["history"]):
        # what is kept for each sample, for quantiles and errors, is in single precision
        sums = [key for key in row if not any(word in key for word in ("stderr", "_q", "_max"))]
        assert len(sums) > 10
        assert_values({key: row[key] for key in sums}, {key: other[key] for key in sums}, rel=1e-12)


@several_processes
@pytest.mark.parametrize(
    ("way", "count", "logger"),
    [
        ("ddp", 2, "default"),
        pytest.param("ddp", 3, "csv", marks=pytest.mark.slow),
        ("ddp_spawn", 2, "csv"),
        pytest.param("ddp_spawn", 3, "default", marks=pytest.mark.slow),
        ("torchrun", 2, "mlflow"),
        ("torchrun", 3, "wandb"),
    ],
)
def test_launchers_and_loggers(way, count, logger, tmp_path):
    if logger in ("wandb", "mlflow") and importlib.util.find_spec(logger) is None:
        pytest.skip(f"{logger} is not installed")
    found, expected = found_by(way, count, logger, tmp_path, USED), alone(USED)
    assert expected.keys() == {"fit", "test", "resumed"} == {stage for _, stage in found}
    for stage, one in expected.items():
        ranks = found[USED, stage]
        if way == "ddp_spawn" and stage == "test":
            # the rows of the fit came back to the process that started the run, what estimates over time remember did not
            assert [len(found["history"]) for found in ranks] == [3] * count
            ranks = [{**found, "history": found["history"][-1:]} for found in ranks]
            one = {"epoch": 0, "keys": ranks[0]["keys"], "history": one["history"][-1:]}
            assert set(one["keys"]) > {"test_loss/actual", "test_loss/empirical", "one_loss/empirical"}
            one["history"] = [{key: row[key] for key in ranks[0]["history"][0]} for row in one["history"]]
            one["history"][0]["epoch"] = 0
        assert_same_on_all(ranks, one)

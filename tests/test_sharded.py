"""Networks that ModelParallelStrategy shards give the values of one process, and train as they do without the monitor.

Every run is killed when its time is over, and has failed.
"""

import functools
import json
import tempfile
from pathlib import Path

import pytest
import torch

from tests.launched import folder_of
from tests.launched_sharded import CASES, fail_first, fall_anywhere, find_criterion, leave_waiting, refuse, train, train_all
from tests.processes import SEVERAL_PROCESSES, launch

#: Seconds; about five times what two processes take for all cases on two idle cores.
LIMIT = 900
#: The sizes of the mesh, data parallel and tensor parallel.
TWO = [(2, 1), (1, 2)]
FOUR = [(4, 1), (2, 2)]

pytestmark = SEVERAL_PROCESSES


@pytest.fixture(scope="module", params=[*TWO, *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in FOUR)], ids=str)
def found(request, tmp_path_factory):
    """What each process has found, by case and stage."""
    folder, processes = tmp_path_factory.mktemp("sharded"), request.param[0] * request.param[1]
    launch(train_all, folder, "cpu", *map(str, request.param), processes=processes, limit=LIMIT)
    return written(folder, CASES, processes)


def written(folder, cases, processes):
    """What each process has written, by case and stage."""
    ranks = {}
    for case in cases:
        for file in sorted(folder_of(case, folder).glob("*.json")):
            ranks.setdefault((case, file.name.split(".")[0]), []).append(json.loads(file.read_text()))
    assert all(len(one) == processes for one in ranks.values())
    return ranks


@functools.cache
def alone(name="gathered"):
    """One process with the whole network."""
    with tempfile.TemporaryDirectory() as folder:
        train(name, Path(folder))
        return {file.name.split(".")[0]: json.loads(file.read_text()) for file in Path(folder).glob("*.json")}


def without_step(row):
    return {key: value for key, value in row.items() if key != "step"}


@pytest.mark.parametrize(("stage", "rows"), [("fit", 2), ("test", 3), ("resumed", 3)])
def test_gathered_networks_give_the_values_of_one_process(stage, rows, found):
    expected, ranks = alone()[stage], found["gathered", stage]
    assert len(expected["history"]) == rows
    for one in ranks:
        assert one["keys"] == expected["keys"]
        assert one["history"] == ranks[0]["history"]
        for row, other in zip(one["history"], expected["history"], strict=True):
            assert without_step(row) == pytest.approx(without_step(other), rel=1e-6, abs=1e-12, nan_ok=True)
            assert {"tansens/empirical/test", "tansens/layer_norm", "tansens/one_loss/estimate"} <= row.keys()
    assert any("a plain copy of it is gathered" in note for note in found["gathered", "fit"][0]["notes"])


@pytest.mark.parametrize("way", ["gathered", "as used", "in step"])
def test_snapshots_within_epochs_are_of_all_processes(way, found):
    expected = alone("snapshots, gathered")["fit"]["snapshots"]
    assert {len(kept) for kept in expected.values()} == {4}  # within two epochs, and at their ends
    for one in found[f"snapshots, {way}", "fit"]:
        assert one["snapshots"] == expected


def test_a_copy_has_what_the_module_holds(found):
    (expected,) = alone("holds much").values()
    for one in found["holds much", "fit"]:
        for row, other in zip(one["history"], expected["history"], strict=True):
            assert without_step(row) == pytest.approx(without_step(other), rel=1e-6, abs=1e-12, nan_ok=True)
            assert "tansens/empirical/test" in row


def test_a_copy_in_full_precision_tells_how_far_it_is_from_the_sharded_network(found, request):
    notes = found["lower precision", "fit"][0]["notes"]
    over_data = request.node.callspec.params["found"][0] > 1
    assert sum("outputs differ by" in note and "as in lower precision" in note for note in notes) == over_data
    assert "tansens/empirical/test" in found["lower precision", "fit"][0]["history"][0]


@pytest.mark.parametrize(("stage", "rows"), [("fit", 2), ("test", 3), ("resumed", 3)])
def test_weights_that_are_gathered_as_they_are_used_give_the_values_of_one_process(stage, rows, found):
    expected, ranks = alone()[stage], found["as used", stage]
    for one in ranks:
        assert one["history"] == ranks[0]["history"]
        assert len(one["history"]) == rows
        for row, other in zip(one["history"], expected["history"], strict=True):
            known = {key: other[key] for key in row}
            assert without_step(row) == pytest.approx(without_step(known), rel=1e-6, abs=1e-12, nan_ok=True)
            assert all("movement" in key for key in other.keys() - row.keys())  # which needs a gradient of all weights
            assert {"tansens/empirical/test", "tansens/layer_norm", "tansens/one_loss/estimate"} <= row.keys()
    notes = found["as used", "fit"][0]["notes"]
    assert any("more than gathered_bytes=0; its weights are gathered one by one" in note for note in notes)
    assert any("'movement' is left out" in note and "a gradient of all weights at once" in note for note in notes)
    assert any("measured by input_space" in note for note in notes)


@pytest.mark.parametrize(("stage", "rows"), [("fit", 2), ("test", 3), ("resumed", 3)])
def test_networks_that_are_called_in_step_give_the_estimates_of_one_process(stage, rows, found):
    expected, ranks = alone()[stage], found["in step", stage]
    for one in ranks:
        assert one["keys"] == ranks[0]["keys"]
        assert one["history"] == ranks[0]["history"]
        assert len(one["history"]) == rows
        for row, other in zip(one["history"], expected["history"], strict=True):
            known = {key: other[key] for key in without_step(row)}
            assert without_step(row) == pytest.approx(known, rel=1e-6, abs=1e-12, nan_ok=True)
            left_out = {key for key in other if key not in row}
            measures = ("empirical", "active_nodes", "layer_norm", "movement")
            assert left_out
            assert all(any(measure in key for measure in measures) for key in left_out)
            assert {"tansens/test_loss/estimate", "tansens/test_loss/actual", "tansens/one_loss/calibrated"} <= row.keys()
    (note,) = [note for note in found["in step", "fit"][0]["notes"] if "sensitivities are left out" in note]
    assert "a gathered copy of it does not compute the same" in note


def test_a_layer_that_only_some_processes_call_does_not_part_them(found):
    (expected,) = alone("depth by data, in step").values()
    for one in found["depth by data, in step", "fit"]:
        assert any("sensitivities are left out" in note for note in one["notes"])
        for row, other in zip(one["history"], expected["history"], strict=True):
            known = {key: other[key] for key in without_step(row)}
            assert without_step(row) == pytest.approx(known, rel=1e-6, abs=1e-12, nan_ok=True)
            assert "tansens/one_loss/estimate" in row


@pytest.mark.parametrize(
    ("name", "said"), [("a copy that fails", "has no attribute 'to_local'"), ("a copy that differs", "outputs differ by")]
)
def test_a_copy_that_computes_something_else_is_not_used(name, said, found):
    ranks = found[name, "fit"]
    differs = name == "a copy that fails" or any("gathered copy of it does not" in note for note in ranks[0]["notes"])
    if not differs:
        pytest.skip("only fully_shard changes the classes of modules")
    for one in ranks:
        (note,) = [note for note in one["notes"] if "a gathered copy of it does not compute the same" in note]
        assert said in note
        assert len(one["history"]) == 2
        assert {"tansens/test_loss/estimate", "tansens/one_accuracy/estimate"} <= one["history"][0].keys()
        assert "tansens/empirical/test" not in one["history"][0]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("with gathering", "alone"),
        ("with gathering as used", "alone"),
        ("with calls in step", "alone"),
        ("lower precision", "lower precision, alone"),
        ("from the top, a part gathered", "from the top, alone"),
        ("from the top, a part as used", "from the top, alone"),
        ("from the top, a part in step", "from the top, alone"),
        ("data break, gathered", "nothing breaks, alone"),
        ("data break, as used", "nothing breaks, alone"),
        ("data break, in step", "nothing breaks, alone"),
        ("forward breaks, gathered", "nothing breaks, alone"),
        ("forward breaks, as used", "nothing breaks, alone"),
        ("forward breaks, in step", "nothing breaks, alone"),
        ("forward breaks between layers, in step", "nothing breaks, alone"),
        ("forward breaks on both, in step", "nothing breaks, alone"),
        ("forward breaks in a gather, in step", "nothing breaks, alone"),
        ("forward breaks late, in step", "nothing breaks, alone"),
        ("forward breaks everywhere, in step", "nothing breaks, alone"),
    ],
)
def test_training_is_bitwise_what_it_is_without_the_monitor(name, reference, found):
    for one, other in zip(found[name, "fit"], found[reference, "fit"], strict=True):
        assert one["history"]
        assert not other["history"]
        assert one["weights"][0] != one["weights"][1]
        for part in ("losses", "weights", "random"):
            assert one[part] == other[part]


@pytest.mark.parametrize(
    "name",
    [
        *("data break, gathered", "data break, as used", "data break, in step"),
        *("forward breaks, gathered", "forward breaks, as used", "forward breaks, in step"),
        *("forward breaks between layers, in step", "forward breaks on both, in step"),
        *("forward breaks in a gather, in step", "forward breaks late, in step", "forward breaks everywhere, in step"),
    ],
)
def test_a_failure_costs_all_processes_one_measurement(name, found):
    ranks = found[name, "fit"]
    for one in ranks:
        assert [row["epoch"] for row in one["history"]] == [1]
        assert one["history"] == ranks[0]["history"]
        assert "tansens/test_loss/estimate" in one["history"][0]
    said = [one["failed"][0] for one in ranks]
    assert ("broken" if name.startswith("data") else "fell") + " on one process" in said[1]
    for other in (said[0], *said[2:]) if "everywhere" not in name and "both" not in name else ():
        assert "it failed on another one, whose output says why" in other


def test_streams_that_differ_where_layers_are_split_are_refused(tmp_path):
    launch(refuse, tmp_path, limit=240)


def test_processes_that_read_a_stream_each_agree_on_the_criterion(tmp_path):
    first, second = launch(find_criterion, tmp_path, limit=240)
    assert first == second
    assert "the criterion is mean squared error" in first


def test_a_failure_in_the_first_call_refuses_the_run_on_all(tmp_path):
    assert launch(fail_first, tmp_path, limit=240) == [[2, 2], [2, 2]]


@pytest.mark.parametrize("sizes", [*TWO, *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in FOUR)], ids=str)
def test_processes_that_fall_anywhere_in_step_stay_together(sizes, tmp_path):
    found = launch(fall_anywhere, tmp_path, *map(str, sizes), processes=sizes[0] * sizes[1], limit=240)
    assert all(same for same, _ in found)
    (epochs,) = {tuple(epochs) for _, epochs in found}
    assert 0 < len(epochs) < 10


@pytest.mark.parametrize(
    ("sizes", "call", "what"),
    [((2, 1), "first", "forward"), ((1, 2), "later", "forward"), ((2, 1), "later", "gather for good")],
)
def test_a_process_that_cannot_keep_the_others_company_ends_at_once(sizes, call, what, tmp_path):
    with pytest.raises(AssertionError, match="SIGKILL"):
        launch(leave_waiting, tmp_path, *map(str, sizes), call, what, limit=240)
    assert torch.load(tmp_path / "saved.1.pt")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "processes",
    [
        1,
        pytest.param(2, marks=pytest.mark.xfail(run=False, reason="torch 2.11 crashes: FSDP2 over gloo")),
    ],
)
def test_on_a_gpu(processes, tmp_path):
    """Processes that share a GPU, in double precision; the values are those of a CPU."""
    check_device("gpu", processes, tmp_path)


def check_device(device, processes, folder):
    ways = ["with gathering", "with gathering as used", "with calls in step"]
    cases = ["gathered", "as used", "in step", "alone", *ways]
    launch(train_all, folder, device, str(processes), "1", *cases, processes=1, nodes=processes, limit=240)
    found = written(folder, cases, processes)
    for stage, rows in {"fit": 2, "test": 3, "resumed": 3}.items():
        test_gathered_networks_give_the_values_of_one_process(stage, rows, found)
        test_weights_that_are_gathered_as_they_are_used_give_the_values_of_one_process(stage, rows, found)
        test_networks_that_are_called_in_step_give_the_estimates_of_one_process(stage, rows, found)
    for name in ways:
        test_training_is_bitwise_what_it_is_without_the_monitor(name, "alone", found)

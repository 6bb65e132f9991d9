"""The command that measures checkpoints: the values are those of the run, and what cannot be used is named."""

import csv
import os
import re
import sys
from collections import defaultdict
from typing import ClassVar

import pytest
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.command_line import main
from lightning_tansens.command_line.checkpoints import find_checkpoints
from lightning_tansens.command_line.configuration import configure
from lightning_tansens.command_line.errors import useful_part
from lightning_tansens.command_line.measuring import measure_checkpoints
from lightning_tansens.estimators import TemporalEnsemble
from lightning_tansens.metrics import LayerwiseNormSensitivity
from tests.boring import BoringData, BoringModule, Points, fit, make_monitor, make_trainer
from tests.processes import run as run_command
from tests.tiers import cases

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning advises for tiny trainings

MODEL, DATA = "tests.boring.BoringModule", "tests.boring.BoringData"
MONITOR = "lightning_tansens.TangentSensitivityMonitor"
MEASURES = [
    {"class_path": f"lightning_tansens.metrics.{name}"}
    for name in ("LayerwiseNormSensitivity", "EmpiricalSensitivity", "SensitivityMovement")
]
EXACT = {"rel": 1e-6, "abs": 1e-9}

#: The columns of the table.
SHOWN = ("trivial", "layer_norm", "empirical", "estimate", "actual")


class LinkingCLI(LightningCLI):
    """Has an argument of its own, and one that follows from another."""

    def add_arguments_to_parser(self, parser):
        parser.add_argument("--report", type=str | None, default=None)
        parser.link_arguments("data.noise", "model.lr", compute_fn=lambda noise: 0.1)

    def before_fit(self):
        self.trainer.started = True

    def after_fit(self):
        assert self.trainer.global_step, "nothing was trained"


class WithoutSteps(LightningModule):
    """Can be trained and not evaluated; its test loader has no labels."""

    def __init__(self):
        super().__init__()
        self.network = BoringModule().network

    def forward(self, inputs):
        return self.network(inputs)

    training_step = BoringModule.training_step
    lr, loss = 0.1, "cross_entropy"
    configure_optimizers = BoringModule.configure_optimizers

    def train_dataloader(self):
        return DataLoader(Points(), batch_size=4)

    def test_dataloader(self):
        return DataLoader(Points(10, seed=2, labels=None), batch_size=4)


class MadeInSetup(BoringModule):
    """Has no layers before the Trainer sets it up, and notes the hooks that are called."""

    calls: ClassVar = []

    def setup(self, stage):
        self.network = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))

    def test_step(self, batch, batch_idx):
        self.calls.append(len(batch[0]))
        super().test_step(batch, batch_idx)

    def on_test_epoch_end(self):
        self.calls.append("end")


class FailingTest(BoringModule):
    """Cannot be tested; can be validated, or fails at the end of a test on the weights of the first epoch."""

    at_the_end = False

    def test_step(self, batch, batch_idx):
        if not self.at_the_end:
            raise OSError("a test of\nits own")

    def on_test_epoch_end(self):
        raise OSError("the end of its own")


class Adapted(BoringModule):
    """Has weights that its checkpoints may leave out."""

    def __init__(self):
        super().__init__()
        self.strict_loading = False


class Unmade(BoringModule):
    """Cannot be made."""

    def __init__(self):
        raise KeyError("a disk")


def configuration(folder, monitor=None, **sections):
    """A user's YAML as plain data."""
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False)
    arguments = {"num_samples": 7, "compare_with_labels": True, **(monitor or {})}
    arguments["options"] = {"num_loss_samples": 9, "batch_size": 3, **arguments.get("options", {})}
    checkpoints = {"dirpath": str(folder / "checkpoints"), "save_top_k": -1, "save_last": True}
    return {
        "seed_everything": 0,
        "trainer": {
            **quiet,
            **{"max_epochs": 2, "accelerator": "cpu", "devices": 1},
            "logger": {
                "class_path": "CSVLogger",
                "init_args": {"save_dir": str(folder / "logs"), "name": "", "version": ""},
            },
            "callbacks": [
                {"class_path": MONITOR, "init_args": arguments},
                {"class_path": "ModelCheckpoint", "init_args": checkpoints},
                {"class_path": "EarlyStopping", "init_args": {"monitor": "tansens/test_loss/empirical"}},
            ],
        },
        **sections,
    }


def train(folder, written, cli=LightningCLI, classes=(BoringModule, BoringData), **options):
    """Runs ``fit`` with a YAML and returns its monitor."""
    path = folder / "written.yaml"
    path.write_text(yaml.safe_dump(written))
    done = cli(*classes, args=["fit", "--config", str(path)], **options)
    return next(callback for callback in done.trainer.callbacks if isinstance(callback, TangentSensitivityMonitor))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two epochs, and what its monitor logged."""
    folder = tmp_path_factory.mktemp("run")
    sections = {"model": {"class_path": MODEL, "init_args": {"lr": 0.3}}, "data": {"class_path": DATA}}
    written = configuration(folder, {"measures": MEASURES, "options": {"correlate_with_gap": True}}, **sections)
    return folder, train(folder, written, classes=(None, None)).history


def evaluate(folder, *options, config="written.yaml", ckpt="checkpoints"):
    return main(["evaluate", "--config", str(folder / config), "--ckpt", str(folder / ckpt), *map(str, options)])


def rows_of(path):
    with path.open() as file:
        return [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]


def assert_same_values(rows, history):
    """Every value of the run is there again, also those that use earlier outputs; the first row compares with nothing."""
    assert len(rows) == len(history)
    for number, (row, logged) in enumerate(zip(rows, history)):
        left_out = {
            key for key in logged if "_loss/layer_norm" in key or "_accuracy/layer_norm" in key or "/movement/" in key
        }
        assert len(left_out) > 3
        times = {key for key in logged if key.endswith("seconds")}
        expected = logged.keys() - times - {"step"} - (left_out if number == 0 else set())
        assert len(expected) > 15
        assert row.keys() - times - {"checkpoint", "step"} == expected
        assert {key: float(row[key]) for key in expected} == pytest.approx({key: logged[key] for key in expected}, **EXACT)
        assert int(row["step"]) == logged["step"] + 1  # the checkpoint's own


def test_the_values_are_those_of_the_run(run, tmp_path, capsys):
    folder, history = run
    assert evaluate(folder, "--csv", tmp_path / "new" / "out.csv", "--log_dir", tmp_path / "events") == 0
    rows = rows_of(tmp_path / "new" / "out.csv")
    assert_same_values(rows, history)
    assert [row["checkpoint"].rpartition("/")[2] for row in rows] == ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"]

    lines = capsys.readouterr().out.splitlines()
    heading = lines.index("test loss")
    assert lines[heading + 1].split() == ["epoch", "step", *SHOWN]
    for line, row in zip(lines[heading + 2 :], history):
        values = [f"{row[f'tansens/test_loss/{name}']:.4f}" for name in SHOWN]
        assert line.split() == [
            str(row["epoch"]),
            str(row["step"] + 1),
            *(values if row["epoch"] else [values[0], *values[2:]]),
        ]
    assert "test accuracy" in lines

    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    logged = defaultdict(dict)
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            logged[event.step][tag] = event.value
    assert sorted(logged) == [3, 6]
    for row in rows:
        values = {key: float(value) for key, value in row.items() if key not in ("checkpoint", "step")}
        assert logged[int(row["step"])] == pytest.approx(values, rel=1e-6)


@pytest.mark.thorough  # what main() does is tested by default, this takes six seconds
def test_it_runs_as_a_process_with_the_configuration_that_the_run_saved(run, tmp_path):
    folder, history = run
    saved, out = folder / "logs" / "config.yaml", tmp_path / "out.csv"
    command = [sys.executable, "-m", "lightning_tansens", "evaluate", "--config", saved, "--ckpt", folder / "checkpoints"]
    done = run_command(*command, "--csv", out, limit=300)
    assert done.code == 0, done.complained
    assert_same_values(rows_of(out), history)
    assert done.said.startswith("test loss\n")
    assert "Traceback" not in done.complained


def test_nothing_is_trained_or_written_beside(run, tmp_path, monkeypatch):
    folder, _ = run
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert evaluate(folder) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not list(tmp_path.iterdir())


def test_checkpoints_are_sorted_by_what_is_in_them_and_copies_are_left_out(run, tmp_path):
    contents = torch.load(run[0] / "checkpoints" / "last.ckpt")
    other = {name: weights + 1 for name, weights in contents["state_dict"].items()}
    for name, changes in {
        "a": {"epoch": 10, "global_step": 33},
        "b": {"epoch": 9, "global_step": 30},
        "c": {"epoch": 9, "global_step": 28},
        "last": {"epoch": 10, "global_step": 33},
        "other": {"epoch": 10, "global_step": 33, "state_dict": other},
    }.items():
        torch.save({**contents, **changes}, tmp_path / f"{name}.ckpt")
    found, errors = find_checkpoints(tmp_path)
    assert errors == []
    assert [checkpoint.path.stem for checkpoint in found] == ["c", "b", "a", "other"]
    assert [(checkpoint.epoch, checkpoint.step) for checkpoint in found] == [(9, 28), (9, 30), (10, 33), (10, 33)]


def test_one_batch_passes_through_the_loop(run):
    folder, _ = run
    configured = configure(folder / "written.yaml")
    errors = []
    rows = list(measure_checkpoints(configured, find_checkpoints(folder / "checkpoints")[0], errors.append))
    assert len(rows) == 2
    assert errors == []
    assert configured.trainer.num_test_batches == [1]
    assert configured.trainer.logger is None


def test_without_jsonargparse(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    with pytest.raises(SystemExit) as ended:
        evaluate(run[0])
    assert ended.value.code == 2
    assert_said(capsys, r"expected jsonargparse.*pip install 'lightning-tansens\[cli\]'")


def test_one_checkpoint_and_changes_of_the_configuration(run, tmp_path):
    folder, history = run
    out = tmp_path / "out.csv"
    narrower = "--trainer.callbacks=[{class_path: " + MONITOR + ", init_args: {num_samples: 4, options: {prefix: mine}}}]"
    assert evaluate(folder, "--csv", out, narrower, ckpt="checkpoints/last.ckpt") == 0
    (row,) = rows_of(out)
    assert row["epoch"] == "1"
    assert "mine/test_loss/empirical" in row
    assert "mine/test_loss/actual" not in row
    assert float(row["mine/layer_norm"]) == pytest.approx(history[1]["tansens/layer_norm"], **EXACT)


@pytest.mark.thorough
def test_a_fit_level_and_the_classes_of_a_program(tmp_path):
    monitor = {"measures": MEASURES, "reference": "val"}
    written = configuration(tmp_path, monitor, model={"lr": 0.3}, data={"validation": True})
    history = train(tmp_path, written).history
    (tmp_path / "level.yaml").write_text(yaml.safe_dump({"fit": written}))
    out = tmp_path / "out.csv"
    assert evaluate(tmp_path, "--csv", out, "--model", MODEL, "--data", DATA, config="level.yaml") == 0
    assert_same_values(rows_of(out), history)


@pytest.mark.thorough
def test_a_command_line_of_the_user(tmp_path, capsys):
    classes = ["--model", MODEL, "--data", DATA]
    history = train(tmp_path, {**configuration(tmp_path, {"measures": MEASURES}), "report": "x"}, LinkingCLI).history
    out = tmp_path / "out.csv"
    assert evaluate(tmp_path, "--csv", out, *classes, "--cli", f"{__name__}.LinkingCLI", config="logs/config.yaml") == 0
    assert_same_values(rows_of(out), history)
    with pytest.raises(SystemExit):
        evaluate(tmp_path, *classes)
    assert_said(capsys, r"written\.yaml: .*report.*need --cli module\.Class")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["WithoutSteps", "MadeInSetup"])
def test_modules_without_steps_and_with_hooks_of_their_own(name, tmp_path):
    labelled = {"compare_with_labels": name == "MadeInSetup"}
    sections = {"model": {"class_path": f"{__name__}.{name}"}}
    if name == "MadeInSetup":
        sections["data"] = {"class_path": DATA}
    written = configuration(tmp_path, {"measures": MEASURES, **labelled}, **sections)
    history = train(tmp_path, written, classes=(None, None)).history
    MadeInSetup.calls.clear()
    assert evaluate(tmp_path, "--csv", tmp_path / "out.csv") == 0
    assert_same_values(rows_of(tmp_path / "out.csv"), history)
    assert MadeInSetup.calls == ([4, "end", 4, "end"] if name == "MadeInSetup" else [])


@pytest.mark.thorough
def test_a_module_whose_own_test_fails_can_be_validated(tmp_path, capsys, monkeypatch):
    sections = {"model": {"class_path": f"{__name__}.FailingTest"}}
    sections["data"] = {"class_path": DATA, "init_args": {"validation": True}}
    history = train(tmp_path, configuration(tmp_path, {"measures": MEASURES}, **sections), classes=(None, None)).history
    assert evaluate(tmp_path, "--csv", tmp_path / "out.csv", "--stage", "validation") == 0
    assert_same_values(rows_of(tmp_path / "out.csv"), history)
    assert evaluate(tmp_path) == 1
    told = r"the measurement failed: OSError: a test of its own \(.*test_command_line\.py:\d+\)"
    assert_said(capsys, rf"epoch=0-step=3\.ckpt: {told}.*epoch=1-step=6\.ckpt: {told}")
    monkeypatch.setattr(FailingTest, "at_the_end", True)  # then the monitor has measured
    assert evaluate(tmp_path, "--csv", tmp_path / "out.csv") == 1
    assert_same_values(rows_of(tmp_path / "out.csv"), history)


def test_what_a_checkpoint_leaves_out_is_as_constructed(run, tmp_path):
    contents = torch.load(run[0] / "checkpoints" / "last.ckpt")
    torch.save(contents, tmp_path / "whole.ckpt")
    part = {name: weights for name, weights in contents["state_dict"].items() if "0.weight" not in name}
    torch.save({**contents, "epoch": 2, "state_dict": part}, tmp_path / "part.ckpt")
    sections = {"model": {"class_path": f"{__name__}.Adapted"}, "data": {"class_path": DATA}}
    (tmp_path / "written.yaml").write_text(yaml.safe_dump(configuration(tmp_path, **sections)))
    found = []
    for path in ("", "part.ckpt"):
        assert evaluate(tmp_path, "--csv", tmp_path / "out.csv", ckpt=path) == 0
        found.append(float(rows_of(tmp_path / "out.csv")[-1]["tansens/empirical/test"]))
    assert found[0] == pytest.approx(found[1], **EXACT)


@pytest.mark.thorough
def test_several_monitors_each_with_a_prefix(tmp_path):
    written = configuration(tmp_path, {"measures": MEASURES})
    own = {
        "num_samples": 5,
        "options": {"prefix": "own"},
        "measures": [{"class_path": "lightning_tansens.metrics.LayerwiseNormSensitivity"}],
    }
    written["trainer"]["callbacks"].append({"class_path": MONITOR, "init_args": own})
    history = train(tmp_path, written).history
    assert evaluate(tmp_path, "--csv", tmp_path / "out.csv", "--model", MODEL, "--data", DATA) == 0
    rows = rows_of(tmp_path / "out.csv")
    assert all("own/layer_norm" in row for row in rows)
    assert ["own/test_loss/layer_norm" in row for row in rows] == [False, True]
    others = [{key: value for key, value in row.items() if not key.startswith("own/")} for row in rows]
    assert_same_values(others, history)


def broken(folder, change):
    """A folder with one checkpoint of the run, changed."""
    made = folder / "made"
    made.mkdir()
    contents = torch.load(folder / "taken.ckpt")
    change(contents)
    torch.save(contents, made / "changed.ckpt")
    return made


class Unknown:
    """What only unpickling could make, at the price of a folder."""

    def __reduce__(self):
        return os.mkdir, ("made by unpickling",)


CHANGES = {
    "an object": (
        lambda contents: contents.update(extra=Unknown()),
        r"changed.ckpt: expected a checkpoint of tensors.*posix\.mkdir",
    ),
    "no Lightning": (
        lambda contents: contents.pop("state_dict"),
        r"changed.ckpt: expected a checkpoint of Lightning.*state_dict",
    ),
    "other weights": (
        lambda contents: contents["state_dict"].pop("network.0.weight"),
        r"changed.ckpt: expected the weights of BoringModule: .*network.0.weight",
    ),
    "no state": (
        lambda contents: contents["callbacks"].clear(),
        r"changed.ckpt: expected the state of the monitor that logs under 'tansens'.*'movement'",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_checkpoints_that_cannot_be_used(change, message, run, tmp_path, capsys, monkeypatch):
    folder, _ = run
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.ckpt").write_bytes((folder / "checkpoints" / "last.ckpt").read_bytes())
    made = broken(tmp_path, change)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--config", str(folder / "written.yaml"), "--ckpt", str(made)])
    assert ended.value.code == 2
    assert_said(capsys, message)
    assert not (tmp_path / "made by unpickling").exists()


@pytest.mark.parametrize("contents", [b"", b"no archive", "half"])
def test_files_that_are_no_checkpoints(contents, run, tmp_path, capsys):
    folder, _ = run
    whole = (folder / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "bad.ckpt").write_bytes(whole[: len(whole) // 2] if contents == "half" else contents)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--config", str(folder / "written.yaml"), "--ckpt", str(tmp_path)])
    assert ended.value.code == 2
    assert_said(capsys, r"bad\.ckpt: expected a checkpoint")


def test_folders_without_checkpoints(run, tmp_path, capsys):
    folder, _ = run
    for name, message in {"": r"expected a folder with \*\.ckpt files", "nowhere": "there is no such file"}.items():
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", "--config", str(folder / "written.yaml"), "--ckpt", str(tmp_path / name)])
        assert ended.value.code == 2
        assert_said(capsys, message)


def test_bad_files_among_good_ones_are_skipped(run, tmp_path, capsys):
    folder, history = run
    for path in (folder / "checkpoints").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    contents = torch.load(tmp_path / "last.ckpt")
    torch.save({**contents, "global_step": 1, "state_dict": {"other.weight": torch.ones(3)}}, tmp_path / "foreign.ckpt")
    torch.save({**contents, "epoch": "last"}, tmp_path / "named.ckpt")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    out = tmp_path / "out.csv"
    assert main(["evaluate", "--config", str(folder / "written.yaml"), "--ckpt", str(tmp_path), "--csv", str(out)]) == 1
    assert_same_values(rows_of(out), history)
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    found = [
        re.search(r"skipped \S+/(\w+)\.ckpt: expected (a checkpoint of L|a checkpoint that t|the w)", line) for line in lines
    ]
    assert sorted(match[1] for match in found) == ["empty", "foreign", "named"]


def test_a_folder_of_checkpoints_is_a_trajectory(run, tmp_path):
    folder, history = run
    assert evaluate(folder, "--csv", tmp_path / "out.csv") == 0
    first, second = rows_of(tmp_path / "out.csv")
    for name in ("loss/temporal_ensemble", "accuracy/temporal_ensemble", "accuracy/disagreement"):
        assert f"tansens/test_{name}" not in first
        assert float(second[f"tansens/test_{name}"]) == pytest.approx(history[1][f"tansens/test_{name}"], **EXACT)


def assert_said(capsys, message):
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(message, said), said


def change(**sections):
    return lambda written: {key: value for key, value in {**written, **sections}.items() if value is not None}


def monitor_with(**arguments):
    def changed(written):
        written["trainer"]["callbacks"][0]["init_args"] |= arguments
        return written

    return changed


def without_monitor(written):
    return {**written, "trainer": {**written["trainer"], "callbacks": None}}


def unknown_trainer_key(written):
    return {**written, "trainer": {**written["trainer"], "max_epoch": 3}}


CONFIGURATIONS = {
    "no data": (change(data=None), r"written\.yaml: expected a datamodule or a model with one of.*BoringModule"),
    "data without a class": (
        change(data={"noise": True}),
        r"written\.yaml: expected data\.class_path.*--data module\.Class",
    ),
    "no model": (change(model=None), r"written\.yaml: expected model\.class_path.*--model module\.Class"),
    "an unknown section": (change(mdoel={"lr": 0.1}), r"written\.yaml: .*mdoel"),
    "an unknown key": (unknown_trainer_key, r"written\.yaml: .*max_epoch"),
    "no monitor": (without_monitor, r"written\.yaml: expected a TangentSensitivityMonitor.*--trainer\.callbacks\+="),
    "a wrong value": (
        lambda written: yaml.safe_load(yaml.safe_dump(written).replace("num_samples: 7", "num_samples: 0")),
        r"written\.yaml: .*num_samples: expected a positive integer, but got 0",
    ),
    "a wrong type": (
        lambda written: yaml.safe_load(yaml.safe_dump(written).replace("batch_size: 3", "batch_size: many")),
        r"callbacks: TangentSensitivityMonitor: options: (Options: )?batch_size: expected int, but got many$",
    ),
    "a wrong choice": (
        lambda written: yaml.safe_load(yaml.safe_dump(written).replace("batch_size: 3", "measure_at: noon")),
        r"options: (Options: )?measure_at: expected Literal\['auto', .*\], but got noon$",
    ),
    "a wrong type of the Trainer": (
        lambda written: {**written, "trainer": {**written["trainer"], "max_epochs": "two"}},
        r"written\.yaml: trainer\.max_epochs: expected (int or None|None or int), but got two$",
    ),
    "a measure by its key": (
        monitor_with(measures=["empirical"]),
        r"TangentSensitivityMonitor: measures: expected class paths \(package\.module\.Class\), but got empirical$",
    ),
    "a network that there is not": (
        monitor_with(network="body"),
        r"evaluate: expected a configuration that can be measured: network='body': expected the name of a submodule",
    ),
    "a constructor that fails": (
        change(model={"class_path": f"{__name__}.Unmade"}),
        r"written\.yaml: .*a disk'?$",
    ),
    "no such class": (change(model={"class_path": "tests.boring.Nothing"}), r"written\.yaml: .*Nothing"),
    "a list": (lambda written: [1], r"written\.yaml: expected a configuration of LightningCLI, but got list"),
}


#: jsonargparse refuses these as it does those beside them; the message passes through the same lines.
REPEATED = ("a wrong choice", "a wrong type of the Trainer", "no such class", "an unknown key", "data without a class")


@pytest.mark.parametrize(("make", "message"), cases(CONFIGURATIONS, *(set(CONFIGURATIONS) - set(REPEATED))))
def test_configurations_that_cannot_be_used(make, message, run, tmp_path, capsys):
    """The message is short: it names the file, the key and what was expected."""
    folder, _ = run
    path = tmp_path / "written.yaml"
    path.write_text(yaml.safe_dump(make(yaml.safe_load((folder / "written.yaml").read_text()))))
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--config", str(path), "--ckpt", str(folder / "checkpoints")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) < 10
    assert re.search(message, " ".join(said.split())), said


TYPES = """Parser key "s":
  Does not validate against any of the Union subtypes
  Errors:
    - Problem with given class_path 'package.Sub':
        Parser key "names":
          Does not validate against any of the Union subtypes
          Subtypes: [<class 'NoneType'>, typing.List[int]]
          Errors:
            - {}
            - {}
          Given value type: <class 'str'>
          Given value: a
  Given value type: <class 'dict'>
"""


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("Expected <class 'NoneType'>", "Expected <class 'list'>", "expected None or list, but got a"),
        ("Expected a <class 'int'>. Got value: b", "Expected a <class 'NoneType'>", "expected int or None, but got b"),
        ("Expected a <class 'int'>", "Expected a <class 'int'>. Got value: b", "expected int, but got b"),
        ("Expected a <class 'int'>", "Expected a typing.Literal['x', 'y']", "expected int or Literal['x', 'y'], but got a"),
        ("Expected a <class 'NoneType'>", "No module named 'tset'", "No module named 'tset'"),
    ],
)
def test_types_that_jsonargparse_has_tried_are_named_with_the_value(first, second, message):
    assert useful_part(TYPES.format(first, second)) == f"s: Sub: names: {message}"


@pytest.mark.parametrize("text", ["a: [1", "!!python/object/apply:os.system ['false']"])
def test_files_that_are_no_plain_yaml(text, run, tmp_path, capsys):
    folder, _ = run
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--config", str(tmp_path / "bad.yaml"), "--ckpt", str(folder / "checkpoints")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(r"bad\.yaml: expected a YAML file", said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.nonsense=1"], "nonsense"),
        (["--model", "tests.boring.Nothing"], r"--model tests\.boring\.Nothing: expected the import path of a class"),
        (["--data", "tests.boring.BoringModule"], r"--data .*: expected a subclass of LightningDataModule, but got"),
        (["--cli", "nowhere.CLI"], r"--cli nowhere\.CLI: expected the import path"),
        (["--model", "BoringModule"], r"--model BoringModule: expected the import path"),
    ],
)
def test_options_that_cannot_be_used(options, message, run, capsys):
    with pytest.raises(SystemExit) as ended:
        evaluate(run[0], *options)
    assert ended.value.code == 2
    assert_said(capsys, message)


@pytest.mark.parametrize("arguments", [[], ["evaluate"], ["measure"]])
def test_the_usage_is_said(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert_said(capsys, "usage: lightning-tansens")


def test_a_measurement_that_fails_keeps_those_before_it(run, tmp_path, capsys, monkeypatch):
    folder, history = run
    update, calls = LayerwiseNormSensitivity.update, []

    def failing(self, *args, **kwargs):
        calls.append(None)
        if len(calls) > 2:
            raise OSError("a disk is broken")
        return update(self, *args, **kwargs)

    monkeypatch.setattr(LayerwiseNormSensitivity, "update", failing)
    assert evaluate(folder, "--csv", tmp_path / "out.csv") == 1
    assert_same_values(rows_of(tmp_path / "out.csv"), history[:1])
    assert_said(capsys, r"epoch=1-step=6\.ckpt: the measurement failed: OSError: a disk is broken")


def test_each_evaluation_is_compared_with_the_one_before(capsys):
    monitor, module = make_monitor(verbose=True, estimators=[TemporalEnsemble()], on_failure="warn"), BoringModule()
    trainer = make_trainer(monitor)
    monitor.follow_evaluations()
    norms = []
    for scale in (1.0, 2.0, 0.5):
        with torch.no_grad():
            module.network[0].weight *= scale
        trainer.test(module, datamodule=BoringData(), verbose=False)
        norms.append(monitor.records[-1].weights["layer_norm"].values["layer_norm"])
    first, *later = [record.targets["test"].estimates["loss"] for record in monitor.records]
    assert {"trivial", "empirical"} <= first.keys()
    assert not {"layer_norm", "temporal_ensemble"} & first.keys()
    for estimates, before, now in zip(later, norms, norms[1:]):
        assert "temporal_ensemble" in estimates
        assert estimates["layer_norm"].value == pytest.approx(estimates["trivial"].value * before / now)
    assert capsys.readouterr().out == ""


def test_checkpoints_of_a_fit_are_followed_in_python(tmp_path):
    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    data, fitted = BoringData(), make_monitor(estimators=[TemporalEnsemble()])
    fit(fitted, saving, data=data, enable_checkpointing=True, max_epochs=3)
    again = make_monitor(estimators=[TemporalEnsemble()])
    again.follow_evaluations()
    for epoch in range(3):
        path = tmp_path / f"epoch={epoch}.ckpt"
        make_trainer(again).test(BoringModule(), datamodule=data, verbose=False, ckpt_path=path)
    for now, before in zip(again.records[1:], fitted.records[1:], strict=True):
        assert now.targets["test"].estimates["loss"].keys() == before.targets["test"].estimates["loss"].keys()
        for name, estimate in before.targets["test"].estimates["loss"].items():
            assert now.targets["test"].estimates["loss"][name].value == pytest.approx(estimate.value, rel=1e-6)


def test_an_evaluation_without_a_reference_does_not_take_that_of_another():
    monitor = make_monitor(test_dataloaders=Points(10, seed=2), reference="auto")
    monitor.follow_evaluations()
    make_trainer(monitor).validate(BoringModule(), DataLoader(Points(10), 5), verbose=False)
    with pytest.raises(
        MisconfigurationException, match="reference='auto': expected the Trainer to have validation or training"
    ):
        make_trainer(monitor).test(BoringModule(), DataLoader(Points(10), 5), verbose=False)
    assert len(monitor.records) == 1


def test_a_failure_raises_and_a_fit_ends_it(capsys):
    monitor = make_monitor(verbose=True, network="nowhere", on_failure="ignore")
    monitor.follow_evaluations()
    trainer = make_trainer(monitor)
    with pytest.raises(MisconfigurationException, match="expected the name of a submodule"):
        trainer.test(BoringModule(), datamodule=BoringData(), verbose=False)
    monitor.network = None
    trainer.fit(BoringModule(), datamodule=BoringData())
    assert "layer_norm" in monitor.records[0].targets["test"].estimates["loss"]
    assert "epoch 1" in capsys.readouterr().out


def test_no_state_of_a_monitor():
    with pytest.raises(ValueError, match="'records' is missing"):
        make_monitor().follow_evaluations({"memories": {}})

"""What is said on the console: lines, tables, and where they go beside a progress bar."""

import contextlib
import re
import time
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from tqdm.auto import tqdm

from lightning_tansens.monitor.trainer_loggers import say
from lightning_tansens.record import Estimate, Missing
from lightning_tansens.show import console
from lightning_tansens.show.console import WIDTH, aligned_table, measurement_text, slow_progress, summary_table
from tests.boring import BoringModule, Points, fit, make_monitor, unwrapped
from tests.records import record, target, with_target

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning advises for tiny trainings

CLEAN = target(
    "clean",
    2.8,
    0.5,
    {"trivial": 2.92, "estimate": Estimate(2.86, None, 2.63, 3.03, (), "like the reference")},
    {"trivial": 0.48, "estimate": Estimate(0.49, None, 0.43, 0.5, (), "like the reference")},
)
BLURRED = target(
    "blurred",
    losses={"trivial": 2.92, "estimate": Estimate(3.61, None, 2.98, 4.34, (), "unsure")},
    accuracies={"trivial": 0.48, "estimate": Estimate(0.36, None, 0.27, 0.43, ("spread 0.16",), "unsure")},
)
SINGLE = target(
    losses={"trivial": (1.1, 0.031), "empirical": (1.2345, 0.0512), "layer_norm": 1.5},
    accuracies={"trivial": 0.6, "empirical": 0.61, "cot": 0.55},
)


def line(*targets, epoch=9, seconds=0.61, **reference):
    reference = {"reference": 2.92, "accuracy": 0.48, "name": "val", **reference}
    return measurement_text(record(epoch, targets=targets, seconds={"total": seconds}, **reference)).split("\n")


HEAD = "epoch 9  val: accuracy 0.48, loss 2.92"
LINES = {
    "headlines": (
        [CLEAN, BLURRED],
        [
            f"{HEAD:<72}   0.6 s",
            "  clean    accuracy 0.49 [0.43, 0.50]  loss 2.86 [2.63, 3.03]  like val",
            "    true   accuracy 0.50               loss 2.80",
            "  blurred  accuracy 0.36 [0.27, 0.43]  loss 3.61 [2.98, 4.34]",
            "    unsure: spread 0.16",
        ],
    ),
    "single estimators": (
        [SINGLE],
        [f"{HEAD:<72}   0.6 s", "  test  accuracy 0.55 (cot)  loss 1.23 (empirical)"],
    ),
    "a loss alone": ([target(losses={"trivial": 1.1})], [f"{HEAD:<72}   0.6 s", "  test  loss 1.10 (trivial)"]),
    "too early for an estimate": (
        [target(losses={"trivial": 1.1, "empirical": 1.2}, missing={"estimate": Missing("the first", too_early=True)})],
        [f"{HEAD:<72}   0.6 s", "  test  no estimate yet"],
    ),
    "no estimate": (
        [target(losses={"trivial": 1.1, "empirical": 1.2}, missing={"estimate": Missing("no finite outputs")})],
        [f"{HEAD:<72}   0.6 s", "  test  no estimate: no finite outputs"],
    ),
    "nothing": ([target()], [f"{HEAD:<72}   0.6 s", "  test"]),
}


@pytest.mark.parametrize(("targets", "lines"), LINES.values(), ids=LINES)
def test_a_line_for_each_set(targets, lines):
    assert line(*targets) == lines


@pytest.mark.parametrize("value", [0.00123, 0.0456, 12.3, 123.0, 12345.0])
def test_losses_of_any_size_are_short(value):
    found = line(target(losses={"mine": value}), seconds=1234.5)
    assert found[0].endswith("1234.5 s")
    assert float(found[1].split()[2]) == pytest.approx(value, rel=5e-3)
    assert len(found[1]) < 30


def test_no_line_is_longer_than_a_terminal():
    doubts = ("too few samples of a population that nobody has ever seen before",)
    found = target("a set with a rather long name", losses={"estimate": Estimate(1.0, None, 0.5, 2.0, doubts, "unsure")})
    lines = line(found, epoch=123)
    assert all(len(one) <= WIDTH for one in lines)
    assert lines[1].endswith("loss 1.00 [0.500, 2.00]")
    assert lines[2] == f"    unsure: {doubts[0]}"
    worse = replace(found, estimates={"loss": {"estimate": Estimate(1.0, None, 0.5, 2.0, doubts, "worse")}})
    assert line(worse)[2] == f"    worse, but {doubts[0]}"


@pytest.mark.parametrize(
    "name", ["the_same_beginning_and_{}", "{}_and_the_same_end", "the_same_{}_and_end", "{0}_twice_{0}"]
)
def test_long_names_differ_wherever_they_do(name):
    names = [name.format(place) for place in ("north", "south")]
    targets = [target(name, losses={"estimate": 1.0}) for name in names]
    shown = [one.split()[0] for one in line(*targets)[1:]]
    assert len(set(shown)) == 2
    assert all(len(one) == 12 for one in shown)
    rows = summary_table([record(targets=targets)]).split("\n")[2:]
    assert [row.split()[0] for row in rows] == shown


def test_names_that_no_part_tells_apart_are_numbered():
    names = [f"the_scanner_of_the_{place}_wing_{year}" for place in ("north", "south") for year in (2024, 2025)]
    shown = [one.split()[0] for one in line(*(target(name, losses={"estimate": 1.0}) for name in names))[1:]]
    assert shown == [f"the_scanne…{number}" for number in range(1, 5)]


def test_a_reference_without_an_accuracy():
    assert line(accuracy=None, seconds=1.0) == [f"{'epoch 9  val: loss 2.92':<72}   1.0 s"]


def random_history(rng, names=("trivial", "empirical", "active_nodes"), epochs=6):
    history = []
    for epoch in range(epochs):
        values = {name: dict(zip((*names, "actual"), rng.uniform(0.1, 2, 4), strict=True)) for name in ("loss", "accuracy")}
        loss, accuracy = (values[name].pop("actual") for name in ("loss", "accuracy"))
        if epoch == 2:
            del values["loss"]["active_nodes"]  # undefined at one measurement
        history.append(record(epoch, targets=[target("test", loss, accuracy, values["loss"], values["accuracy"])]))
    history[4] = with_target(history[4], "test", loss=None)
    return history


def test_the_last_row_of_each_set_and_the_errors_against_numpy():
    history = random_history(np.random.default_rng(0), names=("trivial", "estimate", "active_nodes"))
    head, headings, row, errors, where = summary_table(history).split("\n")
    last = history[-1].targets["test"]
    assert head == "epoch 5  train: loss 1.00"
    assert headings.split() == ["set", "accuracy", "loss", "vs", "train"]  # without an own accuracy nothing is compared
    loss, accuracy = (last.estimates[of]["estimate"].value for of in ("loss", "accuracy"))
    assert row.split() == ["test", f"{accuracy:.2f}", f"{loss:#.3g}", f"{loss - 1:+.2f}"]
    means = {}
    for quantity in ("loss", "accuracy"):
        pairs = [
            [abs(one.targets["test"].estimates[quantity][name].value - truth) for name in ("estimate", "trivial")]
            for one in history
            if (truth := one.targets["test"].labelled(quantity)) is not None
        ]
        means[quantity] = np.mean(pairs, 0)
    own, trivial = ([means[quantity][i] for quantity in ("accuracy", "loss")] for i in (0, 1))
    with_train = f"with train's own values: {trivial[0]:.2f}, {trivial[1]:#.3g}"
    assert errors == f"mean error: accuracy {own[0]:.2f}, loss {own[1]:#.3g}; {with_train}"
    assert where == "the scores of all estimators: monitor.scorecard"


def test_each_set_has_its_range_its_change_and_its_verdict():
    said = summary_table([record(9, 2.92, accuracy=0.48, name="val", targets=[CLEAN, BLURRED])], Path("logs/scores.csv"))
    assert said.split("\n") == [
        "epoch 9  val: accuracy 0.48, loss 2.92",
        "  set               accuracy  vs val               loss  vs val   verdict",
        "  clean    0.49 [0.43, 0.50]   +0.01  2.86 [2.63, 3.03]   -0.06  like val",
        "  blurred  0.36 [0.27, 0.43]   -0.12  3.61 [2.98, 4.34]   +0.69    unsure",
        "mean error: accuracy 0.01, loss 0.0600; with val's own values: 0.02, 0.120",
        "the scores of all estimators: logs/scores.csv",
    ]


def test_the_file_of_scores_is_named_from_here(tmp_path, monkeypatch):
    records = [record(targets=[target(loss=1.5, losses={"trivial": 1.0})])]
    file = tmp_path / "logs" / "scores.csv"
    assert summary_table(records, file).endswith(f": {file}")
    monkeypatch.chdir(tmp_path)
    assert summary_table(records, file).endswith(": logs/scores.csv")


def test_without_a_truth_there_are_no_errors():
    records = [with_target(one, "test", loss=None, accuracy=None) for one in random_history(np.random.default_rng(1))]
    assert [line.split()[0] for line in summary_table(records).split("\n")] == ["epoch", "set", "test"]


def test_where_only_the_reference_stands_for_a_set():
    said = summary_table([record(targets=[target(loss=1.5, losses={"trivial": 1.0})])])
    assert "test  1.00 (trivial)" in said
    assert "mean error: loss 0.500\n" in said


def test_an_estimator_of_the_accuracy_alone_stands_for_its_set():
    name = "difference_of_confidences"
    one = record(targets=[target(loss=1.5, accuracy=0.5, losses={"trivial": 1.0}, accuracies={"trivial": 0.75, name: 0.5})])
    said = summary_table([one])
    assert f"0.50 ({name})" in said
    assert "mean error: accuracy 0.00, loss 0.500" in said
    assert all(len(line) <= WIDTH for line in said.split("\n"))


def test_long_names_leave_room_for_the_verdict():
    found = replace(CLEAN, name="a hospital in another country")
    said = summary_table([record(9, 2.92, accuracy=0.48, name="val", targets=[found])])
    assert all(len(line) <= WIDTH for line in said.split("\n"))
    assert said.split("\n")[2].startswith("  a hospital …  0.49")
    assert said.split("\n")[2].endswith("like val")


def test_a_long_name_of_the_reference_leaves_room_for_the_verdict():
    one = record(9, 2.92, accuracy=0.48, name="reference", targets=[CLEAN, BLURRED])
    _, headings, clean, blurred, *_ = summary_table([one]).split("\n")
    assert headings.split() == ["set", "accuracy", "change", "loss", "change", "verdict"]
    assert clean.endswith("  like reference")
    assert blurred.endswith("          unsure")
    assert max(map(len, (headings, clean, blurred))) <= WIDTH


def test_verdicts_that_have_no_room_stand_below():
    wide = Estimate(0.864, None, 0.757, 0.994, (), "like the reference")
    found = replace(CLEAN, name="another country", estimates={**CLEAN.estimates, "loss": {"estimate": wide}})
    one = record(9, 2.92, accuracy=0.48, name="reference", targets=[found, replace(BLURRED, estimates={})])
    assert summary_table([one]).split("\n")[1:4] == [
        "  set                    accuracy  change                  loss  change",
        "  another cou…  0.49 [0.43, 0.50]   +0.01  0.864 [0.757, 0.994]   -2.06",
        "    like reference",
    ]


def test_headings_of_numbers_that_are_too_long_are_cut():
    wide = Estimate(1.23e9, None, 1.1e9, 2.2e12, (), "worse")
    found = replace(CLEAN, estimates={**CLEAN.estimates, "loss": {"estimate": wide}})
    said = summary_table([record(9, 2.92, accuracy=0.48, targets=[found])])
    assert max(map(len, said.split("\n"))) <= WIDTH


def test_no_table_without_measurements():
    assert summary_table([]) == ""


def test_cells_are_aligned():
    assert aligned_table([["a", "bb", "c"], ["long", "1", ""]]) == "a     bb\nlong   1"


class Speaker(pl.Callback):
    """Says something wherever a measurement may be taken."""

    def on_train_start(self, trainer, pl_module):
        say(trainer, "a line at the start")

    def on_train_epoch_end(self, trainer, pl_module):
        say(trainer, f"a line after epoch {trainer.current_epoch}\nand another")

    def on_fit_end(self, trainer, pl_module):
        say(trainer, SAID[-1])


class OwnBar(ProgressBar):
    """A bar that writes elsewhere."""

    def __init__(self):
        super().__init__()
        self.printed = []

    def print(self, *args, **kwargs):
        self.printed.append(args)

    def disable(self):
        pass


SAID = [
    "a line at the start",
    *["a line after epoch 0", "and another", "a line after epoch 1", "and another"],
    "a line at the end [0.4, 0.6] [red]",
]

BARS = {
    "a bar": ([TQDMProgressBar()], True),
    "a bar that is off": ([TQDMProgressBar(refresh_rate=0)], True),
    "no bar": ([], False),
}


@pytest.mark.parametrize(("bars", "enabled"), BARS.values(), ids=BARS)
def test_lines_appear_whole_beside_any_bar(bars, enabled, capsys):
    fit(Speaker(), *bars, enable_progress_bar=enabled)
    # a bar is written over with a carriage return before a line is
    shown = [line.rpartition("\r")[2].strip() for line in capsys.readouterr().out.split("\n")]
    assert [line for line in shown if line in SAID] == SAID


def test_lines_appear_whole_beside_a_bar_of_rich(capsys):
    """Lightning's own bar wherever that package is installed; square brackets are its markup."""
    pytest.importorskip("rich", reason="install the extra recipes, which needs rich")
    fit(Speaker(), enable_progress_bar=True)
    shown = [line.strip() for line in capsys.readouterr().out.split("\n")]
    assert [line for line in shown if line in SAID] == SAID


def test_a_bar_of_the_user_prints_itself(capsys):
    bar = OwnBar()
    fit(Speaker(), bar, enable_progress_bar=True)
    assert [text for (text,) in bar.printed] == SAID  # a bar of rich takes one line at a time in a notebook
    assert "a line" not in capsys.readouterr().out


def test_other_processes_say_nothing(monkeypatch, capsys):
    monkeypatch.setattr(pl.Trainer, "is_global_zero", False)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    say(trainer, "a line")
    assert "a line" not in capsys.readouterr().out


@pytest.fixture
def shown_early(monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BEFORE_BAR", 0.05)


def count(batches, seconds, **options):
    with slow_progress(batches, "measuring", **options) as progress:
        for _ in range(batches):
            time.sleep(seconds)
            progress.update()


def test_a_bar_that_is_not_slow_is_not_shown(capsys):
    count(3, 0.0)
    assert capsys.readouterr().err == ""


def test_a_slow_bar_is_shown_and_taken_away(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BEFORE_BAR", 0.4)
    count(6, 0.15)
    said = capsys.readouterr().err
    shown = said.split("\r")
    bars = [line for line in shown if "measuring" in line]
    assert bars
    assert "0/6" not in "".join(bars)  # not from the start
    assert all("/6" in line for line in bars)
    assert shown[-1].strip() == ""
    assert "\n" not in said


def test_a_slow_bar_can_be_off(capsys, shown_early):
    count(3, 0.1, enabled=False)
    assert capsys.readouterr().err == ""


def test_a_slow_bar_goes_away_when_the_measurement_fails(capsys, shown_early):
    def fail():
        with slow_progress(9, "measuring") as progress:
            for _ in range(3):
                time.sleep(0.15)
                progress.update()
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        fail()
    said = capsys.readouterr().err
    assert "measuring" in said
    assert said.split("\r")[-1].strip() == ""
    assert not [bar for bar in tqdm._instances if bar.desc == "measuring"]


class Slow(Points):
    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)


@pytest.mark.parametrize(("samples", "told"), [(40, False), (400, True)])
def test_a_slow_measurement_is_announced_before_it_begins(samples, told, caplog):
    sizes = {"num_loss_samples": samples, "batch_size": 400, "every_n_epochs": 9}
    monitor = make_monitor(test_dataloaders=Slow(400), measures=[], estimators=None, **sizes)
    with caplog.at_level("INFO"):
        fit(monitor)
    announced = [int(seconds) for text in caplog.messages for seconds in re.findall(r"will take about (\d+) s, ", text)]
    assert len(announced) == told
    assert all(seconds < 60 for seconds in announced)  # 20 s of reading
    assert not monitor.records


@pytest.mark.parametrize(("given", "told"), [({"reference": "auto"}, True), ({"reference": "train"}, False)])
def test_that_the_training_data_stand_in_for_a_reference_is_said(given, told, caplog):
    with caplog.at_level("INFO"):
        fit(make_monitor(test_dataloaders=Points(), **given))
    assert told == any("estimates start from the training data" in unwrapped(text) for text in caplog.messages)


class Interrupted(BoringModule):
    def on_train_epoch_start(self):
        if self.current_epoch == 2:
            raise KeyboardInterrupt


def test_the_table_of_an_interrupted_fit_is_printed(capsys):
    monitor = make_monitor(test_dataloaders=Points(), verbose=True)
    with contextlib.suppress(SystemExit):  # as Lightning ends an interrupted fit
        fit(monitor, module=Interrupted, max_epochs=4)
    assert capsys.readouterr().out.endswith(summary_table(monitor.records) + "\n")

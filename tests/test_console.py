"""What is said on the console: lines, tables, and where they go beside a progress bar."""

import re
import time

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from tqdm.auto import tqdm

from lightning_tansens.show.console import aligned_table, measurement_line, say, slow_progress, summary_table
from lightning_tansens.show.keys import Keys
from tests.boring import Points, fit, make_monitor

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning advises for tiny trainings

LOSS, ACCURACY = "tansens/test_loss/", "tansens/test_accuracy/"
ROW = {
    "epoch": 3,
    "step": 41,
    "tansens/empirical/test": 7.0,
    "tansens/val_loss": 1.1,
    LOSS + "trivial": 1.1,
    LOSS + "trivial_stderr": 0.031,
    LOSS + "empirical": 1.2345,
    LOSS + "empirical_stderr": 0.0512,
    LOSS + "layer_norm": 1.5,
    LOSS + "actual": 1.31,
    ACCURACY + "trivial": 0.6,
    ACCURACY + "empirical": 0.61,
    ACCURACY + "actual": 0.1,
    "tansens/seconds": 0.44,
}
LINE = "epoch 3: test loss 1.23 ± 0.05 (empirical; trivial 1.10, actual 1.31), accuracy 0.610 (actual 0.100), 0.4 s"


def without(row, *parts):
    return {key: value for key, value in row.items() if not any(part in key for part in parts)}


LINES = {
    "everything": (ROW, LINE),
    "no truth": (
        without(ROW, "actual"),
        "epoch 3: test loss 1.23 ± 0.05 (empirical; trivial 1.10), accuracy 0.610 (trivial 0.600), 0.4 s",
    ),
    "no accuracy": (
        without(ROW, "accuracy", "seconds"),
        "epoch 3: test loss 1.23 ± 0.05 (empirical; trivial 1.10, actual 1.31)",
    ),
    "the first measure's estimate is undefined": (
        without(ROW, "/empirical", "accuracy"),
        "epoch 3: test loss 1.50 (layer_norm; trivial 1.10, actual 1.31), 0.4 s",
    ),
    "no measure's estimate": (
        without(ROW, "/empirical", "layer_norm", "actual"),
        "epoch 3: test loss 1.10 ± 0.03 (trivial), accuracy 0.600, 0.4 s",
    ),
    "nothing": ({"epoch": 0, "tansens/seconds": 1.0}, "epoch 0: no estimate, 1.0 s"),
    "other sizes": (
        {"epoch": 12, LOSS + "trivial": 123.4, LOSS + "empirical": 0.001234, LOSS + "empirical_stderr": 12.0},
        "epoch 12: test loss 0.00123 ± 1e+01 (empirical; trivial 123)",
    ),
}


@pytest.mark.parametrize(("row", "line"), LINES.values(), ids=LINES)
def test_a_line_for_a_measurement(row, line):
    assert measurement_line(row) == line


def test_a_long_line_fits():
    row = {**ROW, "epoch": 123, LOSS + "trivial": 0.0123, LOSS + "empirical": 0.00123, LOSS + "actual": 0.0456}
    line = measurement_line({**row, LOSS + "empirical_stderr": 0.0012, "tansens/seconds": 1234.5})
    assert "0.0456" in line
    assert len(line) <= 120


def test_a_line_for_each_test_set_of_a_run():
    monitor = make_monitor(
        test_dataloaders={"near": Points(9, seed=2), "far": Points(9, seed=9)}, compare_with_labels=True, prefix="mine"
    )
    fit(monitor)
    lines = measurement_line(monitor.history[1], Keys("mine")).split("\n")
    row = monitor.history[1]
    for line, name in zip(lines, ("near", "far"), strict=True):
        number = r"(\d[\d.e+-]*)"
        found = re.match(
            rf"epoch 1: {name} loss {number} ± {number} \(empirical; trivial {number}, actual {number}\), ", line
        )
        assert found, line
        keys = ("empirical", "empirical_stderr", "trivial", "actual")
        expected = [row[f"mine/{name}_loss/{key}"] for key in keys]
        assert [float(value) for value in found.groups()] == pytest.approx(expected, rel=0.5e-2, abs=0.05)
        assert len(line) <= 120
    assert lines[1].endswith(f", {row['mine/seconds']:.1f} s")
    assert " s" not in lines[0]


def random_history(rng, names=("trivial", "empirical", "active_nodes"), epochs=6):
    history = []
    for epoch in range(epochs):
        row = {"epoch": epoch, "step": 3 * epoch}
        for quantity in ("loss", "accuracy"):
            row |= {f"tansens/test_{quantity}/{name}": float(rng.uniform(0.1, 2)) for name in (*names, "actual")}
        row |= {f"{LOSS}{name}_stderr": float(rng.uniform(0.01, 0.1)) for name in names}
        history.append(row)
    del history[2][LOSS + "active_nodes"]  # undefined at one measurement
    del history[4][LOSS + "actual"]
    return history


def parsed(text):
    """The cells of a table by row and heading; the headings are apart by two blanks."""
    lines = text.split("\n")
    starts = [(match.group(), match.end()) for match in re.finditer(r"\S+(?: \S+)*", lines[0])]
    table = {}
    for line in lines[1:]:
        cells = {match.end(): match.group() for match in re.finditer(r"\S+", line)}
        table[line.split()[0]] = [cells.get(end) for _, end in starts[1:]]
    return [heading for heading, _ in starts], table


def test_the_table_against_numpy():
    history = random_history(np.random.default_rng(0))
    headings, table = parsed(summary_table(history))
    assert headings == [
        *["test, epoch 5", "loss", "± stderr", "MAE", "MAE / trivial"],
        *["accuracy", "MAE", "MAE / trivial"],
    ]
    assert list(table) == ["trivial", "empirical", "active_nodes", "actual"]
    for name in ("trivial", "empirical", "active_nodes"):
        cells = [f"{history[-1][LOSS + name]:.4f}", f"{history[-1][LOSS + name + '_stderr']:.4f}"]
        for quantity in (LOSS, ACCURACY):
            values = np.array([[row.get(quantity + key, np.nan) for key in (name, "trivial", "actual")] for row in history])
            errors = np.abs(values[:, :2] - values[:, 2:])
            mae, trivial = errors[~np.isnan(errors).any(1)].mean(0)
            if quantity == ACCURACY:
                cells.append(f"{history[-1][ACCURACY + name]:.4f}")
            cells += [f"{mae:.4f}", f"{mae / trivial:.2f}"]
        assert table[name] == cells
    actual = [f"{history[-1][quantity + 'actual']:.4f}" for quantity in (LOSS, ACCURACY)]
    assert table["actual"] == [actual[0], None, None, None, actual[1], None, None]


def test_the_table_without_a_truth_has_no_errors():
    history = [without(row, "actual", "accuracy") for row in random_history(np.random.default_rng(1))]
    headings, table = parsed(summary_table(history))
    assert headings == ["test, epoch 5", "loss", "± stderr"]
    assert list(table) == ["trivial", "empirical", "active_nodes"]


def test_the_table_where_the_trivial_estimate_is_right():
    row = {"epoch": 0, LOSS + "trivial": 1.0, LOSS + "empirical": 1.5, LOSS + "actual": 1.0}
    headings, table = parsed(summary_table([row]))
    assert headings == ["test, epoch 0", "loss", "MAE"]  # nothing can be compared with an error of zero
    assert table["empirical"] == ["1.5000", "0.5000"]


def test_the_table_of_a_run_with_several_test_sets():
    monitor = make_monitor(test_dataloaders={"near": Points(9, seed=2), "far": Points(9, seed=9)}, compare_with_labels=True)
    fit(monitor)
    near, far = summary_table(monitor.history).split("\n\n")
    assert near.startswith("near, epoch 1")
    assert far.startswith("far, epoch 1")
    assert all(len(line) <= 120 for line in [*near.split("\n"), *far.split("\n")])
    _, table = parsed(near)
    assert list(table) == ["trivial", "empirical", "layer_norm", "active_nodes", "actual"]
    assert table["actual"][0] == f"{monitor.history[1]['tansens/near_loss/actual']:.4f}"
    assert table["trivial"][3] == "1.00"


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
        say(trainer, "a line at the end")


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
    "a line at the end",
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


def test_a_bar_of_the_user_prints_itself(capsys):
    bar = OwnBar()
    fit(Speaker(), bar, enable_progress_bar=True)
    assert "\n".join(text for (text,) in bar.printed).split("\n") == SAID
    assert "a line" not in capsys.readouterr().out


def test_other_processes_say_nothing(monkeypatch, capsys):
    monkeypatch.setattr(pl.Trainer, "is_global_zero", False)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    say(trainer, "a line")
    assert "a line" not in capsys.readouterr().out


def count(batches, seconds, **options):
    with slow_progress(batches, "measuring", **options) as progress:
        for _ in range(batches):
            time.sleep(seconds)
            progress.update()


def test_a_bar_that_is_not_slow_is_not_shown(capsys):
    count(3, 0.0)
    assert capsys.readouterr().err == ""


def test_a_slow_bar_is_shown_and_taken_away(capsys):
    count(6, 0.15, after_seconds=0.4)
    said = capsys.readouterr().err
    shown = said.split("\r")
    bars = [line for line in shown if "measuring" in line]
    assert bars
    assert "0/6" not in "".join(bars)  # not from the start
    assert all("/6" in line for line in bars)
    assert shown[-1].strip() == ""
    assert "\n" not in said


def test_a_slow_bar_can_be_off(capsys):
    count(3, 0.1, after_seconds=0.05, enabled=False)
    assert capsys.readouterr().err == ""


def test_a_slow_bar_goes_away_when_the_measurement_fails(capsys):
    def fail():
        with slow_progress(9, "measuring", after_seconds=0.01) as progress:
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

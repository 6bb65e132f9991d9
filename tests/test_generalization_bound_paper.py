"""The second paper's example runs, goes on after an interruption, and draws its figures."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "example_projects" / "generalization_bound_paper"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs a file of the example in a folder of the test."""

    def run(file, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
        monkeypatch.setattr(sys, "argv", [file, *map(str, arguments)])
        return runpy.run_path(str(EXAMPLE / file), run_name="__main__")

    return run


def read(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.thorough
def test_from_the_run_to_the_table(call, image_folder, tmp_path, capsys):
    history, kept = tmp_path / "history.csv", tmp_path / "w12.csv"
    small = (
        "--data.data_dir",
        image_folder,
        "--data.download=false",
        "--data.batch_size=20",
        "--model.widths=[3072,12,12,12,10]",
    )
    for epochs in (2, 4):
        latest = sorted(tmp_path.glob("lightning_logs/**/*.ckpt"), key=lambda path: path.stat().st_mtime)[-1:]
        go_on = [f"--ckpt_path={path}" for path in latest]
        options = ("--trainer.accelerator=cpu", f"--trainer.max_epochs={epochs}", f"--history_csv={history}", *go_on)
        call("main.py", "fit", f"--config={EXAMPLE / 'config.yaml'}", *small, *options)
    rows = read(history)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[-1]["tansens/pearson/class_sensitivity/test/all/3"]) <= 1
    for row in rows:
        assert float(row["train_loss_with_dropout"]) > 0

    call("figures.py", "keep", history, kept)
    assert float(read(kept)[2]["tansens/class_sensitivity/test/4/7"]) == pytest.approx(
        float(rows[2]["tansens/class_sensitivity/test/4/7"]), rel=1e-5
    )
    call("figures.py", "figure", kept, tmp_path / "w12.png")
    assert (tmp_path / "w12.png").read_bytes().startswith(b"\x89PNG")
    call("figures.py", "table", kept, kept, tmp_path / "table.csv")
    table = read(tmp_path / "table.csv")
    assert [row["network"] for row in table] == ["w12", "w12"]
    assert "| w12 | 4 |" in capsys.readouterr().out
    # the live coefficient of the mean is the table's
    gaps = [abs(float(row["tansens/train_loss"]) - float(row["tansens/test_loss/actual"])) for row in rows]
    means = [float(row["tansens/class_sensitivity/test"]) for row in rows]
    assert float(table[0]["eval: mean"]) == pytest.approx(np.corrcoef(gaps, means)[0, 1], abs=2e-3)
    assert float(rows[-1]["tansens/pearson/class_sensitivity/test"]) == pytest.approx(
        np.corrcoef(gaps, means)[0, 1], abs=1e-4
    )


@pytest.mark.parametrize("name", ["config.yaml", "wide.yaml"])
def test_the_networks_are_the_papers(name, call, image_folder):
    """The configuration as it is, but for a training of no steps."""
    with pytest.raises(SystemExit) as stopped:
        call("main.py", "fit", f"--config={EXAMPLE / name}", f"--data.data_dir={image_folder}", "--print_config")
    assert stopped.value.code == 0


def test_the_loss(call):
    names = call("figures.py", "table", ROOT / "docs/results/generalization_bound_paper/cifar10_w100.csv", "table.csv")
    assert "summarise" in names
    import squared_loss

    outputs, targets = torch.tensor([[0.5, 0.0, 2.0], [0.0, 1.0, 0.0]]), torch.tensor([2, 1])
    expected = torch.tensor([(0.25 + 0 + 1) / 6, 0.0])
    assert torch.allclose(squared_loss.HalfSquaredError()(outputs, targets), expected)
    network = squared_loss.SquaredLossClassifier([30, 2000, 5, 5, 3]).network
    assert float(network[1].weight.detach().std()) == pytest.approx(30**-0.5, rel=0.02)
    assert [layer.p for layer in network if isinstance(layer, torch.nn.Dropout)] == [0.25, 0.5, 0.5]

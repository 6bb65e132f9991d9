"""Each example runs as it is documented."""

from __future__ import annotations

import csv
import re
import runpy
import struct
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "example_projects"


@pytest.fixture
def run_example(tmp_path, monkeypatch):
    """Fits an example for two epochs in a folder of the test, and returns the rows of its history."""

    def run(name, *arguments):
        folder, history = EXAMPLES / name, tmp_path / "history.csv"
        options = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", f"--history_csv={history}", *arguments]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        monkeypatch.setattr(sys, "argv", ["main.py", "fit", f"--config={folder / 'config.yaml'}", *options])
        runpy.run_path(str(folder / "main.py"), run_name="__main__")
        with history.open(newline="") as file:
            return list(csv.DictReader(file))

    return run


def check(rows, reference="train"):
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for name in ("actual", "trivial", "empirical", "active_nodes"):
        assert float(rows[1][f"tansens/test_loss/{name}"]) > 0
    assert float(rows[1][f"tansens/empirical/{reference}"]) > 0


def test_digits_and_a_plot_of_its_history(run_example, tmp_path, capsys, monkeypatch):
    check(run_example("digits"))
    printed = capsys.readouterr().out
    assert re.search(r"^  test +0\.\d+ \[", printed, re.MULTILINE)
    assert re.search(r"^mean error: accuracy \d", printed, re.MULTILINE)
    assert "tansens_scorecard.csv" in printed
    assert list(tmp_path.glob("lightning_logs/digits/version_0/events*"))
    monkeypatch.setattr(sys, "argv", ["plot_history.py", str(tmp_path / "history.csv"), str(tmp_path / "picture.png")])
    runpy.run_path(str(EXAMPLES / "plot_history.py"), run_name="__main__")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_mnist(run_example, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in {"train": 128, "t10k": 32}.items():
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8).numpy().tobytes()
        labels = torch.randint(10, (count,), dtype=torch.uint8).numpy().tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels)
    check(run_example("mnist", f"--data.data_dir={tmp_path}", "--data.download=false"))


@pytest.mark.thorough
def test_cifar10(run_example, image_folder):
    check(run_example("cifar10", f"--data.data_dir={image_folder}"))


def test_cifar10_on_shifted_test_sets(run_example, image_folder, monkeypatch, tmp_path):
    options = ["--data.shifted=true", "--trainer.callbacks.num_samples=4"]
    rows = run_example("cifar10", f"--data.data_dir={image_folder}", *options)
    names = ("clean", "blurred", "noisy")
    losses = [float(rows[1][f"tansens/{name}_loss/actual"]) for name in names]
    assert len(set(losses)) == 3
    assert all(f"tansens/{name}_accuracy/estimate_low" in rows[1] for name in names)
    picture = tmp_path / "answer.png"
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    monkeypatch.setattr(sys, "argv", ["plot_history.py", str(tmp_path / "history.csv"), str(picture), "--answer"])
    runpy.run_path(str(EXAMPLES / "plot_history.py"), run_name="__main__")
    assert picture.stat().st_size > 1000


@pytest.mark.thorough
def test_cifar10_with_held_out_reference(run_example, image_folder):
    options = ("--data.augment=false", "--data.validation_size=20", "--trainer.callbacks.reference=val")
    check(run_example("cifar10", f"--data.data_dir={image_folder}", *options), reference="val")


@pytest.mark.thorough
def test_shifted_digits(tmp_path, monkeypatch, capsys):
    picture = tmp_path / "picture.png"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", "--epochs", "3", "--picture", str(picture)])
    runpy.run_path(str(EXAMPLES / "shifted_digits" / "main.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for name in ("same", "blurred", "dimmed"):
        assert re.search(rf"^{name}: accuracy 0\.\d+ \[.* in truth 0\.\d\d$", printed, re.MULTILINE)
    assert picture.read_bytes().startswith(b"\x89PNG")

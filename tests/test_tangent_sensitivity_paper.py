"""The first paper's example runs, makes every figure and table, and computes the table's errors rightly."""

from __future__ import annotations

import csv
import importlib
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "example_projects" / "tangent_sensitivity_paper"


@pytest.fixture
def module(monkeypatch):
    """Imports a file of the example by its name."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
    return importlib.import_module


def read(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.thorough
def test_run_goes_on_and_every_figure_is_made(image_folder, tmp_path, monkeypatch, capsys, module):
    folder = tmp_path / "results"
    monkeypatch.chdir(tmp_path)
    configs = [f"--config={EXAMPLE / name}" for name in ("config.yaml", "cifar10.yaml")]
    options = [f"--data.data_dir={image_folder}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    for epochs in (1, 2):  # the second fit starts from the first one's checkpoint
        arguments = [f"--trainer.max_epochs={epochs}", f"--history_csv={folder / 'cifar10.csv'}", "--ckpt_path=last"]
        monkeypatch.setattr(sys, "argv", ["main.py", "fit", *configs, *options, *arguments])
        runpy.run_path(str(EXAMPLE / "main.py"), run_name="__main__")
    assert [row["epoch"] for row in read(folder / "cifar10.csv")] == ["0", "1"]
    counts = read(folder / "cifar10_active_nodes.csv")
    assert [sum(int(row[part]) for row in counts) for part in ("train", "test")] == [80, 40]
    assert all(0 <= int(row["active"]) <= 400 for row in counts)

    for what in ("figure1", "figure2", "figure3", "table1"):
        monkeypatch.setattr(sys, "argv", ["figures.py", what, f"--folder={folder}"])
        runpy.run_path(str(EXAMPLE / "figures.py"), run_name="__main__")
    for picture in ("figure1", "figure2", "figure2_depth", "figure3_cifar10"):
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    table = {row["estimate"]: row for row in read(folder / "table1.csv")}
    assert set(table) == set(module("estimate_errors").ESTIMATES)
    assert float(table["empirical"]["paper_loss_mae"]) == pytest.approx(0.02688)
    history = read(folder / "cifar10.csv")
    for key in ("trivial", "empirical", "region_notebook", "layer_norm_linear"):
        errors = [abs(float(row[f"tansens/test_loss/{key}"]) - float(row["tansens/test_loss/actual"])) for row in history]
        assert float(table[key]["loss_mae"]) == pytest.approx(sum(errors) / 2, rel=1e-4)
    assert "| trivial: the training set's own |" in capsys.readouterr().out


HISTORY = [
    {
        "train_loss": 1.0,
        "train_accuracy": 0.6,
        "test_loss/actual": 1.5,
        "test_accuracy/actual": 0.5,
        "test_loss/empirical": 2.0,
        "active_nodes_mean/train": 4.0,
        "active_nodes_mean/test": 5.0,
        "active_nodes_std/train": 0.0001,
        "active_nodes_std/test": 0.0001,
    },
    {
        "train_loss": 0.5,
        "train_accuracy": 0.8,
        "test_loss/actual": 1.75,
        "test_accuracy/actual": 0.5,
        "test_loss/empirical": 0.25,
        "active_nodes_mean/train": 2.0,
        "active_nodes_mean/test": 2.0,
        "active_nodes_std/train": 0.0001,
        "active_nodes_std/test": 0.0001,
    },
]


def test_errors_against_numbers_by_hand(module):
    errors = module("estimate_errors")
    trivial, empirical = errors.ESTIMATES["trivial"], errors.ESTIMATES["empirical"]
    assert errors.loss_error(HISTORY, trivial) == pytest.approx((0.5 + 1.25) / 2)
    assert errors.loss_error(HISTORY, empirical) == pytest.approx((0.5 + 1.5) / 2)
    # the factors are 2 and 1/2: accuracies 1 (clamped from 1.2) and 0.4, or error rates 0.8 and 0.1
    assert errors.accuracy_error(HISTORY, empirical) == pytest.approx((0.5 + 0.1) / 2)
    assert errors.accuracy_error(HISTORY, empirical, "error") == pytest.approx((0.3 + 0.4) / 2)


def test_undefined_estimates_are_left_out(module):
    errors = module("estimate_errors")
    history = [HISTORY[0], {key: value for key, value in HISTORY[1].items() if key != "test_loss/empirical"}]
    assert errors.loss_error(history, errors.ESTIMATES["empirical"]) == pytest.approx(0.5)
    assert math.isnan(errors.loss_error(history, errors.ESTIMATES["fisher_rao"]))


def test_notebook_active_nodes(module):
    """Without a spread ψ* at k = 4 is μ⁶ up to a constant: the factors are (5/4)⁶ and 1."""
    errors = module("estimate_errors")
    expected = (abs(1.25**6 - 1.5) + abs(0.5 - 1.75)) / 2
    assert errors.loss_error(HISTORY, errors.ESTIMATES["active_nodes_notebook"]) == pytest.approx(expected, rel=1e-6)


def test_correlation_with_the_gap(module):
    """Of a measure on the test set, or of the weights where it needs no data; the gaps are 0.5, 1.25 and 2."""
    rows = [{"train_loss": 1.0, "test_loss/actual": 1.5 + 0.75 * i, "a/test": a, "b": -i} for i, a in enumerate((0, 2, 1))]
    correlation = module("estimate_errors").gap_correlation
    assert correlation(rows, "a") == pytest.approx(0.5)
    assert correlation(rows, "b") == pytest.approx(-1)
    assert math.isnan(correlation(rows, "trivial"))


def test_correlation_of_changes(module):
    """The gaps change by 1, 2 and −1; the measure by 1, 2 and −1 as well, or by the opposite, or not at all."""
    gaps = (0.0, 1.0, 3.0, 2.0)
    rows = [{"train_loss": 0.0, "test_loss/actual": g, "a/test": g, "b": 7 - 2 * g, "c": 1.0} for g in gaps]
    correlation = module("estimate_errors").change_correlation
    assert correlation(rows, "a") == pytest.approx(1)
    assert correlation(rows, "b") == pytest.approx(-1)
    assert math.isnan(correlation(rows, "c"))
    assert math.isnan(correlation(rows, "missing"))


def test_markdown(module):
    errors = module("estimate_errors")
    lines = errors.markdown(errors.table({"cifar10": HISTORY}), "loss_mae", "paper_loss_mae").splitlines()
    assert lines[0] == "|  | paper | cifar10 |"
    assert lines[2] == "| trivial: the training set's own | – | 0.875 |"
    assert lines[3] == "| empirical (Eq. 8) | 0.027 | 1.000 |"
    assert lines[5].endswith("| 0.049 | – |")  # Eq. 7 was not logged here


def test_notebook_region(module):
    """One sample, hidden units at ln 3 and −1: one active path; sigmoid(relu(h)) is 3/4 and 1/2."""
    measure = module("paper_measures").NotebookRegion()
    network = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1)).double()
    network[0].weight.data.copy_(torch.tensor([[math.log(3)], [-1.0]]))
    measure.update(network, torch.ones(1, 1, dtype=torch.float64))
    assert float(measure.compute()) == pytest.approx(-math.log(3 / 8))
    swapped = measure.log_ratio({"region_notebook": 2.0}, {"region_notebook": 6.0})
    assert swapped == pytest.approx(math.log(3))


def test_linear_layer_norm(module):
    measure = module("paper_measures").LinearLayerNorm()
    assert set(measure.values()) == {"layer_norm_linear"}
    ratio = measure.log_ratio({"layer_norm_linear": math.log(2)}, {"layer_norm_linear": math.log(6)})
    assert ratio == pytest.approx(math.log(9))


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, "LRLRL"),
        ({"batch_norm": True}, "LBRLBRL"),
        ({"dropout": 0.5}, "LRLRDL"),
        ({"batch_norm": True, "dropout": 0.5}, "LBRLBRDL"),
    ],
)
def test_variants_of_the_network(module, options, kinds):
    network = module("paper_network").PaperClassifier([4, 3, 3, 2], **options).network
    assert "".join(type(layer).__name__[0] for layer in network[1:]) == kinds


def test_doubling_a_weight_multiplies_the_bound(module):
    """The bound holds w_max to the power 2(k−1), in both forms; without a spread the same is true of μ."""
    curves = module("bound_curves")
    for form in ("printed", "consistent"):
        for name, setting in {"max_weight": curves.Setting(7), "mean_share": curves.Setting(7, std_share=0.0)}.items():
            doubled = curves.replace(setting, **{name: 2 * getattr(setting, name)})
            rise = doubled.log10_bound(form) - setting.log10_bound(form)
            assert rise == pytest.approx(12 * math.log10(2))


def test_bound_of_one_hidden_layer(module):
    """With k = 2 the consistent bound is P D w² E T², for P = W (D + 1) weights and E T² = μ² + σ²."""
    setting = module("bound_curves").Setting(depth=2, width=10, max_weight=0.5, mean_share=0.6, std_share=0.3)
    expected = math.log10(10 * 3073 * 3072 * 0.25 * (36 + 9))
    assert setting.log10_bound("consistent") == pytest.approx(expected)


@pytest.mark.parametrize("what", ["figure1", "table1"])
def test_results_that_are_missing(what, tmp_path, monkeypatch, module):
    monkeypatch.setattr(sys, "argv", ["figures.py", what, f"--folder={tmp_path}"])
    with pytest.raises(FileNotFoundError, match=r"found none; run main\.py fit"):
        runpy.run_path(str(EXAMPLE / "figures.py"), run_name="__main__")


def test_history_without_rows(tmp_path, module):
    (tmp_path / "cifar10.csv").write_text("epoch,step\n")
    with pytest.raises(ValueError, match="expected a row for each measurement"):
        module("run_histories").read_history(tmp_path / "cifar10.csv")

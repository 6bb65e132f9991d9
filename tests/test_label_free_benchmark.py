"""The benchmark runs, goes on where it stopped, and its tables are those of its numbers."""

from __future__ import annotations

import csv
import gzip
import math
import runpy
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_tansens.estimators import default_estimators

EXAMPLE = Path(__file__).parents[1] / "example_projects" / "label_free_benchmark"
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "label_free_benchmark.csv.gz"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])


@pytest.fixture
def call(tmp_path, monkeypatch):
    def run(file, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [file, *map(str, arguments)])
        with pytest.raises(SystemExit) if file == "main.py" else np.errstate():
            runpy.run_path(str(EXAMPLE / file), run_name="__main__")

    return run


@pytest.fixture
def mnist(tmp_path):
    """Digits that a network can learn: a bright square whose place is the class."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for part, count in {"train": 11_500, "t10k": 400}.items():
        labels = torch.randint(10, (count,), generator=generator)
        images = torch.randint(120, (count, 28, 28), generator=generator)
        for digit in range(10):
            row, column = divmod(digit, 4)
            images[labels == digit, 7 * row : 7 * row + 6, 7 * column : 7 * column + 6] += 100
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, count, 28, 28) + images.byte().numpy().tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.byte().numpy().tobytes())
    return tmp_path


@pytest.mark.thorough
def test_from_the_matrix_to_the_tables(call, mnist, capsys):
    arguments = ("--config", EXAMPLE / "smoke.yaml", "--mnist_dir", mnist, "--download", "false", "--folder", "runs")
    call("main.py", *arguments, "--csv_file", "benchmark.csv")
    with (mnist / "benchmark.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:8] == ["dataset", "network", "regime", "seed", "family", "severity", "estimator", "quantity"]
    assert {row["regime"] for row in rows} == {"underfit", "well_fit", "memorising"}
    assert {row["family"] for row in rows} == {"none", "rotation", "label_shift", "train"}
    sets = {(row["family"], row["severity"]) for row in rows}
    assert len(sets) == 2 + 2 * 5
    estimators = {row["estimator"] for row in rows if row["quantity"] == "accuracy"}
    assert estimators >= {"trivial", "empirical", "calibrated", "atc_entropy", "cot"}
    for regime in ("underfit", "well_fit", "memorising"):  # the weights are compared with themselves
        of_regime = [row for row in rows if (row["regime"], row["quantity"]) == (regime, "loss")]
        names = ("trivial", "layer_norm", "spectral_norm")
        assert len({row["estimate"] for row in of_regime if row["estimator"] in names}) == 1
    before = {path: path.stat().st_mtime_ns for path in (mnist / "runs").rglob("*.c*")}
    call("main.py", *arguments, "--csv_file", "again.csv.gz")
    assert {path: path.stat().st_mtime_ns for path in (mnist / "runs").rglob("*.c*")} == before
    assert gzip.decompress((mnist / "again.csv.gz").read_bytes()) == (mnist / "benchmark.csv").read_bytes()
    call("report.py", "benchmark.csv", "report")
    for name in ("loss.png", "accuracy_by_family.png"):
        assert (mnist / "report" / name).read_bytes().startswith(b"\x89PNG")
    assert "| trivial |" in capsys.readouterr().out
    assert "fit: entropy, sensitivity" in (mnist / "report" / "tables.md").read_text()


def test_a_compressed_table_is_the_same_bytes_whenever_it_is_written(tmp_path, monkeypatch):
    from results import open_table

    path, written = tmp_path / "table.csv.gz", []
    for now in (1e9, 2e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        with open_table(path, "w") as file:
            csv.writer(file).writerows([["network", "loss"], ["mlp", "0.5"]])
        written.append(path.read_bytes())
    assert written[0] == written[1]
    with open_table(path) as file:
        assert list(csv.DictReader(file)) == [{"network": "mlp", "loss": "0.5"}]


def test_the_published_table_reads():
    from ranking import ranking
    from results import read_rows, scored

    rows = read_rows(RESULTS)
    assert len({row.network for row in rows}) == 42
    assert {row.quantity for row in rows} == {"loss", "accuracy", "feature"}
    (trivial,) = ranking([row for row in scored(rows, "accuracy") if row.estimator == "trivial"])
    assert trivial.mae == pytest.approx(0.130, abs=5e-4)  # as docs/label_free_benchmark.md says


def benchmark(law, families=("a", "b", "c"), seeds=(0,)):
    """Rows of a benchmark in which losses follow a law of the features' ratios."""
    from results import Row

    rng = np.random.default_rng(0)
    for seed in seeds:
        network = ("cifar10", "mlp", "well_fit", seed)
        for family in families:
            for severity in range(1, 6):
                entropy, sensitivity, doubt, nodes = rng.uniform(0.5, 2.0, 4)
                loss, accuracy = 0.8 * law(entropy, sensitivity), 0.9
                on = (family, severity)
                yield Row(network, on, "trivial", "loss", 0.8, loss)
                yield Row(network, on, "trivial", "accuracy", 0.7, accuracy)
                yield Row(network, on, "entropy_ratio", "loss", 0.8 * entropy, loss)
                yield Row(network, on, "empirical", "loss", 0.8 * sensitivity, loss)
                yield Row(network, on, "average_confidence", "feature", 1 - 0.2 * doubt, 0.8)
                yield Row(network, on, "active_nodes_mean", "feature", 50 * nodes, 50.0)


def test_a_fit_finds_a_law_on_a_family_that_it_has_not_seen():
    from fits import left_out_estimates

    rows = list(benchmark(lambda entropy, sensitivity: entropy**0.5 * sensitivity**-1.5))
    found = [row for row in left_out_estimates(rows) if row.quantity == "loss"]
    both = [row for row in found if row.estimator == "fit: entropy, sensitivity"]
    assert {row.on[0] for row in both} == {"a", "b", "c"}
    assert max(abs(math.log(row.estimate / row.actual)) for row in both) < 0.01
    one = [row for row in found if row.estimator == "fit: entropy"]
    assert max(abs(math.log(row.estimate / row.actual)) for row in one) > 0.3


def test_a_family_has_no_part_in_its_own_fit():
    from fits import left_out_estimates

    rows = list(benchmark(lambda entropy, sensitivity: entropy))
    changed = [replace(row, actual=5 * row.actual) if (row.on[0], row.quantity) == ("a", "loss") else row for row in rows]
    estimates = [
        {(row.on, row.estimator): row.estimate for row in left_out_estimates(of) if row.quantity == "loss"}
        for of in (rows, changed)
    ]
    for key, estimate in estimates[0].items():
        assert (estimates[1][key] == estimate) == (key[0][0] == "a"), key


def test_what_is_fitted_on_and_training_images_are_scored_for_no_estimator():
    from fits import left_out_estimates
    from ranking import family_errors
    from results import Row, scored

    rows = list(benchmark(lambda entropy, _: entropy, ("a", "b", "gaussian_noise", "train")))
    assert {row.on[0] for row in scored(rows, "loss")} == {"a", "b"}
    assert {row.on[0] for row in left_out_estimates(rows)} == {"a", "b", "gaussian_noise"}
    rows += [Row(row.network, row.on, "calibrated", "loss", 1.0, row.actual) for row in rows if row.estimator == "trivial"]
    errors = family_errors([row for row in rows if row.quantity == "loss"])
    assert math.isnan(errors["calibrated"]["gaussian_noise"])
    assert errors["calibrated"]["a"] > 0 < errors["trivial"]["gaussian_noise"]


def test_the_training_images_take_the_place_of_the_reference():
    from references import against_train
    from results import Row

    network = ("mnist", "mlp", "memorising", 0)
    sets = {("train", 0): (0.01, 0.05), ("blur", 3): (0.9, 0.2)}  # the truth, and what a ratio makes of a reference's 0.1
    rows = [Row(network, on, "empirical", "loss", estimate, actual) for on, (actual, estimate) in sets.items()]
    rows += [Row(network, on, "trivial", "loss", 0.1, actual) for on, (actual, _) in sets.items()]
    rows += [Row(network, on, "entropy_difference", "loss", 0.3, actual) for on, (actual, _) in sets.items()]
    found = {row.estimator: row for row in against_train(rows)}
    assert set(found) == {"empirical", "trivial"}
    assert found["empirical"].estimate == pytest.approx(0.01 * 0.2 / 0.05)
    assert found["trivial"].estimate == 0.01
    assert found["empirical"].actual == 0.9


def test_the_scorecard_is_the_package_s_and_chooses_among_networks():
    from results import Row
    from scores import score_cells

    rows = []
    for seed, (mine, actual) in enumerate([(0.5, 0.6), (0.7, 0.9), (None, 0.8)]):
        network, on = ("mnist", "mlp", "underfit", seed), ("blur", 1)
        rows.append(Row(network, on, "trivial", "accuracy", 0.9 - seed / 10, actual))
        if mine is not None:
            rows.append(Row(network, on, "mine", "accuracy", mine, actual, stderr=0.06))
    rows.append(Row(("cifar10", "mlp", "underfit", 0), ("blur", 1), "trivial", "accuracy", 0.3, 0.3))
    head, *cells = score_cells(rows, "accuracy")
    scores = {cell[0]: dict(zip(head, cell, strict=True)) for cell in cells}
    assert (scores["mine"]["MAE"], scores["mine"]["bias"], scores["mine"]["coverage"]) == ("0.1500", "-0.1500", "0.50")
    assert (scores["mine"]["regret"], scores["trivial"]["regret"]) == ("0.0000", "0.1500")  # 0.3 on one set, 0 on the other


def test_ranks_are_by_the_mean_error_with_missing_estimates_taken_for_trivial():
    from ranking import ranking
    from results import Row

    rows = []
    for number, (trivial, mine) in enumerate([(1.0, 0.5), (3.0, None), (2.0, 1.0)]):
        network = ("mnist", "mlp", "underfit", 0)
        rows.append(Row(network, ("a", number), "trivial", "loss", 5 + trivial, 5.0))
        if mine is not None:
            rows.append(Row(network, ("a", number), "mine", "loss", 5 - mine, 5.0))
    mine, trivial = ranking(rows)
    assert (mine.estimator, mine.mae, mine.ratio[0], mine.undefined) == ("mine", 1.5, 0.75, pytest.approx(1 / 3))
    assert mine.ratio[1] <= 0.75 <= mine.ratio[2]
    assert (trivial.mae, trivial.ratio) == (2, (1, 1, 1))


def test_a_paired_difference_is_taken_set_by_set():
    from ranking import paired_difference
    from results import Row

    rows = []
    for family in ("a", "b"):
        for severity in (1, 2):
            actual = 1.0 + severity
            rows.append(Row(("n", "m", "r", 0), (family, severity), "trivial", "loss", actual, actual))
            rows.append(Row(("n", "m", "r", 0), (family, severity), "x", "loss", actual + 0.5, actual))
            rows.append(Row(("n", "m", "r", 0), (family, severity), "y", "loss", actual - 0.2, actual))
    assert paired_difference(rows, "x", "y") == pytest.approx((0.3, 0.3, 0.3))


def test_corruptions_change_images_and_grow_with_severity():
    from images import LabelledImages
    from shifts import COLOUR, CORRUPTIONS, Corrupted

    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    data = LabelledImages(smooth, torch.arange(6))
    assert len(CORRUPTIONS) >= 12
    for family in CORRUPTIONS:
        changes = []
        for severity in (1, 5):
            torch.manual_seed(0)
            moved = torch.stack([Corrupted(data, family, severity)[n][0] for n in range(6)])
            assert moved.shape == smooth.shape, family
            assert moved.min() >= 0, family
            assert moved.max() <= 1, family
            changes.append(float((moved - smooth).abs().mean()))
        assert 0 < changes[0] < changes[1], family
    assert set(COLOUR) < set(CORRUPTIONS)


def test_label_shift_moves_classes():
    from images import LabelledImages
    from shifts import label_shifted

    data = LabelledImages(torch.zeros(1000, 1, 1, 1), torch.arange(1000) % 10)
    shares = [
        label_shifted(data, severity, 200).labels.bincount(minlength=10).topk(3).values.sum() / 200 for severity in (1, 5)
    ]
    assert shares[0] < 0.6 < 0.9 < shares[1]


def test_every_score_takes_part():
    from measuring import FEATURES

    scores = {one.key for one in default_estimators() if not one.quantities}
    assert scores < set(FEATURES)

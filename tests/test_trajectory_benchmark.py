"""The benchmark on outputs of every epoch: it goes on where it stopped, estimators see no labels, and the tables add up."""

from __future__ import annotations

import csv
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

EXAMPLE = Path(__file__).parents[1] / "example_projects" / "trajectory_benchmark"
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "trajectory_benchmark"

IMAGE_COPIES, TABLE_COPIES = ("Noise", "Masked", "Contrast", "Blur", "Shift"), ("ColumnNoise", "Swapped", "Filled")


def strong(kind):
    return f"strong {kind}"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])


@pytest.fixture
def call(tmp_path, monkeypatch):
    def run(file, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [file, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(EXAMPLE / file), run_name="__main__")
        assert stopped.value.code is None

    return run


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_from_the_smoke_matrix_to_the_tables(call, tmp_path):
    from snapshots import NetworkOutputs

    config = ("--config", EXAMPLE / "smoke.yaml")
    call("main.py", *config)
    file = tmp_path / "trajectory_outputs" / "digits_mlp.npz"
    network, written = NetworkOutputs.load(file), file.stat().st_mtime_ns
    assert network.epochs.tolist() == [1, 2, 3, 4, 5, 6]
    assert {one.family for one in network.of_role("target")} == {"none", "rotation", "darker"}
    assert [one.family for one in network.of_role("copy")] == [*IMAGE_COPIES, *map(strong, IMAGE_COPIES)]
    assert not list((tmp_path / "trajectory_checkpoints").glob("*.ckpt"))
    call("main.py", *config)
    assert file.stat().st_mtime_ns == written
    call("score.py")
    rows = read(tmp_path / "trajectory_scores" / "digits_mlp.csv")
    assert {row["estimator"] for row in rows} >= {
        "trivial",
        "estimate",
        "estimate: same",
        "estimate: free",
        "cot",
        "atc_entropy",
    }
    for row in rows:
        if row["estimator"].startswith("estimate"):
            assert float(row["low"]) <= float(row["estimate"]) <= float(row["high"])
    last = next(row for row in rows if (row["set"], row["moment"], row["quantity"]) == ("rotation_4", "5", "accuracy"))
    right = network.outputs["rotation_4"][-1].argmax(1) == network.labels["rotation_4"]
    assert float(last["actual"]) == pytest.approx(right.mean(), abs=1e-5)
    call("report.py", *config)
    tables = {path.stem: read(path) for path in (tmp_path / "trajectory_tables").glob("*.csv")}
    by_kind = [row for row in tables["accuracy_by_kind"] if (row["part"], row["kind"]) == ("once", "corrupted images")]
    errors = {}
    for row in rows:
        if row["quantity"] == "accuracy" and row["family"] in ("rotation", "darker"):
            errors.setdefault(row["estimator"], []).append(abs(float(row["estimate"]) - float(row["actual"])))
    for name in ("estimate", "cot"):
        assert float(by_kind[0][name]) == pytest.approx(sum(errors[name]) / sum(errors["trivial"]), abs=5e-4)
    assert [row["quantity"] for row in tables["intervals"] if row["part"] == "once"] == ["loss", "accuracy"]
    doubts = {(row["quantity"], row["estimator"]): row for row in tables["doubts"] if row["part"] == "once"}
    judged = [row for row in rows if (row["quantity"], row["estimator"]) == ("accuracy", "estimate")]
    sure = [row for row in judged if row["undoubted"] == "1"]
    assert 0 < len(sure) < len(judged)
    assert float(doubts["accuracy", "estimate"]["without doubts"]) == pytest.approx(len(sure) / len(judged), abs=5e-4)
    error = np.mean([abs(float(row["estimate"]) - float(row["actual"])) for row in sure])
    assert float(doubts["accuracy", "estimate"]["error without doubts"]) == pytest.approx(error, abs=5e-4)
    assert all((network.measures[name] >= 0).all() for name in network.outputs)
    assert network.measures["reference"].shape == (400, 3)
    call("with_measures.py")
    found = read(tmp_path / "scores_with_measures" / "digits_mlp.csv")
    by_variant = {}
    for row in found:
        by_variant.setdefault(row["estimator"], []).append(row["estimate"])
    plain = [row["estimate"] for row in rows if row["estimator"] == "estimate" and row["moment"] == "5"]
    assert sorted(by_variant["estimate"]) == sorted(plain)
    assert set(by_variant) == {
        "trivial",
        *(f"estimate{end}" for end in ("", ": with ratios", ": with regressors", ": with both")),
    }
    assert by_variant["estimate: with regressors"] != by_variant["estimate"]


def test_measures_are_candidates_by_the_ratios_of_their_means(outputs):
    from score import references_of
    from with_measures import MeasuredSamples, WithCandidates, measured

    generator = np.random.default_rng(0)
    outputs.measures = {name: generator.random((len(of), 3)) for name, of in outputs.labels.items()}
    reference = measured(outputs, references_of(outputs, [5])[5])
    assert reference.outputs.features.mean(0) == pytest.approx(np.ones(3))
    sets = [MeasuredSamples.of(one.outputs, 1.0) for one in (reference, *reference.copies)]
    weights = np.full((2, 200), 1 / 200)
    found = WithCandidates(sets[0], outputs.labels["reference"], weights).points(sets[1], weights)
    ratio = np.log((outputs.measures["copy"].mean(0) / outputs.measures["reference"].mean(0) + 1e-3) / 1.001)
    for candidates in found.candidates:
        assert candidates[:, -3:] == pytest.approx(np.stack([ratio, ratio]))


@pytest.fixture
def outputs():
    """Six snapshots of 200 samples in three classes that get better, and a pool of 300 with two targets."""
    from snapshots import NetworkOutputs, SetInfo

    generator = np.random.default_rng(0)

    def drawn(size):
        labels = generator.integers(3, size=size)
        noise = generator.normal(size=(6, size, 3))
        return (noise + np.linspace(0.5, 2, 6)[:, None, None] * np.eye(3)[labels]).astype(np.float16), labels

    sets = [
        SetInfo("reference", "reference"),
        SetInfo("copy", "copy", "noise"),
        SetInfo("pool", "pool"),
        SetInfo("some", "target", "label_shift", "pool"),
        SetInfo("other", "target", "none", "pool"),
    ]
    made = NetworkOutputs(sets, np.arange(1.0, 7))
    for name, size in {"reference": 200, "copy": 200, "pool": 300}.items():
        made.outputs[name], made.labels[name] = drawn(size)
    made.labels["copy"] = made.labels["reference"]
    made.rows = {"some": np.arange(0, 300, 2), "other": np.arange(100, 300)}
    return made


def test_a_file_holds_what_was_saved(outputs, tmp_path):
    from snapshots import NetworkOutputs

    outputs.channels = np.array([0, 1])
    outputs.save(tmp_path / "one.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["one.npz"]
    loaded = NetworkOutputs.load(tmp_path / "one.npz")
    assert loaded.sets == outputs.sets
    for kind in ("outputs", "labels", "rows"):
        for name, value in getattr(outputs, kind).items():
            assert np.array_equal(getattr(loaded, kind)[name], value)
    assert loaded.channels.tolist() == [0, 1]


def test_a_moment_knows_the_snapshots_before_it(outputs):
    (target,) = (one for one in outputs.sets if one.name == "some")
    found = outputs.measured(target, [0, 3])
    assert found[0].earlier is None
    assert found[3].earlier.count == 3
    assert np.array_equal(found[3].earlier.predictions, outputs.outputs["pool"][:3, ::2].argmax(2))
    assert np.array_equal(found[3].outputs, outputs.outputs["pool"][3, ::2])


def test_no_estimate_depends_on_the_targets_labels(outputs):
    from score import score_network

    before = list(score_network(outputs))
    outputs.labels["pool"] = (outputs.labels["pool"] + 1) % 3
    after = list(score_network(outputs))
    assert {"estimate", "cot", "cbpe", "temporal_ensemble", "transport_loss"} <= {row[5] for row in before}
    place = 7  # of the truth
    assert all(one[place] != other[place] for one, other in zip(before, after, strict=True))
    for one, other in zip(before, after, strict=True):
        assert one[:place] == other[:place]
        assert one[place + 1 :] == other[place + 1 :]


def test_copies_have_as_many_samples_as_a_monitor_s(outputs, monkeypatch):
    import score

    taken = []
    monkeypatch.setattr(score, "labelled", lambda network, one, moments, first=None: taken.append(first) or {})
    others = [one for one in outputs.sets if one.role == "reference"]
    for kinds, expected in ((TABLE_COPIES, 1024), (IMAGE_COPIES, 256)):
        taken.clear()
        copies = [replace(next(outputs.of_role("copy")), name=f"a copy: {kind}", family=kind) for kind in kinds]
        list(score.score_network(replace(outputs, sets=[*others, *copies])))
        assert taken == [expected] * len(kinds) + [None]


def test_chosen_estimators_alone(outputs):
    from score import score_network

    names = {row[5] for row in score_network(outputs, ["cot"])}
    assert names == {"trivial", "cot", "estimate", "estimate: same", "estimate: free"}


def test_an_interrupted_training_goes_on(tmp_path):
    from fitting import Run, fit
    from image_sets import image_data

    data = image_data("digits", "", "", False, 200, [])
    run = Run("one", "digits", "once", widths=[16], epochs=2, batch_size=32)
    first = fit(run, data, tmp_path)
    second = fit(replace(run, epochs=3, seed=1), data, tmp_path)  # from the start it would be another network
    assert second.epochs.tolist() == [1, 2, 3]
    for name, outputs in first.outputs.items():
        assert np.array_equal(second.outputs[name][:2], outputs)
        assert not np.array_equal(second.outputs[name][2], outputs[1])


def test_snapshots_leave_the_network_as_it_is_and_come_more_often_at_first(tmp_path):
    from fitting import BenchmarkNetwork, Run, fit
    from image_sets import image_data

    data = image_data("digits", "", "", False, 200, [])
    run = Run("one", "digits", "once", "cnn", [4], epochs=4, batch_size=20, early_snapshots=2)
    found = fit(run, data, tmp_path / "a")
    assert found.epochs.tolist() == [0.5, 1, 1.5, 2, 2.5, 3, 4]
    rarely = fit(replace(run, early_snapshots=1), data, tmp_path / "b")
    assert np.array_equal(rarely.outputs["pool"][-1], found.outputs["pool"][-1])
    trained = BenchmarkNetwork(run, data)
    trained.load_state_dict(torch.load(tmp_path / "a" / "one.ckpt", weights_only=False)["state_dict"])
    with torch.no_grad():  # as at a snapshot, which does without the batch's statistics and leaves the running ones
        assert np.allclose(trained.eval()(data.inputs["pool"]), found.outputs["pool"][-1], rtol=1e-3, atol=1e-3)


def test_augmentation_moves_and_mirrors_whole_images():
    from fitting import moved

    images = torch.arange(64.0).view(1, 1, 8, 8).repeat(200, 1, 1, 1)
    torch.manual_seed(0)
    found = moved(images)
    assert found.shape == images.shape
    mirrored = found[..., 4, 5] < found[..., 4, 4]
    assert 50 < mirrored.sum() < 150
    assert len(torch.unique(found[~mirrored[:, 0]], dim=0)) == 1  # a batch moves as one


def test_tables_and_augmented_images_are_trained_on(tables, tmp_path):
    from fitting import Run, fit
    from image_sets import image_data
    from table_sets import table_data

    images = image_data("digits", "", "", False, 200, [])
    cosine = fit(Run("one", "digits", "once", "plain_cnn", [4], epochs=2, augmented=True), images, tmp_path)
    assert cosine.outputs["reference"].shape == (2, 400, 10)
    rows = table_data("income", *tables, split=3, train_samples=300, families=[])
    found = fit(Run("two", "income", "once", widths=[8], epochs=1), rows, tmp_path)
    assert found.outputs["real_north"].shape == (1, 800, 3)
    assert np.isfinite(found.outputs["real_north"]).all()


@pytest.mark.parametrize("task", ["age", "income_in_numbers"])
def test_a_regression_is_trained_and_scored_by_its_loss_alone(task, tables, call, tmp_path):
    from fitting import Run, fit
    from table_sets import table_data

    data = table_data(task, *tables, split=0, train_samples=300, families=["rounded"])
    assert data.classes == 1
    assert data.labels["reference"].is_floating_point()
    found = fit(Run("numbers", task, "once", widths=[8], epochs=5), data, tmp_path)
    found.save(tmp_path / "trajectory_outputs" / "numbers@1.npz")
    call("score.py")
    rows = read(tmp_path / "trajectory_scores" / "numbers@1.csv")
    assert {row["quantity"] for row in rows} == {"loss"}
    last = next(row for row in rows if (row["set"], row["moment"], row["estimator"]) == ("rounded_2", "4", "estimate"))
    squares = np.square(found.outputs["rounded_2"][-1, :, 0].astype(float) - found.labels["rounded_2"])
    assert float(last["actual"]) == pytest.approx(squares.mean(), rel=1e-4)
    call("by_family.py")
    (one,) = [row for row in read(tmp_path / "by_family.csv") if row["family"] == "rounded"]
    mine = [row for row in rows if row["family"] == "rounded"]
    errors = {
        key: np.mean([abs(float(row["estimate"]) - float(row["actual"])) for row in mine if row["estimator"] == key])
        for key in ("estimate", "trivial")
    }
    assert one["network"] == "numbers"
    assert float(one["estimate"]) == pytest.approx(errors["estimate"] / errors["trivial"], abs=1e-3)


@pytest.mark.parametrize("name", ["mlp", "cnn", "plain_cnn", "residual", "mixer"])
@pytest.mark.parametrize("side", [28, 32])
def test_architectures(name, side):
    from architectures import make_network

    network = make_network(name, (3, side, side), 7, [16, 24] if name != "mixer" else [16, 16])
    assert network(torch.rand(2, 3, side, side)).shape == (2, 7)


def test_a_segmentation_is_scored(monkeypatch, tmp_path):
    import segmentation

    for name, count in {"TRAIN": 20, "REFERENCE": 24, "TARGET": 8}.items():
        monkeypatch.setattr(segmentation, name, count)
    images, classes = segmentation.draw(30, seed=1, discs=1.0)
    assert set(classes.unique().tolist()) == {0, 1}
    assert float(images[classes[:, None] == 1].mean()) > 0.2 + float(images[classes[:, None] == 0].mean())
    segmentation.score(tmp_path / "table.csv", [0], epochs=6)
    rows = read(tmp_path / "table.csv")
    counts = {"none": 9, "noise": 9, "blur": 9, "darker": 9, "crowded": 6, "small": 6, "shapes": 6}
    assert {row["family"]: int(row["targets"]) for row in rows} == counts
    assert all(float(row["trivial"]) > 0 and float(row["estimate"]) > 0 for row in rows)


def test_unknown_names_are_refused():
    from architectures import make_network
    from fitting import Run

    with pytest.raises(ValueError, match=r"network: expected one of .*'mixer'.*, but got 'lstm'"):
        make_network("lstm", (3, 8, 8), 2, [4])
    load = runpy.run_path(str(EXAMPLE / "main.py"))["load"]
    with pytest.raises(ValueError, match=r"data: expected one of cifar10, .*income.*, but got 'imagenet'"):
        load(Run("one", "imagenet", "once"), "", "", False, None, None)
    with pytest.raises(ValueError, match="marital: expected the file of its table, but got none; name it with --employment"):
        load(Run("one", "marital", "once"), "", "", False, None, None)


@pytest.fixture
def tables(tmp_path):
    """Tables with the columns of the real ones and entries drawn at random."""
    generator = np.random.default_rng(0)
    limits = {
        "AGEP": 95, "SCHL": 25, "MAR": 6, "RELP": 18, "DIS": 3, "ESP": 9, "CIT": 6, "MIG": 4, "MIL": 5, "ANC": 5,
        "NATIVITY": 3, "DEAR": 3, "DEYE": 3, "DREM": 3, "SEX": 3, "RAC1P": 10,
    }  # fmt: skip
    size = 30_000
    persons = np.stack([generator.integers(1, limit, size) for limit in limits.values()], 1)
    year = generator.choice([2015, 2016, 2017, 2018], size, p=[0.55, 0.15, 0.15, 0.15])
    np.savez(tmp_path / "p.npz", features=persons, names=list(limits), employed=persons[:, 0] % 2, year=year)
    names = ["MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude"]
    places = generator.uniform([1, 1, 1, 1, 100, 1, 32, -120], [9, 52, 9, 3, 3000, 5, 42, -114], (9000, 8))
    drawn = {key: generator.integers(2, size=9000) for key in ("target", "later")}
    drawn["later"][:5500] = 0
    np.savez(tmp_path / "c.npz", features=places, names=names, **drawn)
    return tmp_path / "p.npz", tmp_path / "c.npz"


@pytest.mark.parametrize(("name", "classes"), [("marital", 5), ("degree", 2), ("income", 3), ("age_of_houses", 2)])
def test_tables(tables, name, classes):
    from table_sets import table_data

    data = table_data(name, *tables, split=0, train_samples=800, families=None)
    inputs, labels = data.train
    assert (len(labels), data.classes) == (800, classes)
    assert inputs.mean(0).abs().max() < 0.1
    families = {one.family for one in data.sets if one.role == "target"}
    assert families == {"label_shift", "subpopulation", "none", "real", "scaled", "rounded", "swapped"}
    assert [one.family for one in data.sets if one.role == "copy"] == [*TABLE_COPIES, "Filled", *map(strong, TABLE_COPIES)]
    moved, pool = data.rows["label_shift_0"], data.labels["pool"].numpy()
    assert len(set(moved)) == len(moved)
    shares = [np.bincount(of, minlength=classes) / len(of) for of in (pool[moved], pool)]
    assert np.abs(shares[0] - shares[1]).max() > 0.1


def test_the_committed_tables_are_of_the_whole_matrix():
    runs = yaml.safe_load((EXAMPLE / "matrix.yaml").read_text())["runs"]
    for quantity in ("loss", "accuracy"):
        rows = read(RESULTS / f"{quantity}_by_setting.csv")
        settings = {(row["setting"], row["part"]) for row in rows if "other families" not in row["setting"]}
        assert settings == {(run["name"].partition("@")[0], run["part"]) for run in runs}


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_the_page_shows_the_committed_numbers(quantity):
    text = (RESULTS.parents[1] / "trajectory_benchmark.md").read_text(encoding="utf-8")
    chapter = text.split(f"\n## {quantity.capitalize()}\n")[1].split("\n## ")[0]
    shown = {}
    for line in chapter.splitlines():
        cells = [cell.strip(" *`") for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[-1][:1] in "+−":
            shown[cells[0]] = cells[3]
    titles = {
        "shifted": "all shifted", "real tables": "real shifts of tables", "real digits": "digits of another source",
        "label shift": "other class shares", "subpopulation": "sub-populations",
    }  # fmt: skip
    rows = [row for row in read(RESULTS / f"{quantity}_compared.csv") if row["part"] == "seen and once"]
    assert len(rows) == len(shown) == 7
    for row in rows:
        assert shown[titles.get(row["shift"], row["shift"])] == f"{float(row['estimate']):.2f}"

"""Correlations with the generalisation gap, against their definitions and inside a fit."""

import math

import pytest
import torch

from lightning_tansens.metrics import ClassSensitivity, EmpiricalSensitivity, OutputSensitivity
from lightning_tansens.monitor.correlations import correlations, gap_correlations
from lightning_tansens.show.keys import Keys
from tests.boring import BoringData, fit, make_monitor

KEYS = Keys("t")


def by_hand(x, y):
    x, y = torch.tensor(x).double(), torch.tensor(y).double()
    dx, dy = x - x.mean(), y - y.mean()
    return float((dx * dy).sum() / (dx.norm() * dy.norm()))


def ranks(x):
    return torch.tensor(x).argsort().argsort().tolist()


SERIES = [0.3, 2.0, -1.0, 5.0, 0.1], [1.0, 3.0, 2.5, 2.0, -4.0]


def test_against_definitions():
    found = correlations(*SERIES)
    assert found["pearson"] == pytest.approx(by_hand(*SERIES))
    assert found["spearman"] == pytest.approx(by_hand(ranks(SERIES[0]), ranks(SERIES[1])))


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4]), ([], [])])
def test_undefined_ones_are_left_out(x, y):
    assert correlations(x, y) == {}


def rows():
    return [
        {
            "t/train_loss": 1.0,
            "t/s_loss/actual": 1 + gap,
            "t/m/s": value,
            "t/m/s/part": -value,
            "t/m/train": value,
            "t/m/other": 1.0,
            "t/layer_norm": 2.0,
        }
        for value, gap in zip(*SERIES, strict=True)
    ]


def test_which_keys():
    found = gap_correlations(rows(), "train", ["s", "other"], keys=KEYS)
    gaps = [abs(gap) for gap in SERIES[1]]
    assert found.keys() == {f"t/{kind}/m/s{part}" for kind in ("pearson", "spearman") for part in ("", "/part")}
    assert found["t/pearson/m/s"] == pytest.approx(by_hand(SERIES[0], gaps))
    assert found["t/pearson/m/s/part"] == pytest.approx(-found["t/pearson/m/s"])
    # what was logged before is not correlated itself
    again = [row | found for row in rows()]
    assert gap_correlations(again, "train", ["s"], keys=KEYS) == pytest.approx(found)


def test_rows_without_a_value_or_a_gap_are_passed_over():
    some = rows()
    expected = gap_correlations(some, "train", ["s"], keys=KEYS)
    without_gap = {key: value for key, value in some[0].items() if not key.endswith("actual")}
    without_value = {key: value for key, value in some[0].items() if key != "t/m/s"}
    assert gap_correlations([without_gap, *some], "train", ["s"], keys=KEYS) == expected
    assert gap_correlations([without_value, *some], "train", ["s"], keys=KEYS)["t/pearson/m/s"] == expected["t/pearson/m/s"]
    assert gap_correlations([], "train", ["s"]) == {}
    assert gap_correlations([without_gap], "train", ["s"], keys=KEYS) == {}


def test_live():
    """Four epochs: coefficients from the third on, for outputs, classes and the whole, on the test set alone."""
    measures = [EmpiricalSensitivity(quantiles=()), OutputSensitivity(), ClassSensitivity()]
    monitor = make_monitor(measures=measures, compare_with_labels=True, by_class=True, correlate_with_gap=True)
    trainer = fit(monitor, data=BoringData(), max_epochs=4)
    logged = [{key for key in row if "/pearson/" in key} for row in monitor.history]
    assert [len(keys) > 0 for keys in logged] == [False, False, True, True]
    names = {key.removeprefix("tansens/pearson/") for key in logged[-1]}
    assert {"empirical/test", "empirical_norm/test", "output_sensitivity/test/0", "class_sensitivity/test/all/2"} <= names
    assert not any("train" in name.split("/") or "loss" in name for name in names)
    gaps = [abs(row["tansens/test_loss/actual"] - row["tansens/train_loss"]) for row in monitor.history]
    for key in ("output_sensitivity/test/1", "class_sensitivity/test/0"):
        expected = by_hand([row[f"tansens/{key}"] for row in monitor.history], gaps)
        assert float(trainer.callback_metrics[f"tansens/pearson/{key}"]) == pytest.approx(expected, abs=1e-6)
        assert math.isfinite(trainer.callback_metrics[f"tansens/spearman/{key}"])


def test_classes_add_up():
    """The losses of the classes are the mean loss, weighted by their shares."""
    monitor = make_monitor(measures=[EmpiricalSensitivity()], compare_with_labels=True, by_class=True, num_loss_samples=10)
    fit(monitor, data=BoringData(), max_epochs=1)
    (row,) = monitor.history
    for name, total in (("train", "train_loss"), ("test", "test_loss/actual")):
        losses = {key: value for key, value in row.items() if key.startswith(f"tansens/class_loss/{name}/")}
        assert min(losses.values()) <= row[f"tansens/{total}"] <= max(losses.values())
        assert len(losses) > 1


def test_needs_the_labels_of_the_test_set():
    with pytest.raises(ValueError, match="correlate_with_gap: expected compare_with_labels=True beside"):
        make_monitor(correlate_with_gap=True)


def test_labelled_measures_leave_unlabelled_sets_alone():
    monitor = make_monitor(measures=[ClassSensitivity(), EmpiricalSensitivity()])
    fit(monitor, data=BoringData(), max_epochs=1)
    (row,) = monitor.history
    assert "tansens/class_sensitivity/train" in row
    assert "tansens/class_sensitivity/test" not in row
    assert "tansens/empirical/test" in row

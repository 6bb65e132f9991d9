"""Correlations with the generalisation gap, against their definitions and inside a fit."""

import math

import pytest
import torch

from lightning_tansens.metrics import ClassSensitivity, EmpiricalSensitivity, OutputSensitivity
from lightning_tansens.show.correlations import correlations, gap_correlations
from tests.boring import BoringData, fit, make_monitor
from tests.records import measure, record, target, with_target


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


def test_holes_are_passed_over():
    x, y = ([*values[:2], other, *values[2:]] for values, other in zip(SERIES, (math.nan, 3.0), strict=True))
    assert correlations(x, y) == correlations(*SERIES)


def records():
    made = []
    for value, gap in zip(*SERIES, strict=True):
        measures = {**measure("m", value, parts={"part": -value}, stderr=0.5), **measure("layers", parts={"a": value})}
        test = target(
            "s", 1 + gap, losses={"trivial": 1.0}, measures=measures, scores={"score": value}, class_losses={0: gap}
        )
        other = target("other", measures=measure("m", 1.0))
        made.append(record(targets=[test, other], measures=measure("m", value), weights=measure("layer_norm", 2.0)))
    return made


def test_what_is_correlated():
    found = gap_correlations(records(), "s")
    gaps = [abs(gap) for gap in SERIES[1]]
    names = ("m", "m/part", "layers/a", "score")
    assert found.keys() == {f"{kind}/{name}" for kind in ("pearson", "spearman") for name in names}
    assert found["pearson/m"] == pytest.approx(by_hand(SERIES[0], gaps))
    assert found["pearson/m/part"] == pytest.approx(-found["pearson/m"])
    assert gap_correlations(records(), "other") == {}  # without labels there is no gap
    # what was correlated before is not correlated itself
    again = [with_target(one, "s", correlations=found) for one in records()]
    assert gap_correlations(again, "s") == pytest.approx(found)


def test_records_without_a_value_or_a_gap_are_passed_over():
    some = records()
    expected = gap_correlations(some, "s")
    without_gap = with_target(some[0], "s", loss=None)
    without_value = with_target(some[0], "s", measures={})
    without_target = record()
    assert gap_correlations([without_gap, without_target, *some], "s") == expected
    assert gap_correlations([without_value, *some], "s")["pearson/m"] == expected["pearson/m"]
    assert gap_correlations([], "s") == {}
    assert gap_correlations([without_gap], "s") == {}


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
    with pytest.raises(ValueError, match="correlate_with_gap: expected compare_with_labels=True with"):
        make_monitor(correlate_with_gap=True)


def test_labelled_measures_leave_unlabelled_sets_alone():
    monitor = make_monitor(measures=[ClassSensitivity(), EmpiricalSensitivity()])
    fit(monitor, data=BoringData(), max_epochs=1)
    (row,) = monitor.history
    assert "tansens/class_sensitivity/train" in row
    assert "tansens/class_sensitivity/test" not in row
    assert "tansens/empirical/test" in row

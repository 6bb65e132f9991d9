"""Which keys are logged, and with which values."""

import math

import pytest

from lightning_tansens.estimators.reading import Reading
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity, LayerwiseNormSensitivity
from lightning_tansens.monitor.report import make_report
from lightning_tansens.show.keys import Keys

MEASURES = [EmpiricalSensitivity(), LayerwiseNormSensitivity("linear"), ActiveNodeSensitivity()]


def reading(empirical=2.0, psi=3.0, **kwargs):
    values = {
        "empirical": {"empirical": empirical, "empirical_norm": 1.4, "empirical_max": 5.0, "empirical_q50": 1.9},
        "active_nodes": {"active_nodes": psi, "active_nodes_mean": 50.0, "active_nodes_std": 4.0},
    }
    return Reading(values, **kwargs)


def report(readings, reference="train", now=-3.0, before=-2.9, measures=MEASURES, **kwargs):
    weights = {"layer_norm": {"layer_norm": now}}, {"layer_norm": {"layer_norm": before}}
    return make_report(measures, reference, readings, *weights, **kwargs)


STATISTICS = ["empirical", "empirical_norm", "empirical_max", "empirical_q50", "active_nodes", "active_nodes_mean",
              "active_nodes_std"]  # fmt: skip
SUFFIXES = ["", "_trusted"]
ESTIMATES = ["trivial", "empirical", "layer_norm", "active_nodes"]


@pytest.mark.parametrize("accuracy", [None, 0.9])
def test_keys_are_those_of_the_monitor_s_docstring(accuracy):
    sets = {"train": reading(loss=0.5, accuracy=accuracy), "test": reading(3.0)}
    made = report(sets)
    expected = {f"tansens/{name}/{s}" for name in STATISTICS for s in ("train", "test")}
    expected |= {"tansens/layer_norm", "tansens/train_loss"} | {
        f"tansens/test_loss/{m}{s}" for m in ESTIMATES for s in SUFFIXES
    }
    if accuracy is not None:
        expected |= {"tansens/train_accuracy"} | {f"tansens/test_accuracy/{m}{s}" for m in ESTIMATES for s in SUFFIXES}
    assert set(made.scalars) == expected
    assert made.undefined == {}


def test_values():
    sets = {"val": reading(loss=0.5, accuracy=0.9), "a": reading(3.0, 4.0), "b": reading(1.0, 2.0, loss=0.7, accuracy=0.6)}
    scalars = report(sets, "val", keys=Keys("p")).scalars
    assert all(key.startswith("p/") for key in scalars)
    assert scalars["p/val_loss"] == scalars["p/a_loss/trivial"] == scalars["p/b_loss/trivial"] == 0.5
    assert scalars["p/val_accuracy"] == 0.9
    assert scalars["p/a_accuracy/trivial"] == pytest.approx(0.9)
    assert scalars["p/a_loss/empirical"] == pytest.approx(0.5 * 3 / 2)
    assert scalars["p/b_loss/empirical"] == pytest.approx(0.5 / 2)
    assert scalars["p/a_accuracy/empirical"] == pytest.approx(1 - 0.1 * 3 / 2)
    assert scalars["p/a_loss/active_nodes"] == pytest.approx(0.5 * math.e)
    assert scalars["p/a_loss/layer_norm"] == scalars["p/b_loss/layer_norm"] == pytest.approx(0.5 * math.exp(0.2))
    assert scalars["p/layer_norm"] == -3.0
    assert scalars["p/empirical_max/a"] == 5.0
    assert (scalars["p/b_loss/actual"], scalars["p/b_accuracy/actual"]) == (0.7, 0.6)
    assert "p/a_loss/actual" not in scalars
    assert not any(key.startswith("p/val_loss/") for key in scalars)


def test_the_accuracy_by_the_ratio():
    sets = {"train": reading(loss=0.5, accuracy=0.6), "test": reading(3.0)}
    assert report(sets, accuracy_form="ratio").scalars["tansens/test_accuracy/empirical"] == pytest.approx(0.9)


def test_shares_of_the_layers():
    sets = {
        "train": reading(loss=0.5, parts={"empirical": {"net.0": 1.5}}),
        "test": reading(parts={"empirical": {"net.0": 2.5}}),
    }
    scalars = report(sets).scalars
    assert scalars["tansens/empirical/train/net.0"] == 1.5
    assert scalars["tansens/empirical/test/net.0"] == 2.5


def test_a_measure_that_defines_no_estimate_is_left_out():
    made = report({"train": reading(0.0, loss=0.5, accuracy=0.9), "test": reading(3.0)})
    assert "tansens/test_loss/empirical" not in made.scalars
    assert "tansens/test_accuracy/empirical" not in made.scalars
    assert made.scalars["tansens/empirical/train"] == 0
    assert made.undefined.keys() == {"empirical"}
    assert "only if both are positive" in made.undefined["empirical"]
    assert "tansens/test_loss/active_nodes" in made.scalars


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_left_out(value):
    made = report({"train": reading(loss=0.5, accuracy=0.9), "test": reading()}, now=value, before=value)
    assert "tansens/layer_norm" not in made.scalars
    assert made.undefined["tansens/layer_norm"] == f"its value is {value}"
    assert not any(key.endswith("/layer_norm") for key in made.scalars)
    assert all(math.isfinite(scalar) for scalar in made.scalars.values())


def test_an_estimate_that_overflows_is_left_out():
    made = report({"train": reading(loss=0.5, accuracy=0.9), "test": reading(psi=2000.0)})
    assert "tansens/test_loss/active_nodes" not in made.scalars
    assert made.undefined["tansens/test_loss/active_nodes"] == "its value is inf"
    assert made.scalars["tansens/test_accuracy/active_nodes"] == 0

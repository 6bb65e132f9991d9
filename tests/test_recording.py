"""From summaries to a record, and from a record to keys."""

import math
from dataclasses import replace

import pytest

from lightning_tansens.estimators import SetSummary
from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity, LayerwiseNormSensitivity
from lightning_tansens.monitor.records import make_record, without
from lightning_tansens.record import Estimate, Missing, Record
from lightning_tansens.show.keys import Keys, flat_row
from tests.records import record, target

MEASURES = [EmpiricalSensitivity(), LayerwiseNormSensitivity("linear"), ActiveNodeSensitivity()]


def summary(name, empirical=2.0, psi=3.0, **kwargs):
    values = {
        "empirical": {"empirical": empirical, "empirical_norm": 1.4, "empirical_max": 5.0, "empirical_q50": 1.9},
        "active_nodes": {"active_nodes": psi, "active_nodes_mean": 50.0, "active_nodes_std": 4.0},
    }
    return SetSummary(name, 100, values=values, **kwargs)


def recorded(*summaries, now=-3.0, before=-2.9, measures=MEASURES, failed=None, **kwargs):
    """The first summary is the reference's."""
    weights = {"layer_norm": {"layer_norm": now}}, {"layer_norm": {"layer_norm": before}}
    reference, *targets = summaries
    found = [replace(reference, weights=weights[1]), *(replace(target, weights=weights[0]) for target in targets)]
    return make_record(3, 41, found, measures, [], weights[0], failed or {}, **kwargs)


def scalars_of(record, prefix="tansens"):
    row = flat_row(record, Keys(prefix))
    return {key: value for key, value in row.items() if key not in ("epoch", "step")}


STATISTICS = ["empirical", "empirical_norm", "empirical_max", "empirical_q50", "active_nodes", "active_nodes_mean",
              "active_nodes_std"]  # fmt: skip
ESTIMATES = ["trivial", "empirical", "layer_norm", "active_nodes"]


@pytest.mark.parametrize("accuracy", [None, 0.9])
def test_keys_are_those_of_the_monitor_s_docstring(accuracy):
    made = recorded(summary("train", loss=0.5, accuracy=accuracy), summary("test", 3.0))
    expected = {f"tansens/{name}/{s}" for name in STATISTICS for s in ("train", "test")}
    expected |= {"tansens/layer_norm", "tansens/train_loss"} | {f"tansens/test_loss/{m}" for m in ESTIMATES}
    if accuracy is not None:
        expected |= {"tansens/train_accuracy"} | {f"tansens/test_accuracy/{m}" for m in ESTIMATES}
    assert {key for key in scalars_of(made) if not key.endswith("_stderr")} == expected
    assert made.targets["test"].missing == {}


def test_values():
    made = recorded(
        summary("val", loss=0.5, accuracy=0.9), summary("a", 3.0, 4.0), summary("b", 1.0, 2.0, loss=0.7, accuracy=0.6)
    )
    scalars = scalars_of(made, "p")
    assert (made.epoch, made.step) == (3, 41)
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
    made = recorded(summary("train", loss=0.5, accuracy=0.6), summary("test", 3.0), accuracy_form="ratio")
    assert scalars_of(made)["tansens/test_accuracy/empirical"] == pytest.approx(0.9)


def test_shares_of_the_layers():
    made = recorded(
        summary("train", loss=0.5, parts={"empirical": {"net.0": 1.5}}),
        summary("test", parts={"empirical": {"net.0": 2.5}}),
    )
    scalars = scalars_of(made)
    assert scalars["tansens/empirical/train/net.0"] == 1.5
    assert scalars["tansens/empirical/test/net.0"] == 2.5


def test_a_measure_that_defines_no_estimate_is_left_out():
    made = recorded(summary("train", 0.0, loss=0.5, accuracy=0.9), summary("test", 3.0))
    scalars = scalars_of(made)
    assert "tansens/test_loss/empirical" not in scalars
    assert "tansens/test_accuracy/empirical" not in scalars
    assert scalars["tansens/empirical/train"] == 0
    assert made.targets["test"].missing.keys() == {"empirical"}
    assert "only if both are positive" in made.targets["test"].missing["empirical"].reason
    assert "tansens/test_loss/active_nodes" in scalars


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_left_out(value):
    made = recorded(summary("train", loss=0.5, accuracy=0.9), summary("test"), now=value, before=value)
    scalars = scalars_of(made)
    assert "tansens/layer_norm" not in scalars
    assert made.reference.missing["layer_norm"].reason == f"its value is {value}"
    assert not any(key.endswith("/layer_norm") for key in scalars)
    assert all(math.isfinite(scalar) for scalar in scalars.values())


def test_why_a_value_is_missing_stands_in_a_checkpoint():
    missing = {"line": Missing("one network", too_early=True), "mano": Missing("no scores")}
    one = record(targets=[target(missing=missing)])
    assert Record.from_state(one.state()) == one


def test_a_state_that_has_the_words_of_a_reason_alone_is_read():
    one = record(targets=[target(missing={"cot": Missing("1 of 9 outputs is not finite")})])
    state = one.state()
    state["targets"]["test"]["missing"] = {"cot": "1 of 9 outputs is not finite"}
    assert Record.from_state(state) == one


def test_a_state_in_which_every_estimate_has_a_flag_is_read():
    losses = {"estimate": Estimate(1.5), "cot": Estimate(1.25, has_flag=False)}
    one = record(targets=[target(losses=losses)])
    state = one.state()
    for estimate in state["targets"]["test"]["estimates"]["loss"].values():
        del estimate["has_flag"]
    assert Record.from_state(state) == one


def test_a_failed_measure_loses_its_own_values_alone():
    failed = {("test", "empirical"): RuntimeError("no kernel")}
    made = recorded(
        summary("train", loss=0.5), SetSummary("test", 100, values={"active_nodes": {"active_nodes": 4.0}}), failed=failed
    )
    assert made.targets["test"].missing["empirical"].reason == "RuntimeError: no kernel"
    assert made.reference.missing == {}
    assert made.targets["test"].estimates["loss"].keys() == {"trivial", "layer_norm", "active_nodes"}


def test_estimators_are_left_out_of_what_is_logged():
    made = recorded(summary("train", loss=0.5), summary("test"))
    thin = without(made, estimators={"empirical"})
    assert thin.targets["test"].estimates["loss"].keys() == {"trivial", "layer_norm", "active_nodes"}
    assert "empirical" in made.targets["test"].estimates["loss"]


def test_values_are_left_out_of_what_is_logged():
    made = recorded(summary("train", loss=0.5), summary("test"))
    thin = without(made, values={"empirical_max"})
    for whole, one in zip(made.sets, thin.sets, strict=True):
        assert whole.measures["empirical"].values.keys() - one.measures["empirical"].values.keys() == {"empirical_max"}
        assert one.measures["active_nodes"] == whole.measures["active_nodes"]
        assert one.estimates == whole.estimates

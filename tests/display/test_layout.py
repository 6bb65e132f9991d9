"""Every logged value has its place among the charts."""

import re

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG

from lightning_tansens.record import Estimate, Missing
from lightning_tansens.show import Display
from lightning_tansens.show.keys import Keys, flat_row
from lightning_tansens.show.layout import compared_keys, make_layout
from tests.boring import BoringData, fit, make_monitor
from tests.records import measure, record, target

ESTIMATES = {"trivial": 1.0, "empirical": (1.25, 0.5), "layer_norm": 1.5, "active_nodes": 0.75}


def measures(value):
    nodes = measure("active_nodes", value, parts={"1": 3.0}, active_nodes_mean=3.0, active_nodes_std=1.0)
    return {**measure("empirical", value, parts={"0": 1.0, "2": 2.0}, stderr=0.5, empirical_max=9.0), **nodes}


def on(name):
    found = {"pearson/empirical": 0.5, "spearman/empirical/0": 0.25}
    return target(
        name, 1.5, 0.5, ESTIMATES, ESTIMATES, measures(3.0), correlations=found, scores={"average_confidence": 0.5}
    )


RECORD = record(
    3,
    accuracy=0.5,
    measures=measures(2.0),
    targets=[on("near"), on("far")],
    weights=measure("layer_norm", -3.0),
    seconds={"total": 0.5},
)
ROW = flat_row(RECORD)


def tags(chart):
    kind, patterns = chart
    if kind == "Margin":
        return patterns
    return [key for key in ROW if any(re.search(pattern, key) for pattern in patterns)]


def test_estimates_stand_beside_the_truth_and_the_references_own_value():
    charts = make_layout(RECORD)["tansens: estimated against actual"]
    assert list(charts) == [f"{quantity} of {name}" for name in ("near", "far") for quantity in ("accuracy", "loss")]
    names = ["actual", "empirical", "layer_norm", "active_nodes"]
    assert sorted(tags(charts["loss of far"])) == sorted(
        ["tansens/train_loss", *(f"tansens/far_loss/{name}" for name in names)]
    )


def test_a_measure_is_compared_on_all_sets():
    charts = make_layout(RECORD)["tansens: sensitivities"]
    assert tags(charts["empirical"]) == [f"tansens/empirical/{name}" for name in ("train", "near", "far")]
    assert "active_nodes" not in charts
    nodes = make_layout(RECORD)["tansens: active nodes"]
    assert set(nodes) == {"active_nodes", "active_nodes_mean", "active_nodes_std"}


def test_layers_have_a_chart_for_each_set():
    charts = make_layout(RECORD)["tansens: layers, outputs, classes"]
    expected = [key for key in ROW if key.startswith("tansens/empirical/near/")]
    assert len(expected) == 2
    assert tags(charts["empirical of near, by part"]) == expected


def test_first_comes_what_stands_for_each_set_with_its_interval():
    headline = {"trivial": 1.0, "other": (1.0, 0.1), "estimate": Estimate(1.0, low=0.5, high=2.0)}
    layout = make_layout(record(targets=[target(name, losses=headline, accuracies=headline) for name in ("a", "b")]))
    assert next(iter(layout.items())) == (
        "tansens: the unlabelled sets",
        {
            f"{quantity} of {name}, with 95 % interval": [
                "Margin",
                [f"tansens/{name}_{quantity}/estimate{end}" for end in ("", "_low", "_high")],
            ]
            for name in ("a", "b")
            for quantity in ("accuracy", "loss")
        },
    )


def test_without_an_interval_there_is_no_band():
    assert "tansens: the unlabelled sets" not in make_layout(RECORD)


def test_what_comes_with_a_later_measurement_has_its_chart_from_the_first_on():
    one = target(losses={"trivial": 1.0, "empirical": 1.1}, missing={"estimate": Missing("the first", too_early=True)})
    layout = make_layout(record(targets=[one]))
    key = "tansens/test_loss/estimate"
    chart = ["Margin", [key, f"{key}_low", f"{key}_high"]]
    assert layout["tansens: the unlabelled sets"] == {"loss of test, with 95 % interval": chart}
    assert f"^{key}$" in layout["tansens: estimated against actual"]["loss of test"][1]


def test_correlations_and_the_cost_have_charts():
    layout = make_layout(RECORD, correlated=True)
    followed = tags(layout["tansens: correlations"]["with the generalisation gap"])
    assert followed == [key for key in ROW if "pearson" in key or "spearman" in key]
    assert "tansens/pearson/empirical/near" in followed
    assert tags(layout["tansens: cost"]["seconds a measurement takes"]) == ["tansens/seconds"]


def test_every_value_is_in_a_chart():
    layout = make_layout(RECORD, correlated=True)
    placed = {tag for charts in layout.values() for chart in charts.values() for tag in tags(chart)}
    endings = ("_stderr", "_reliable")  # figures show the first, tables the second
    left = [key for key in ROW if key not in placed and "/" in key and not key.endswith(endings)]
    # the trivial estimates are the reference's own values
    trivial = [f"tansens/{name}_{quantity}/trivial" for name in ("near", "far") for quantity in ("loss", "accuracy")]
    assert left == ["tansens/layer_norm", *trivial]


def test_the_prefix_is_the_users():
    assert make_layout(record(targets=[target(losses={"trivial": 1.0})]), Keys("mine")) == {
        "mine: estimated against actual": {"loss of test": ["Multiline", ["^mine/test_loss/actual$", "^mine/train_loss$"]]}
    }


def test_a_target_named_class_keeps_its_estimates_apart_from_the_losses_of_classes():
    one = record(targets=[target("class", losses={"trivial": 1.0}, class_losses={0: 1.0})])
    layout = make_layout(one)
    assert layout["tansens: estimated against actual"]["loss of class"][1] == [
        "^tansens/class_loss/actual$",
        "^tansens/train_loss$",
    ]
    assert layout["tansens: layers, outputs, classes"]["class_loss of class, by part"][1] == ["^tansens/class_loss/class/0$"]


def test_runs_are_compared_by_estimates_and_the_truth():
    assert compared_keys(["a", "b"], ["cot", "estimate", "trivial"], Keys("t"), labelled=True) == [
        f"t/{target}_{quantity}/{name}"
        for name in ("estimate", "actual", "cot")
        for quantity in ("accuracy", "loss")
        for target in ("a", "b")
    ]
    assert compared_keys(["a"], ["cot"], Keys("t"), labelled=True)[0] == "t/a_accuracy/actual"
    assert compared_keys(["a"], ["cot"], Keys("t"), labelled=False)[0] == "t/a_accuracy/cot"


def test_once_measured_runs_are_compared_by_what_there_is():
    """A regression has no accuracy; the reference's own loss joins, and the sets have their names."""
    one = record(targets=[target("found", losses={"trivial": 1.0})], accuracy=None)
    assert compared_keys(["a"], ["cot", "estimate"], Keys("t"), False, one) == [
        "t/found_loss/estimate",
        "t/train_loss",
        "t/found_loss/cot",
    ]


def test_by_default_every_line_of_a_chart_is_logged_but_the_truth(tmp_path):
    monitor = make_monitor(estimators=None, display=Display())
    fit(monitor, data=BoringData(validation=True), logger=TensorBoardLogger(tmp_path, "", ""), max_epochs=4)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    logged = events.Tags()["scalars"]
    (sent,) = events.Tensors(CONFIG_SUMMARY_TAG)
    layout = Layout.FromString(sent.tensor_proto.string_val[0])
    charts = [chart for category in layout.category for chart in category.chart]
    assert len(charts) > 3
    for chart in charts:
        margins = [line for series in chart.margin.series for line in (series.value, series.lower, series.upper)]
        for line in [*(tag.strip("^$") for tag in chart.multiline.tag), *margins]:
            found = any(re.fullmatch(line.replace("\\", ""), tag) for tag in logged)
            assert found or line.endswith("/actual"), (chart.title, line)

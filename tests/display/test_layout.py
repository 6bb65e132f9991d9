"""Every logged value has its place among the charts."""

import re

import pytest

from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity, LayerwiseNormSensitivity
from lightning_tansens.show.keys import Keys
from lightning_tansens.show.layout import make_layout
from tests.boring import Points, fit, loader, make_monitor


@pytest.fixture(scope="module")
def row():
    measures = [EmpiricalSensitivity(per_layer=True), LayerwiseNormSensitivity(), ActiveNodeSensitivity(per_layer=True)]
    sets = {"near": loader(Points(10, seed=2)), "far": loader(Points(10, seed=3))}
    monitor = make_monitor(
        measures=measures, test_dataloaders=sets, compare_with_labels=True, correlate_with_gap=True, on_failure="raise"
    )
    fit(monitor, max_epochs=4, data=loader())
    return monitor.history[-1]


def tags(chart, row):
    kind, patterns = chart
    if kind == "Margin":
        return patterns
    return [key for key in row if any(re.search(pattern, key) for pattern in patterns)]


def test_estimates_stand_beside_the_truth_and_the_trivial_one(row):
    charts = make_layout(row)["tansens: estimated against actual"]
    assert list(charts) == ["near loss", "near accuracy", "far loss", "far accuracy"]
    names = ["actual", "trivial", "empirical", "layer_norm", "active_nodes"]
    assert sorted(tags(charts["far loss"], row)) == sorted(f"tansens/far_loss/{name}" for name in names)


def test_a_measure_is_compared_on_all_sets(row):
    charts = make_layout(row)["tansens: sensitivities"]
    assert tags(charts["empirical"], row) == [f"tansens/empirical/{name}" for name in ("train", "near", "far")]
    assert "active_nodes" not in charts
    nodes = make_layout(row)["tansens: active nodes"]
    assert set(nodes) == {"active_nodes", "active_nodes_mean", "active_nodes_std"}


def test_layers_have_a_chart_for_each_set(row):
    charts = make_layout(row)["tansens: layers, outputs, classes"]
    expected = [key for key in row if key.startswith("tansens/empirical/near/")]
    assert len(expected) == 2
    assert tags(charts["empirical of near, by part"], row) == expected


def test_a_band_has_a_value_and_its_two_borders(row):
    charts = make_layout(row)["tansens: standard errors"]
    assert charts["near loss: empirical ± its standard error"] == [
        "Margin",
        [f"tansens/near_loss/empirical{border}" for border in ("", "_lower", "_upper")],
    ]


def test_correlations_and_the_cost_have_charts(row):
    layout = make_layout(row, correlated=True)
    followed = tags(layout["tansens: correlations"]["with the generalisation gap"], row)
    assert followed == [key for key in row if "pearson" in key or "spearman" in key]
    assert "tansens/pearson/empirical/near" in followed
    assert tags(layout["tansens: cost"]["seconds a measurement takes"], row) == ["tansens/seconds"]


def test_every_value_is_in_a_chart(row):
    layout = make_layout(row, correlated=True)
    placed = {tag for charts in layout.values() for chart in charts.values() for tag in tags(chart, row)}
    left = [key for key in row if key not in placed and "/" in key and not key.endswith("_stderr")]
    # the reference's own values are the trivial estimates
    assert left == ["tansens/layer_norm", "tansens/train_loss", "tansens/train_accuracy"]


def test_the_prefix_is_the_users():
    row = {"mine/train_loss": 1.0, "mine/test_loss/trivial": 1.0, "tansens/test_loss/trivial": 1.0}
    assert make_layout(row, Keys("mine")) == {
        "mine: estimated against actual": {
            "test loss": ["Multiline", ["^mine/test_loss/actual$", "^mine/test_loss/trivial$"]]
        }
    }

"""Sensitivities of the sets, against the gap, and of the layers."""

import numpy as np
import pytest
from scipy import stats

from lightning_tansens.show.figures import (
    plot_class_correlations,
    plot_gap,
    plot_layer_shares,
    plot_losses,
    plot_outputs,
    plot_sensitivities,
    plot_sensitivity_gap,
)
from lightning_tansens.show.keys import Keys
from tests.figures.histories import CLASS_GAPS, CLASS_SENSITIVITIES, EPOCHS, LOSSES, band, drawn, history

GAPS = [actual - reference for actual, reference in zip(LOSSES["actual"], LOSSES["trivial"])]
ON_TEST = [3.0 * 5**i for i in range(4)]


def without(text):
    return [{key: value for key, value in row.items() if text not in key} for row in history()]


def test_sets():
    _, ax = plot_sensitivities(history())
    assert drawn(ax) == {"train": [2.0 * 4**i for i in range(4)], "test": ON_TEST, "other": [7.0, 8.0, 9.0, 10.0]}
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == r"mean $\|S\|_F^2$ [(output / (parameter · input))²]"
    assert [line.get_linestyle() for line in ax.lines] == ["--", "-", "-"]
    assert len({line.get_color() for line in ax.lines}) == 3
    (area,) = ax.collections
    assert band(area) == ([value - 0.25 for value in ON_TEST], [value + 0.25 for value in ON_TEST])


@pytest.mark.parametrize("measure", ["active_nodes", "signed"])
def test_a_logarithm_or_a_negative_value_is_on_a_linear_axis(measure):
    assert plot_sensitivities(history(), measure)[1].get_yscale() == "linear"


def test_a_measure_of_the_weights():
    _, ax = plot_sensitivities(history(), "layer_norm")
    assert drawn(ax) == {"weights": [-3.0, -2.0, -1.0, 0.0]}
    assert ax.get_legend() is None


@pytest.mark.parametrize("factor", [1.05, 3.0, 1000.0])
def test_a_logarithmic_axis_has_numbers(factor):
    """Also where all values lie within one decade, or within a small part of one."""
    rows = [{"epoch": 0, "tansens/train_loss": 1.0, "tansens/empirical/train": 110.0}]
    rows.append({**rows[0], "epoch": 1, "tansens/empirical/train": 110.0 * factor})
    figure, ax = plot_sensitivities(rows)
    figure.draw_without_rendering()
    low, high = ax.get_ylim()
    ticks = [*zip(ax.get_yticks(), ax.get_yticklabels()), *zip(ax.get_yticks(minor=True), ax.get_yticklabels(minor=True))]
    assert sum(low <= place <= high and bool(label.get_text()) for place, label in ticks) >= 2


def test_against_the_gap():
    figure, ax = plot_sensitivity_gap(history())
    (points,) = ax.collections
    np.testing.assert_allclose(points.get_offsets(), list(zip(ON_TEST, GAPS)), rtol=1e-12)
    assert points.get_array().tolist() == EPOCHS
    pearson, spearman = stats.pearsonr(ON_TEST, GAPS).statistic, stats.spearmanr(ON_TEST, GAPS).statistic
    assert ax.get_title() == f"Pearson {pearson:.2f}, Spearman {spearman:.2f}"
    assert [axis.get_ylabel() for axis in figure.axes] == ["gap |true − reference loss| on test", "epoch"]


@pytest.mark.parametrize("plot", [plot_sensitivity_gap, plot_gap])
def test_a_gap_has_no_sign(plot):
    """Also where the test loss is the smaller one."""
    rows = [{**row, "tansens/train_loss": 2.0} for row in history()]
    _, ax = plot(rows)
    gaps = ax.collections[0].get_offsets()[:, 1] if ax.collections else ax.lines[0].get_ydata()
    assert gaps.tolist() == [2 - actual for actual in LOSSES["actual"]]


def test_rows_without_one_of_both_do_not_count():
    rows = history()
    del rows[1]["tansens/test_loss/actual"], rows[2]["tansens/empirical/test"]
    assert plot_sensitivity_gap(rows)[1].get_title() == "correlations undefined"  # of two that are left
    with pytest.raises(ValueError, match="measure: expected a row with both the true loss of 'test' and 'empirical'"):
        plot_gap([rows[1], rows[2]])


def test_weights_against_the_gap():
    _, ax = plot_sensitivity_gap(history(), "layer_norm")
    assert ax.collections[0].get_offsets()[:, 0].tolist() == [-3.0, -2.0, -1.0, 0.0]


def test_layer_shares():
    _, ax = plot_layer_shares(history())
    first, last = ax.collections
    shares = [1 / (2 + 2 * i) for i in range(4)]  # 1 of 1 + (1 + 2 i)
    assert band(first) == ([0] * 4, pytest.approx(shares))
    assert band(last) == (pytest.approx(shares), pytest.approx([1] * 4))
    # the legend is in the order of the areas, from the top
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["last", "first"]
    assert ax.get_ylim() == (0, 1)
    assert ax.get_xlim() == (0, 6)


def test_many_layers():
    """The eleven largest stay in their order, the others are one."""
    rows = [{"epoch": t} | {f"tansens/empirical/test/{i}": float((7 * i) % 20 + 1) for i in range(20)} for t in range(3)]
    _, ax = plot_layer_shares(rows)
    kept = [i for i in range(20) if (7 * i) % 20 + 1 > 9]
    assert [area.get_label() for area in ax.collections] == [*map(str, kept), "9 others"]
    assert band(ax.collections[-1])[0] == pytest.approx([1 - 45 / 210] * 3)


def test_layers_of_one_measurement_are_seen():
    _, ax = plot_layer_shares(history()[3:])
    low, high = ax.get_xlim()
    assert low < 6 < high
    assert band(ax.collections[0])[1] == pytest.approx([1 / 8] * 2)


def test_a_layer_that_is_not_always_there():
    rows = history()
    del rows[0]["tansens/empirical/test/last"]
    assert band(plot_layer_shares(rows)[1].collections[0])[1][0] == 1


def test_layers_of_active_nodes_are_numbers_of_units():
    rows = [{"epoch": 0, "tansens/active_nodes/test/0": 3.0, "tansens/active_nodes/test/1": 1.0}]
    _, ax = plot_layer_shares(rows, measure="active_nodes")
    assert ax.get_title() == "mean number of active hidden units on test"
    assert ax.get_ylabel() == "share of each layer"


def test_losses():
    _, ax = plot_losses(history())
    assert drawn(ax) == {"train": LOSSES["trivial"], "test": LOSSES["actual"]}
    assert ax.get_ylabel() == "loss [units of the criterion]"


def test_gap_and_the_measure_scaled_to_it():
    _, ax = plot_gap(history())
    gap, scaled = (line.get_ydata() for line in ax.lines)
    np.testing.assert_allclose(gap, GAPS, rtol=1e-12)
    assert scaled.min() == pytest.approx(min(GAPS))
    assert scaled.max() == pytest.approx(max(GAPS))
    np.testing.assert_allclose(np.diff(scaled) / np.diff(ON_TEST), np.ptp(GAPS) / np.ptp(ON_TEST))
    assert ax.lines[1].get_label().endswith(f"scaled to it (r = {stats.pearsonr(ON_TEST, GAPS).statistic:.2f})")


def test_a_measure_that_never_changes_has_no_correlation():
    rows = [{**row, "tansens/empirical/test": 5.0} for row in history()]
    _, ax = plot_gap(rows)
    assert ax.lines[1].get_label().endswith("(r undefined)")
    assert set(ax.lines[1].get_ydata()) == {min(GAPS)}


def test_outputs():
    _, ax = plot_outputs(history())
    r = f"{stats.pearsonr([0, 1, 2, 3], GAPS).statistic:.2f}"
    assert drawn(ax) == {f"0 (r = {r})": [0.0, 1.0, 2.0, 3.0], f"1 (r = {r})": [0.0, 2.0, 4.0, 6.0]}
    assert ax.get_legend().get_title().get_text() == "output (r with the gap)"


def test_outputs_over_all_classes():
    """Of the parts of class_sensitivity, those over all samples."""
    _, ax = plot_outputs(without("/actual"), measure="class_sensitivity")
    assert drawn(ax) == {"0": [2.0, 4.0, 6.0, 8.0], "1": [3.0, 6.0, 9.0, 12.0]}


def test_class_correlations():
    figure, ax = plot_class_correlations(history())
    matrix = ax.images[0].get_array()
    for k in (0, 1):
        for c in (0, 1):
            if (k, c) == (1, 0):
                assert np.ma.getmaskarray(matrix)[k, c] or np.isnan(matrix[k, c])  # it never changes
            else:
                gap = np.abs(CLASS_GAPS[k])
                assert matrix[k, c] == pytest.approx(stats.pearsonr(gap, CLASS_SENSITIVITIES[k, c]).statistic)
    assert [text.get_text() for text in ax.texts] == ["1.00", "-1.00", "1.00"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("output", "class")
    assert ax.images[0].get_clim() == (-1, 1)
    assert figure.axes[1].get_ylabel() == "r of the class's gap and the sensitivity"


@pytest.mark.parametrize("plot", [plot_sensitivities, plot_sensitivity_gap, plot_gap])
def test_a_measure_that_was_not_logged(plot):
    with pytest.raises(ValueError, match=r"measure: expected 'tansens/empirica.*'.*the nearest are \['tansens/empirical/"):
        plot(history(), "empirica")


@pytest.mark.parametrize("plot", [plot_sensitivity_gap, plot_gap, plot_losses])
def test_the_truth_is_needed(plot):
    with pytest.raises(ValueError, match="expected the true loss of 'test'"):
        plot(without("/actual"))
    with pytest.raises(ValueError, match="target: expected one of the test sets"):
        plot(history(), target="tset")


@pytest.mark.parametrize("plot", [plot_sensitivities, plot_class_correlations])
def test_the_reference_is_needed(plot):
    with pytest.raises(
        ValueError, match="history: expected the loss of a reference, such as 'mine/train_loss', but got none"
    ):
        plot(history(), keys=Keys("mine"))


def test_parts_are_needed():
    with pytest.raises(ValueError, match=r"expected the layers of 'tansens/empirical/train' as .*per_layer=True"):
        plot_layer_shares(history(), "train")
    with pytest.raises(
        ValueError, match=r"expected the outputs of 'tansens/output_sensitivity/other' as .*OutputSensitivity"
    ):
        plot_outputs(history(), "other")
    with pytest.raises(ValueError, match=r"expected 'tansens/class_sensitivity/test/<class>/<output>', .*matrix=True"):
        plot_class_correlations(without("class_sensitivity/test/"))
    with pytest.raises(ValueError, match=r"by_class: expected 'tansens/class_loss/test/0' among the logged keys"):
        plot_class_correlations(without("class_loss/test"))

"""Sensitivities of the sets and of the layers."""

import pytest

from lightning_tansens.show.figures import plot_layer_shares, plot_sensitivities
from tests.figures.histories import band, drawn, history
from tests.records import measure, record, target, with_target

ON_TEST = [3.0 * 5**i for i in range(4)]


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
    records = [record(epoch, measures=measure("empirical", 110.0 * factor**epoch)) for epoch in (0, 1)]
    figure, ax = plot_sensitivities(records)
    figure.draw_without_rendering()
    low, high = ax.get_ylim()
    ticks = [*zip(ax.get_yticks(), ax.get_yticklabels()), *zip(ax.get_yticks(minor=True), ax.get_yticklabels(minor=True))]
    assert sum(low <= place <= high and bool(label.get_text()) for place, label in ticks) >= 2


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
    parts = {str(i): float((7 * i) % 20 + 1) for i in range(20)}
    _, ax = plot_layer_shares([record(t, targets=[target(measures=measure("empirical", parts=parts))]) for t in range(3)])
    kept = [i for i in range(20) if (7 * i) % 20 + 1 > 9]
    assert [area.get_label() for area in ax.collections] == [*map(str, kept), "9 others"]
    assert band(ax.collections[-1])[0] == pytest.approx([1 - 45 / 210] * 3)


def test_layers_of_one_measurement_are_seen():
    _, ax = plot_layer_shares(history()[3:])
    low, high = ax.get_xlim()
    assert low < 6 < high
    assert band(ax.collections[0])[1] == pytest.approx([1 / 8] * 2)


def test_a_layer_that_is_not_always_there():
    records = history()
    records[0] = with_target(records[0], "test", measures=measure("empirical", parts={"first": 1.0}))
    assert band(plot_layer_shares(records)[1].collections[0])[1][0] == 1


def test_layers_of_active_nodes_are_numbers_of_units():
    of_test = target(measures=measure("active_nodes", parts={"0": 3.0, "1": 1.0}))
    _, ax = plot_layer_shares([record(targets=[of_test])], measure="active_nodes")
    assert ax.get_title() == "mean number of active hidden units on test"
    assert ax.get_ylabel() == "share of each layer"


def test_a_measure_that_was_not_taken():
    with pytest.raises(
        ValueError, match=r"measure: expected what was measured on '\w+', but got 'empirica'; the nearest are \['empirical'"
    ):
        plot_sensitivities(history(), "empirica")


def test_layers_are_needed():
    with pytest.raises(ValueError, match=r"expected the layers of 'empirical' on 'train', .*per_layer=True"):
        plot_layer_shares(history(), "train")

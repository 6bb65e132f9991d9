"""Estimates against the truth: what is drawn is what was recorded."""

from contextlib import suppress

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from lightning_tansens import estimators
from lightning_tansens.estimators import MeasureRatio, default_estimators
from lightning_tansens.metrics import default_measures
from lightning_tansens.record import Estimate
from lightning_tansens.show.figures import plot_estimates, plot_scatter_estimates
from lightning_tansens.show.figures.canvas import robust_limits
from lightning_tansens.show.figures.style import ESTIMATES
from tests.figures.colours import difference
from tests.figures.histories import EPOCHS, ERRORS, LOSSES, band, drawn, history, pixels_per_point
from tests.records import estimates, record, target, with_target

NAMES = {
    "trivial: the reference's own": "trivial",
    "empirical": "empirical",
    "layer-wise norm": "layer_norm",
    "true": "actual",
}


def unlabelled(records):
    return [with_target(one, "test", loss=None, accuracy=None) for one in records]


def test_the_lines_are_the_records():
    figure, ax = plot_estimates(history())
    assert isinstance(figure, Figure)
    assert ax.figure is figure
    assert drawn(ax) == {label: LOSSES[name] for label, name in NAMES.items()}
    assert all(line.get_xdata().tolist() == EPOCHS for line in ax.lines)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(NAMES)
    assert ax.get_xlabel() == "epoch"
    assert ax.get_ylabel() == "loss on test [units of the criterion]"


def test_the_band_is_one_standard_error():
    _, ax = plot_estimates(history())
    (area,) = ax.collections  # nothing else has a standard error
    low, high = band(area)
    assert low == [value - error for value, error in zip(LOSSES["empirical"], ERRORS)]
    assert high == [value + error for value, error in zip(LOSSES["empirical"], ERRORS)]
    (line,) = [line for line in ax.lines if line.get_label() == "empirical"]
    assert same_color(area.get_facecolor()[0][:3], line.get_color())


def test_the_truth_is_black_and_solid_and_the_trivial_one_dashed_grey():
    _, ax = plot_estimates(history())
    lines = {line.get_label(): line for line in ax.lines}
    true, trivial = lines["true"], lines["trivial: the reference's own"]
    assert same_color(true.get_color(), "black")
    assert true.get_linestyle() == "-"
    red, green, blue = (int(trivial.get_color()[i : i + 2], 16) for i in (1, 3, 5))
    assert red == green == blue
    assert trivial.get_linestyle() == "--"
    assert true.get_zorder() > max(line.get_zorder() for label, line in lines.items() if label != "true")


def test_without_labels_there_is_no_truth():
    assert "true" not in drawn(plot_estimates(unlabelled(history()))[1])


def test_accuracy_and_other_sets():
    _, ax = plot_estimates(history(), quantity="accuracy")
    assert drawn(ax)["empirical"] == [1 - value / 4 for value in LOSSES["empirical"]]
    assert ax.get_ylabel() == "accuracy on test [share of samples]"
    assert drawn(plot_estimates(history(), "other")[1])["true"] == [value + 1 for value in LOSSES["actual"]]


def test_the_band_is_the_interval_where_there_is_one():
    found = Estimate(1.0, stderr=0.5, low=0.75, high=1.5)
    records = [record(epoch, targets=[target(losses={"trivial": 1.0, "estimate": found})]) for epoch in range(3)]
    (area,) = plot_estimates(records)[1].collections
    assert band(area) == ([0.75] * 3, [1.5] * 3)


def test_one_measurement_has_a_marker():
    _, ax = plot_estimates(history()[:1])
    assert all(line.get_marker() not in ("", "None") for line in ax.lines)


def test_the_given_axis_is_drawn_on():
    figure = Figure()
    _, given = figure.subplots(1, 2)
    same, ax = plot_estimates(history(), ax=given)
    assert same is figure
    assert ax is given
    assert len(given.lines) == 4


def test_a_subfigure_belongs_to_its_figure():
    figure = Figure()
    given = figure.subfigures(1, 2)[0].subplots()
    assert plot_estimates(history(), ax=given)[0] is figure


def test_a_far_estimate_does_not_flatten_the_others():
    records = history() * 10
    losses = {**records[0].targets["test"].estimates["loss"], **estimates(empirical=1e6)}
    records[0] = with_target(records[0], "test", estimates={"loss": losses})
    _, ax = plot_estimates(records)
    low, high = ax.get_ylim()
    assert 0 < low < 0.5
    assert 1.5 < high < 2
    assert [text.get_text() for text in ax.texts] == ["1 value outside"]
    assert not plot_estimates(history())[1].texts


def test_limits():
    """The truth is always seen; of the others, what is further off than their span is not."""
    always, usually = np.array([0.0, 1.0]), np.array([0.5] * 98 + [1.9, 50.0, np.nan])
    low, high, outside = robust_limits(always, usually)
    assert (low, high, outside) == pytest.approx((-0.095, 1.995, 1))
    assert robust_limits(np.array([]), np.array([np.nan])) == (0, 1, 0)
    low, high, outside = robust_limits(np.array([2.0]), np.array([]))  # of one value, something around it
    assert low < 2 < high
    assert outside == 0


def test_scatter():
    _, ax = plot_scatter_estimates(history(), "test")
    points = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert points["empirical"] == [list(pair) for pair in zip(LOSSES["actual"], LOSSES["empirical"])]
    markers = [line.get_marker() for line in ax.lines if line.get_label() != "estimate = truth"]
    assert len(set(markers)) == len(markers) == 3
    (diagonal,) = [line for line in ax.lines if line.get_label() == "estimate = truth"]
    ends = diagonal.get_xdata()
    assert diagonal.get_ydata().tolist() == ends.tolist()
    for low, high in (ax.get_xlim(), ax.get_ylim()):  # it crosses the whole axis
        assert ends[0] <= low < high <= ends[1]
    assert ax.get_xlabel() == "true loss on test [units of the criterion]"
    assert ax.get_ylabel() == "estimated loss on test [units of the criterion]"


def test_scatter_of_several_sets():
    _, ax = plot_scatter_estimates(history())
    first = LOSSES["actual"]
    (line,) = [line for line in ax.lines if line.get_label() == "empirical"]
    assert line.get_xdata().tolist() == [*first, *(value + 1 for value in first)]
    assert ax.get_xlabel().startswith("true loss on test, other ")
    assert plot_scatter_estimates(history(), ["other"])[1].get_xlabel().startswith("true loss on other ")


def test_an_estimator_looks_the_same_everywhere():
    """Also one that has no style of its own, whatever else is drawn."""
    records = [
        with_target(one, "test", estimates={"loss": {**one.targets["test"].estimates["loss"], **estimates(my_own=1.0)}})
        for one in history()
    ]
    plots = (plot_estimates, plot_scatter_estimates)
    lines = [line for plot in plots for line in plot(records, target="test")[1].lines]
    for label in ("empirical", "layer-wise norm", "my own"):
        looks = {(line.get_color(), line.get_marker()) for line in lines if line.get_label() == label}
        assert len(looks) == 1


def test_estimators_can_be_told_apart_without_red_and_green():
    """Of those in the same colour, or in two that look alike, the marker and the line differ as well."""
    styles = list(ESTIMATES.values())
    for i, one in enumerate(styles):
        for other in styles[:i]:
            if difference(one.colour, other.colour) < 20:
                assert one.line != other.line, (one, other)
                assert one.marker != other.marker, (one, other)
    assert len({(style.colour, style.line) for style in styles}) == len(styles)


def test_every_estimator_of_the_package_has_a_style_of_its_own():
    keys = {estimator.key for estimator in [*default_estimators(), *every_estimator()] if estimator.quantities}
    assert len(keys) > 15
    assert keys | {measure.key for measure in default_measures()} <= set(ESTIMATES)


def every_estimator():
    """One of each class that can be made without arguments."""
    for name in estimators.__all__:
        kind = getattr(estimators, name)
        abstract = (estimators.Estimator, MeasureRatio)
        if isinstance(kind, type) and issubclass(kind, estimators.Estimator) and kind not in abstract:
            with suppress(TypeError):  # those of which there are several, in the default ones
                yield kind()


@pytest.mark.parametrize("plot", [plot_estimates, plot_scatter_estimates])
def test_what_is_refused(plot):
    records = history()
    with pytest.raises(ValueError, match=r"target: expected one of the test sets \['test', 'other'\], but got 'tset'"):
        plot(records, target="tset")
    with pytest.raises(ValueError, match=r"quantity: expected one of \['loss', 'accuracy'\], but got 'error'"):
        plot(records, quantity="error")
    with pytest.raises(ValueError, match=r"quantity: expected estimates of the accuracy of \['other'\], but there are none"):
        plot(records, target="other", quantity="accuracy")
    with pytest.raises(ValueError, match="records: expected a record for each measurement, but got none"):
        plot([])
    with pytest.raises(TypeError, match=r"records: expected the records of a monitor, a list of Record, but got Record"):
        plot(records[0])
    with pytest.raises(TypeError, match=r"but got list of dict; pass monitor.records"):
        plot([{"tansens/train_loss": 1.0}])
    with pytest.raises(TypeError, match=r"ax: expected one matplotlib Axes, or None for a new figure, but got ndarray"):
        plot(records, target="test", ax=Figure().subplots(1, 2))


def test_no_target():
    with pytest.raises(ValueError, match=r"expected one of the test sets \[\], but got 'test'"):
        plot_estimates([record()])
    with pytest.raises(ValueError, match="target: expected a test set, but none was measured; pass test_dataloaders"):
        plot_scatter_estimates([record()])


def test_scatter_needs_the_truth():
    records = [with_target(one, "other", loss=None) for one in unlabelled(history())]
    with pytest.raises(
        ValueError, match=r"expected the true loss of 'test', .* pass compare_with_labels=True to the monitor"
    ):
        plot_scatter_estimates(records)


def test_the_names_of_a_few_lines_stand_above_an_axis_as_wide_as_the_figure():
    """At the width of a card of TensorBoard, 350 pixels, a letter's size is at least 7.5 pixels."""
    figure, ax = plot_estimates(history())
    figure.draw_without_rendering()
    box, legend = ax.get_window_extent(), ax.get_legend().get_window_extent()
    assert legend.y0 >= box.y1 - 1
    assert box.width > 0.85 * figure.bbox.width
    assert min(text.get_fontsize() for text in ax.get_legend().get_texts()) * pixels_per_point(figure) >= 7.5


def test_the_names_of_many_lines_and_those_on_a_users_axis_stand_beside_it():
    records = history()
    many = {f"mine_{number}": Estimate(1.0 + number) for number in range(7)}
    more = [
        with_target(one, "test", estimates={"loss": {**one.targets["test"].estimates["loss"], **many}}) for one in records
    ]
    figure = Figure()
    for _, ax in (plot_estimates(more), plot_estimates(records, ax=figure.subplots())):
        ax.figure.draw_without_rendering()
        assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


def test_long_names_above_an_axis_are_whole_and_leave_it_its_width():
    names = ("trivial", "estimate", "layerwise_norm", "temporal_ensemble", "thresholded_confidence", "importance_weighting")
    found = {name: Estimate(1.0 + number) for number, name in enumerate((*names, "average_confidence", "disagreement"))}
    figure, ax = plot_estimates([with_target(record(targets=[target(loss=2.0)]), "test", estimates={"loss": found})])
    figure.draw_without_rendering()
    box, legend = ax.get_window_extent(), ax.get_legend().get_window_extent()
    assert legend.y0 >= box.y1 - 1
    assert legend.x0 >= 0
    assert box.width > 0.85 * figure.bbox.width

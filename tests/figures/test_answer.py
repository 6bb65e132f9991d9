"""The first picture: what is drawn is what was recorded, and it can be read at the size of TensorBoard's card."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle

from lightning_tansens.record import Estimate
from lightning_tansens.show.figures import plot_answer
from lightning_tansens.show.figures.card import HEIGHT, SCALE, WIDTH
from lightning_tansens.show.figures.style import ESTIMATES, VERDICTS
from tests.figures.colours import difference
from tests.records import record, target

EPOCHS = [0, 2, 4, 6]
ACCURACIES = [0.2, 0.4, 0.5, 0.6]
DOUBT = ("too few samples",)


def one_set(name, t, verdict="worse", doubts=(), labelled=True, lower=0.0):
    value = ACCURACIES[t] - lower
    accuracy = Estimate(value, None, value - 0.1, value + 0.1, doubts, verdict)
    loss = Estimate(2 - value, None, 1.0, 3.0, doubts, verdict)
    truth = value - 0.05 if labelled else None
    return target(name, truth, truth, {"trivial": 1.0, "estimate": loss}, {"trivial": 0.7, "estimate": accuracy})


def run(names=("test",), epochs=4, **options):
    targets = [[one_set(name, t, lower=0.02 * i, **options) for i, name in enumerate(names)] for t in range(epochs)]
    return [record(EPOCHS[t], 1.0, accuracy=0.7, name="val", targets=targets[t]) for t in range(epochs)]


def lines_of(ax, name):
    """The lines of a panel by label, in pixels."""
    return {line.get_label(): line.get_xydata() for line in ax.lines if line.get_gid() == name}


def bands_of(ax, name):
    return [area for area in ax.collections if area.get_gid() == name]


def bars(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def shown(ax):
    return [text.get_text() for text in ax.texts]


def test_a_panel_has_the_four_elements():
    _, ax = plot_answer(run())
    lines = lines_of(ax, "test")
    assert list(lines) == ["reference", "estimate", "truth"]
    assert len(bands_of(ax, "test")) == 1
    # of the accuracies, pixels are a linear function
    pixels, values = lines["estimate"][:, 1], np.array(ACCURACIES)
    slope, start = np.polyfit(values, pixels, 1)
    assert pixels == pytest.approx(slope * values + start)
    assert lines["truth"][:, 1] == pytest.approx(slope * (values - 0.05) + start)
    assert lines["reference"][:, 1] == pytest.approx([slope * 0.7 + start] * 4)
    vertices = bands_of(ax, "test")[0].get_paths()[0].vertices
    assert vertices[:, 1].min() == pytest.approx(slope * 0.1 + start)
    assert vertices[:, 1].max() == pytest.approx(slope * 0.7 + start)
    assert np.diff(lines["estimate"][:, 0]) == pytest.approx(np.diff(lines["estimate"][:, 0])[0])
    styles = {line.get_label(): line for line in ax.lines if line.get_gid() == "test"}
    assert styles["reference"].get_linestyle() == "--"
    assert same_color(styles["estimate"].get_color(), ESTIMATES["estimate"].colour)
    assert same_color(styles["truth"].get_color(), "black")


def test_the_title_answers():
    _, ax = plot_answer(run(verdict="like the reference"))
    assert {"test", "like val", "accuracy 0.60 [0.50, 0.70]", "loss 1.40 [1.00, 3.00]"} <= set(shown(ax))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["estimate", "95 % interval", "val", "truth"]


def test_narrow_panels_name_the_quantity_once():
    _, ax = plot_answer(run(["a", "b", "c"]))
    assert shown(ax).count("accuracy") == 1
    assert {"0.60 [0.50, 0.70]", "0.58 [0.48, 0.68]", "0.56 [0.46, 0.66]", "loss 1.40 [1.00, 3.00]"} <= set(shown(ax))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3)])
def test_panels_are_high_enough_for_curves(count, columns):
    """Two rows at most: TensorBoard shows a higher picture smaller."""
    _, ax = plot_answer(run([f"set{i}" for i in range(count)]))
    assert len({round(bar.get_x(), 3) for bar in bars(ax)}) == columns
    assert len(bars(ax)) == count
    heights = [np.ptp(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 3 and not line.get_gid()]
    assert len(heights) == count
    assert min(heights) > 40


def test_above_six_sets_each_has_a_row():
    names = [f"set{i}" for i in range(7)]
    _, ax = plot_answer(run(names))
    assert len({bar.get_x() for bar in bars(ax)}) == 1
    heights = [bar.get_y() for bar in bars(ax)]
    assert (np.diff(heights) < -15).all()
    truth, estimate = (np.concatenate([lines_of(ax, name)[label] for name in names]) for label in ("truth", "estimate"))
    values = 0.6 - 0.02 * np.arange(7)
    slope, start = np.polyfit(values, estimate[:, 0], 1)
    assert estimate[:, 0] == pytest.approx(slope * values + start)
    assert truth[:, 0] == pytest.approx(slope * (values - 0.05) + start)
    assert estimate[:, 1] == pytest.approx(np.array(heights) + bars(ax)[0].get_height() / 2)
    (reference,) = (line for line in ax.lines if line.get_label() == "reference")
    assert reference.get_xdata() == pytest.approx([slope * 0.7 + start] * 2)
    vertices = bands_of(ax, "set0")[0].get_paths()[0].vertices
    assert [vertices[:, 0].min(), vertices[:, 0].max()] == pytest.approx([slope * 0.5 + start, slope * 0.7 + start])
    assert {"after epoch 6", "set6", "worse", "0.60 [0.50, 0.70]", "accuracy", "loss", "1.40"} <= set(shown(ax))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["estimate", "95 % interval", "val", "truth"]


@pytest.mark.parametrize("count", [10, 13])
def test_above_ten_sets_a_line_says_how_many_are_left_out(count):
    _, ax = plot_answer(run([f"set{i}" for i in range(count)]))
    assert len(bars(ax)) == 10
    assert "set9" in shown(ax)
    assert "set10" not in shown(ax)
    assert ("3 more in TEXT and monitor.history" in shown(ax)) == (count == 13)
    assert not any("0 more" in text for text in shown(ax))


def test_a_row_without_labels_has_no_truth_and_without_an_estimate_says_so():
    records = run([f"set{i}" for i in range(7)], labelled=False)
    records.append(record(8, 1.0, name="val", targets=[target(f"set{i}") for i in range(7)]))
    _, ax = plot_answer(records)
    assert shown(ax).count("no estimate yet") == 7
    assert not any(line.get_gid() for line in ax.lines)


def test_rows_of_losses_alone():
    estimates = {"trivial": 1.0, "cot": Estimate(1.5)}
    _, ax = plot_answer([record(0, name="val", targets=[target(f"set{i}", losses=estimates) for i in range(7)])])
    assert shown(ax).count("1.50 (cot)") == 7
    assert "accuracy" not in shown(ax)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_verdict_is_a_word_and_a_colour(verdict):
    words = {"like the reference": "like val", None: ""}
    word = words.get(verdict, verdict)
    (bar,) = bars(plot_answer(run(verdict=verdict))[1])
    assert same_color(bar.get_facecolor(), VERDICTS[verdict].colour)
    _, ax = plot_answer(run(verdict=verdict, doubts=DOUBT))
    (bar,) = bars(ax)
    assert same_color(bar.get_facecolor(), "white")
    assert same_color(bar.get_edgecolor(), VERDICTS[verdict].colour)
    assert (word + "?" if word not in ("", "unsure") else word) in shown(ax)


def test_all_panels_have_the_same_scale():
    _, ax = plot_answer(run(["a", "b"]))
    first, second = (lines_of(ax, name) for name in "ab")
    assert first["reference"][:, 1] == pytest.approx(second["reference"][:, 1])
    assert (first["estimate"][:, 1] > second["estimate"][:, 1]).all()


def test_without_labels_there_is_no_truth():
    _, ax = plot_answer(run(labelled=False))
    assert list(lines_of(ax, "test")) == ["reference", "estimate"]
    assert "truth" not in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_loss_alone():
    estimates = {"trivial": 1.0, "cot": Estimate(1.5)}
    _, ax = plot_answer([record(t, name="val", targets=[target(losses=estimates)]) for t in range(2)])
    assert {"loss", "loss 1.50 (cot)"} <= set(shown(ax))
    assert not bands_of(ax, "test")


def test_the_loss_can_be_chosen():
    _, ax = plot_answer(run(), "loss")
    assert shown(ax)[0] == "loss"
    assert lines_of(ax, "test")["estimate"][0, 1] > lines_of(ax, "test")["estimate"][-1, 1]


def test_a_far_interval_does_not_flatten_the_lines():
    records = run()
    wide = Estimate(0.5, None, -1e3, 1e3, (), "unsure")
    records[0] = record(0, 1.0, accuracy=0.7, name="val", targets=[target("test", accuracies={"estimate": wide})])
    _, ax = plot_answer(records)
    heights = lines_of(ax, "test")["estimate"][:, 1]
    assert np.ptp(heights) > 20
    assert 0 < heights.min() < heights.max() < HEIGHT
    vertices = bands_of(ax, "test")[0].get_paths()[0].vertices
    assert vertices[:, 1].max() <= HEIGHT


def test_epochs_are_whole_numbers():
    for epochs in (1, 2, 4):
        _, ax = plot_answer(run(epochs=epochs))
        below = [text.get_text() for text in ax.texts if 15 < text.get_position()[1] < 20 and text.get_text() != "epoch"]
        assert below
        assert all(text.isdigit() for text in below)


def test_one_measurement_is_seen():
    _, ax = plot_answer(run(epochs=1))
    assert {line.get_marker() for line in ax.lines if line.get_gid() == "test"} == {"o"}
    (band,) = bands_of(ax, "test")
    assert np.ptp(band.get_paths()[0].vertices[:, 0]) > 2


def test_a_set_without_an_estimate():
    _, ax = plot_answer([record(0, accuracy=0.5, targets=[target()])])
    assert "no estimate yet" in shown(ax)


def test_a_missing_measurement_is_a_hole_in_no_line_but_left_out():
    records = run()
    records[1] = record(2, 1.0, accuracy=0.7, name="val", targets=[target("test")])
    assert len(lines_of(plot_answer(records)[1], "test")["estimate"]) == 3


NAMES = [
    "same",
    "blurred",
    "a hospital in another country, second floor",
    "d",
    "WWWWWWWWWWWWWWWWWWWWWWWW",
    "f",
    "g",
    *"hijklm",
]


@pytest.mark.parametrize("count", range(1, 13))
@pytest.mark.parametrize("verdict", ["like the reference", "unsure"])
def test_texts_are_legible_and_apart(count, verdict):
    """At the size of the card no text is smaller than seven pixels, covers another one or leaves the picture."""
    records = run(NAMES[:count], verdict=verdict, doubts=DOUBT)
    figure, ax = plot_answer(records)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * 100
    assert width == pytest.approx(WIDTH)
    assert height == pytest.approx(HEIGHT)
    texts = [text for text in [*ax.texts, *ax.get_legend().get_texts()] if text.get_text()]
    assert all(text.get_fontsize() / 0.72 >= 7.9 for text in texts)
    boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert box.x0 >= -0.5, text
        assert box.y0 >= -0.5, text
        assert box.x1 <= SCALE * width + 0.5, text
        assert box.y1 <= SCALE * height + 0.5, text
    for (one, first), (other, second) in combinations(zip(texts, boxes, strict=True), 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        along = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across <= SCALE or along <= SCALE * 2, (one, other)  # the boxes of glyphs have some air


@pytest.mark.parametrize("count", [2, 3, 7])
def test_long_names_can_be_told_apart(count):
    names = [f"a_site_with_quite_a_long_name_number_{number}" for number in range(count)]
    _, ax = plot_answer(run(names, verdict="like the reference", doubts=DOUBT))
    assert len({text for text in shown(ax) if text.startswith("a_")}) == count


def test_the_picture_is_as_large_as_the_card():
    figure, _ = plot_answer(run())
    assert (figure.get_size_inches() * figure.dpi).tolist() == [SCALE * WIDTH, SCALE * HEIGHT]


def test_the_colours_can_be_told_apart_without_red_and_green():
    """The verdicts' among one another, and the estimate's from the reference's and the truth's."""
    of_lines = [ESTIMATES[name].colour for name in ("estimate", "trivial", "actual")]
    for colours in ([mark.colour for mark in VERDICTS.values()], of_lines):
        for one, other in combinations(colours, 2):
            assert difference(one, other) > 20, (one, other)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_words_stand_out_from_their_colours(verdict):
    mark = VERDICTS[verdict]
    assert difference(mark.colour, mark.ink) > 40


def test_what_is_refused():
    with pytest.raises(ValueError, match="records: expected a test set, but none was measured; pass test_dataloaders"):
        plot_answer([record()])
    with pytest.raises(ValueError, match="records: expected a record for each measurement, but got none"):
        plot_answer([])
    with pytest.raises(ValueError, match=r"quantity: expected one of \['loss', 'accuracy'\], but got 'error'"):
        plot_answer(run(), "error")

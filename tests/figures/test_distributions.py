"""Distributions over samples: heights, common bins, ridges."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_tansens.show.figures import plot_histograms_over_epochs
from lightning_tansens.show.figures.distributions import common_edges
from tests.figures.histories import pixels_per_point

EXAMPLE = Path(__file__).parents[2] / "example_projects" / "tangent_sensitivity_paper"
plot_histograms = runpy.run_path(str(EXAMPLE / "histograms.py"))["plot_histograms"]

TRAIN = torch.tensor([3, 4, 4, 5])
TEST = torch.tensor([4.0, 6.0], dtype=torch.float64)


def steps(ax):
    """Heights over their baseline and edges of the outlines, by label."""
    return {patch.get_label(): patch.get_data() for patch in ax.patches}


def test_heights_are_shares_in_common_bins():
    _, ax = plot_histograms({"train": TRAIN, "test": TEST}, epoch=7)
    found = steps(ax)
    assert list(found) == ["train: 4.000 ± 0.707", "test: 5.00 ± 1.00"]
    assert found["train: 4.000 ± 0.707"].values.tolist() == [0.25, 0.5, 0.25, 0]
    assert found["test: 5.00 ± 1.00"].values.tolist() == [0, 0.5, 0, 0.5]
    assert all(data.edges.tolist() == [2.5, 3.5, 4.5, 5.5, 6.5] for data in found.values())
    assert ax.get_title() == "epoch 7"
    assert ax.get_xlabel() == "active hidden units"
    assert ax.get_ylabel() == "share of samples in a bin"
    assert ax.get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([162.9, 184.7], "173.8 ± 10.9"), ([7.0], "7 ± 0"), ([0.0, 4e6], "2e+06 ± 2e+06"), ([0.0, 800.0], "400 ± 400")],
)
def test_means_have_the_decimals_of_the_spread(numbers, text):
    _, ax = plot_histograms({"my set": torch.tensor(numbers, dtype=torch.float64)})
    assert list(steps(ax)) == [f"my set: {text}"]


def test_outlines_differ_in_print():
    _, ax = plot_histograms({"train": TRAIN, "test": TEST})
    assert [patch.get_linestyle() for patch in ax.patches] == ["--", "-"]
    assert not any(patch.get_fill() for patch in ax.patches)
    assert ax.get_title() == ""


def test_bins_of_many_integers_hold_equally_many():
    together = np.arange(1000.0)
    edges = common_edges([together])
    assert 30 < len(edges) - 1 <= 61
    counts = np.histogram(together, edges)[0]
    assert counts.sum() == 1000
    assert len(set(counts[:-1])) == 1


def test_bins_of_other_numbers():
    values = np.random.default_rng(0).standard_normal(500)
    edges = common_edges([values[:100], values[100:]])
    np.testing.assert_allclose(edges, np.linspace(values.min(), values.max(), 17))  # 2 · 500^(1/3) = 15.9
    assert len(common_edges([np.append(values, 1e15)])) == 17  # not more because of one far value
    assert len(common_edges([np.linspace(0, 1, 100_000)])) == 61
    assert common_edges([np.array([0.0, 1.0]), np.array([4.0])], 2).tolist() == [0, 2, 4]


def test_one_value_has_a_bin():
    assert common_edges([np.array([5.0, 5.0])]).tolist() == [4.5, 5.5]


def test_ridges():
    _, ax = plot_histograms_over_epochs({8: {"train": TRAIN, "test": TEST}, 2: {"train": TRAIN}})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["2", "8"]
    outlines = [patch for patch in ax.patches if not patch.get_fill()]
    edges = {tuple(patch.get_data().edges) for patch in ax.patches}
    assert edges == {(2.5, 3.5, 4.5, 5.5, 6.5)}
    # from the bottom: epoch 2, train; epoch 8, train and test, one over the other
    assert [patch.get_data().baseline for patch in outlines] == [0, 1, 1]
    heights = [(patch.get_data().values - patch.get_data().baseline).tolist() for patch in outlines]
    scale = heights[0][1] / 0.5
    np.testing.assert_allclose(heights, scale * np.array([[0.25, 0.5, 0.25, 0]] * 2 + [[0, 0.5, 0, 0.5]]), atol=1e-12)
    # the earlier ridge stands before the later one, which it reaches over
    assert heights[0][1] > 1
    assert outlines[0].get_zorder() > outlines[1].get_zorder()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "test"]


def test_a_set_that_comes_later_is_in_the_legend():
    _, ax = plot_histograms_over_epochs({0: {"train": TRAIN}, 1: {"test": TEST}})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "test"]


def test_ticks_of_many_epochs_do_not_overlap():
    _, ax = plot_histograms_over_epochs({epoch: {"test": TEST} for epoch in range(60)})
    assert [label.get_text() for label in ax.get_yticklabels()][:3] == ["0", "3", "6"]
    assert ax.get_yticks().tolist()[:3] == [0, 3, 6]


@pytest.mark.parametrize("bins", [0, 2.5, True])
def test_bins_that_are_refused(bins):
    with pytest.raises(ValueError, match=rf"bins: expected a positive integer, but got {bins}"):
        plot_histograms({"test": TEST}, bins=bins)


def test_samples_that_are_refused():
    with pytest.raises(TypeError, match=r"samples: expected a dict of tensors by the sets' names, but got Tensor"):
        plot_histograms(TEST)
    with pytest.raises(TypeError, match=r"samples: expected a dict of tensors .*, but got a dict with \['list'\]"):
        plot_histograms({"test": [1, 2]})
    with pytest.raises(ValueError, match="samples: expected at least one set, but got an empty dict"):
        plot_histograms({})
    with pytest.raises(ValueError, match=r"samples\['test'\]: expected a number for each .* but got shape \(2, 3\)"):
        plot_histograms({"test": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"samples\['test'\]: expected a number for each .* but got shape \(0,\)"):
        plot_histograms({"test": torch.zeros(0)})
    with pytest.raises(ValueError, match=r"samples\['test'\]: expected finite numbers, but 2 of 3 are infinite"):
        plot_histograms({"test": torch.tensor([1.0, float("nan"), float("inf")])})
    with pytest.raises(TypeError, match=r"histograms: expected a dict of dicts by epoch, but got list"):
        plot_histograms_over_epochs([{"test": TEST}])
    with pytest.raises(ValueError, match="histograms: expected at least one epoch, but got an empty dict"):
        plot_histograms_over_epochs({})
    with pytest.raises(TypeError, match=r"histograms\[3\]: expected a dict of tensors by the sets' names, but got Tensor"):
        plot_histograms_over_epochs({3: TEST})


def test_the_names_of_the_sets_can_be_read_on_a_card():
    """At the width of a card of TensorBoard, 350 pixels, a letter's size is at least 7.5 pixels."""
    figure, ax = plot_histograms_over_epochs({0: {f"set {number}": torch.arange(9) for number in range(4)}})
    figure.draw_without_rendering()
    assert min(text.get_fontsize() for text in ax.get_legend().get_texts()) * pixels_per_point(figure) >= 7.5
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1 - 1


@pytest.mark.parametrize("sets", [1, 3, 9])
def test_long_names_of_sets_are_whole_and_leave_the_axis_its_width(sets):
    samples = {name: torch.arange(9) for name in ("validation", *(f"corrupted_fog_{number}" for number in range(sets)))}
    figure, ax = plot_histograms_over_epochs({0: samples})
    figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().x0 >= 0
    assert ax.get_window_extent().width > 0.85 * figure.bbox.width

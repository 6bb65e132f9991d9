"""The least and the most sensitive images."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from lightning_tansens.show.figures import plot_extreme_samples
from tests.figures.histories import pixels_per_point

VALUES = torch.tensor([3.0, 1.0, 5.0, 2.0, 4.0], dtype=torch.float64)
IMAGES = torch.arange(5 * 12, dtype=torch.float64).reshape(5, 3, 4) ** 1.5


def titles(axes):
    return [[ax.get_title() for ax in row] for row in axes]


def positions(axes):
    return [[ax.get_xlabel() for ax in row] for row in axes]


def scaled(image):
    image = image.numpy()
    return (image - image.min()) / (image.max() - image.min())


def test_order_and_values():
    figure, axes = plot_extreme_samples(IMAGES, VALUES, k=2)
    assert titles(axes) == [["1", "2"], ["5", "4"]]
    assert positions(axes) == [["#1", "#3"], ["#2", "#4"]]
    assert [row[0].get_ylabel() for row in axes] == ["least", "most"]
    assert axes.shape == (2, 2)
    assert all(ax.figure is figure for ax in axes.flat)
    for row, numbers in zip(axes, [[1, 3], [2, 4]]):
        for ax, n in zip(row, numbers):
            np.testing.assert_allclose(ax.images[0].get_array(), scaled(IMAGES[n]), rtol=1e-12)
            assert ax.images[0].get_clim() == (0, 1)


def test_title():
    figure, _ = plot_extreme_samples(IMAGES, VALUES)
    assert figure.texts[0].get_text() == r"samples by $\|S(x)\|_F^2$ [(output / (parameter · input))²]"
    assert plot_extreme_samples(IMAGES, VALUES, name="my value")[0].texts[0].get_text() == "my value"


def test_colour_and_single_channel():
    colour = torch.rand(5, 3, 6, 7, dtype=torch.float64) - 3
    _, axes = plot_extreme_samples(colour, VALUES, k=1)
    np.testing.assert_allclose(axes[1, 0].images[0].get_array(), scaled(colour[2].permute(1, 2, 0)), rtol=1e-12)
    _, axes = plot_extreme_samples(IMAGES[:, None], VALUES, k=1)
    np.testing.assert_allclose(axes[1, 0].images[0].get_array(), scaled(IMAGES[2]), rtol=1e-12)


def test_few_or_flat_images():
    _, axes = plot_extreme_samples(torch.full((2, 3, 3), 7, dtype=torch.uint8), torch.tensor([1, 1]), k=8)
    assert positions(axes) == [["#0", "#1"], ["#0", "#1"]]  # equal values in the order of the batch
    assert not axes[0, 0].images[0].get_array().any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 12), r"got shape \(5, 12\); reshape flat inputs to images"),
        ((5, 4, 4, 3), r"got shape \(5, 4, 4, 3\); move the channels to the second axis"),
        ((5, 2, 4, 4), r"got shape \(5, 2, 4, 4\); reshape flat inputs to images, and choose 1 or 3 channels"),
        ((0, 3, 4, 4), r"got shape \(0, 3, 4, 4\)"),
        ((5, 1, 3, 4, 4), r"got shape \(5, 1, 3, 4, 4\)"),
    ],
)
def test_what_is_no_image(shape, message):
    with pytest.raises(ValueError, match=r"images: expected shape \(N, C, H, W\) with 1 or 3 channels.*" + message):
        plot_extreme_samples(torch.zeros(shape), torch.zeros(shape[0]))


def test_what_else_is_refused():
    with pytest.raises(TypeError, match=r"images: expected a tensor of shape .*, but got ndarray"):
        plot_extreme_samples(IMAGES.numpy(), VALUES)
    with pytest.raises(ValueError, match=r"images: expected shape .*, but got shape \(5, 3, 4\) of torch.complex128"):
        plot_extreme_samples(IMAGES + 0j, VALUES)
    with pytest.raises(ValueError, match="images: expected finite pixels"):
        plot_extreme_samples(IMAGES / 0, VALUES)
    with pytest.raises(TypeError, match=r"values: expected a tensor of shape \(5,\), but got list"):
        plot_extreme_samples(IMAGES, VALUES.tolist())
    with pytest.raises(ValueError, match=r"values: expected one for each of the 5 images, .* but got shape \(4,\)"):
        plot_extreme_samples(IMAGES, VALUES[:4])
    with pytest.raises(ValueError, match="values: expected finite numbers"):
        plot_extreme_samples(IMAGES, VALUES / 0)
    for k in (0, 1.5, True):
        with pytest.raises(ValueError, match=rf"k: expected a positive integer, but got {k}"):
            plot_extreme_samples(IMAGES, VALUES, k=k)


def test_images_can_have_numbers_of_their_own():
    _, axes = plot_extreme_samples(torch.rand(3, 1, 4, 4), torch.tensor([3.0, 1.0, 2.0]), k=1, numbers=[30, 10, 20])
    assert [row[0].get_xlabel() for row in axes] == ["#10", "#30"]
    with pytest.raises(ValueError, match="numbers: expected one for each of the 3 samples, but got 1"):
        plot_extreme_samples(torch.rand(3, 1, 4, 4), torch.tensor([3.0, 1.0, 2.0]), numbers=[1])


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e3, 1e5, 1e7])
def test_the_values_can_be_read_on_a_card(scale):
    """At the width of a card of TensorBoard, 350 pixels, a letter's size is at least 7.5 pixels."""
    figure, axes = plot_extreme_samples(torch.rand(16, 1, 4, 4), scale * (1 + torch.arange(16) / 7))
    assert axes.shape == (2, 8)
    figure.draw_without_rendering()
    assert min(ax.title.get_fontsize() for ax in axes.flat) * pixels_per_point(figure) >= 7.5
    for row in axes:
        boxes = [ax.title.get_window_extent() for ax in row]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_values_have_four_digits():
    values = torch.tensor([1.23456e-10, 1.23456e-5, 0.123456, 1234.56, 1.23456e5, 1.23456e20], dtype=torch.float64)
    _, axes = plot_extreme_samples(torch.rand(6, 1, 4, 4), values)
    titles = [ax.get_title() for ax in axes[0]]
    assert titles == ["1.235e-10", "1.235e-5", "0.1235", "1235", "1.235e5", "1.235e20"]

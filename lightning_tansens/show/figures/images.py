"""Draws the images that a network is least and most sensitive to."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_tansens.checks import check_counts, positions_from
from lightning_tansens.show.figures.canvas import Figure, new_figure
from lightning_tansens.show.figures.labels import value_label


def plot_extreme_samples(
    images: Tensor, values: Tensor, k: int = 8, name: str = "", numbers: Sequence[int] | None = None
) -> tuple[Figure, NDArray[np.object_]]:
    """Draws the k images with the least values and the k with the largest, outermost first, in two rows.

    Each image is scaled to its own range, so that normalised inputs can be seen; above it stands its value, such as
    ‖S(x_n)‖_F² (:func:`~lightning_tansens.functional.tangent_sensitivity`), below it its number.

    Args:
        images: Images of shape (N, C, H, W), of 1 or 3 channels, or (N, H, W).
        values: Their values, shape (N,).
        k: How many images a row has; fewer where there are fewer.
        name: What the value is, for the title, with its unit; empty for the sensitivity.
        numbers: By which numbers the images are known, N of them; None for their positions in the batch.

    Returns:
        The figure and its axes, shape (2, k).

    Raises:
        TypeError: If images or values are no tensors.
        ValueError: If these are no images, the values do not belong to them or are not finite, or k is no positive integer.

    Example:
        >>> figure, axes = plot_extreme_samples(torch.rand(5, 1, 4, 4), torch.tensor([3.0, 1.0, 5.0, 2.0, 4.0]), k=2)
        >>> [[ax.get_title() for ax in row] for row in axes]
        [['1', '2'], ['5', '4']]
    """
    _check_images(images)
    _check_values(values, len(images))
    check_counts(k=k)
    known = positions_from("numbers", numbers, len(images))
    k = min(int(k), len(images))
    # stable, so that equal values come in the order of the batch
    order = values.detach().cpu().argsort(stable=True)
    largest = values.detach().cpu().argsort(descending=True, stable=True)
    figure = new_figure(max(0.6 * k + 0.4, 4.2), 2.6)
    axes = figure.subplots(2, k, squeeze=False)
    for row, indices, extreme in zip(axes, (order[:k], largest[:k]), ("least", "most")):
        for ax, index in zip(row, indices.tolist()):
            ax.imshow(_displayed(images[index]), cmap="gray", vmin=0, vmax=1)
            # a small image leaves no room for the zeros of an exponent
            ax.set_title(re.sub(r"e\+?(-?)0*", r"e\1", f"{float(values[index]):.4g}"), fontsize="small")
            ax.set_xlabel(f"#{known[index]}", fontsize="x-small", color="#555555", labelpad=2)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(extreme)
    figure.suptitle(name or rf"samples by $\|S(x)\|_F^2$ [{value_label('empirical').unit}]", fontsize="medium")
    return figure, axes


def _displayed(image: Tensor) -> NDArray[np.float64]:
    """An image of shape (H, W) or (H, W, 3) between 0 and 1; one of a single value is black."""
    values = image.detach().double().cpu()
    if values.dim() == 3:
        values = values[0] if len(values) == 1 else values.movedim(0, -1)
    values = values - values.min()
    scaled: NDArray[np.float64] = (values / values.max().clamp(min=torch.finfo(values.dtype).tiny)).numpy()
    return scaled


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a tensor of shape (N, C, H, W) or (N, H, W), but got {type(images).__name__}")
    shape = tuple(images.shape)
    if images.dim() not in (3, 4) or (images.dim() == 4 and shape[1] not in (1, 3)) or 0 in shape or images.is_complex():
        kind = f"shape {shape}" + (f" of {images.dtype}" if images.is_complex() else "")
        hint = "reshape flat inputs to images, and choose 1 or 3 channels of those that have others"
        if images.dim() == 4 and shape[3] in (1, 3):
            hint = "move the channels to the second axis"
        raise ValueError(f"images: expected shape (N, C, H, W) with 1 or 3 channels, or (N, H, W), but got {kind}; {hint}")
    _check_finite("images", "pixels", images)


def _check_values(values: Tensor, samples: int) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"values: expected a tensor of shape ({samples},), but got {type(values).__name__}")
    if values.shape != (samples,):
        raise ValueError(
            f"values: expected one for each of the {samples} images, shape ({samples},), but got shape {tuple(values.shape)}"
        )
    _check_finite("values", "numbers", values)


def _check_finite(name: str, what: str, numbers: Tensor) -> None:
    if not bool(torch.isfinite(numbers).all()):
        raise ValueError(f"{name}: expected finite {what}, but some are infinite or not a number; take those samples out")

"""Draws distributions over samples, such as the number of active hidden units."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_tansens.checks import check_counts
from lightning_tansens.show.figures.canvas import CARD, Axes, Figure, legend_above, one_axis
from lightning_tansens.show.figures.style import set_style
from lightning_tansens.show.words import shortened

Numbers = NDArray[np.float64]

#: About as many bins as can be told apart.
MAX_BINS = 60

#: How far the histogram of one epoch reaches over that of the next.
_OVERLAP = 1.6

# the characters of a set's name
_NAME = 16


def plot_histograms_over_epochs(
    histograms: Mapping[int, Mapping[str, Tensor]],
    name: str = "active hidden units",
    bins: int | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draws how the distributions of a number over the samples of sets change, as a ridge for each epoch.

    All ridges share bins and scale; the first epoch is at the bottom.

    Args:
        histograms: For each epoch each sample's number, shapes (N,), by the set's name.
        name: What the number is, with its unit if it has one.
        bins: How many bins; None chooses them by the data.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the histograms are no dict of dicts of tensors.
        ValueError: If there are none, or a set has no samples, a shape other than (N,) or values that are not finite.

    Example:
        >>> figure, ax = plot_histograms_over_epochs({0: {"test": torch.tensor([1, 2])}, 5: {"test": torch.tensor([2, 3])}})
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['0', '5']
    """
    if not isinstance(histograms, Mapping):
        raise TypeError(f"histograms: expected a dict of dicts by epoch, but got {type(histograms).__name__}")
    if not histograms:
        raise ValueError("histograms: expected at least one epoch, but got an empty dict; draw after the first measurement")
    rows = {epoch: checked_samples(histograms[epoch], f"histograms[{epoch!r}]") for epoch in sorted(histograms)}
    edges = common_edges([values for row in rows.values() for values in row.values()], bins)
    heights = {epoch: {key: shares(values, edges) for key, values in row.items()} for epoch, row in rows.items()}
    tallest = max(float(height.max()) for row in heights.values() for height in row.values())
    figure, ax = one_axis(ax, CARD[0], min(1.6 + 0.45 * len(rows), 9))
    short = shortened(dict.fromkeys(name for row in rows.values() for name in row), _NAME)
    for base, row in enumerate(heights.values()):
        for set_name, height in row.items():
            style, top = set_style(set_name), base + _OVERLAP * height / tallest
            order = len(rows) - base  # a ridge stands before the later ones behind it
            # what is filled is pale enough to see the other set through it
            ax.stairs(top, edges, baseline=base, fill=True, color=style.colour, alpha=0.3, zorder=order, linewidth=0)
            outline = {"color": style.colour, "linestyle": style.line, "linewidth": 1.3}
            # the legend has each set once
            ax.stairs(top, edges, baseline=base, zorder=order + 0.5, label=short.pop(set_name, None), **outline)
    step = -(-len(rows) // 25)
    ax.set_yticks(range(0, len(rows), step), [f"{epoch:g}" for epoch in list(rows)[::step]])
    ax.set_ylim(-0.2, len(rows) - 1 + 1.1 * _OVERLAP)
    ax.set_xlabel(name)
    ax.set_ylabel("epoch")
    ax.grid(axis="x", alpha=0.3)
    legend_above(ax, 4)
    return figure, ax


def common_edges(sets: list[Numbers], bins: int | None = None) -> Numbers:
    """Chooses the edges of bins that several sets of numbers, shapes (N,), share.

    Without a number of bins, each is centred on the same number of integers, if these are integers.

    Returns:
        The edges, one more than bins.

    Raises:
        ValueError: If ``bins`` is no positive integer.
    """
    together = np.concatenate(sets)
    if bins is not None:
        check_counts(bins=bins)
        return np.histogram_bin_edges(together, int(bins))
    if np.array_equal(together, together.round()):
        width = max(1.0, np.ceil((np.ptp(together) + 1) / MAX_BINS))
        return np.arange(together.min() - 0.5, together.max() + width, width)
    # by the number of samples (Rice's rule): rules that look at the quartiles ask for any number of bins if one is far off
    return np.histogram_bin_edges(together, min(MAX_BINS, int(np.ceil(2 * len(together) ** (1 / 3)))))


def shares(values: Numbers, edges: Numbers) -> Numbers:
    """Returns the share of the values in each bin."""
    return np.histogram(values, edges)[0] / len(values)


def checked_samples(samples: object, argument: str) -> dict[str, Numbers]:
    """Returns each sample's number by set, as NumPy arrays; raises unless there is one finite number per sample."""
    if not isinstance(samples, Mapping) or not all(isinstance(values, Tensor) for values in samples.values()):
        kinds = sorted({type(values).__name__ for values in samples.values()}) if isinstance(samples, Mapping) else []
        came = f"a dict with {kinds}" if isinstance(samples, Mapping) else type(samples).__name__
        raise TypeError(f"{argument}: expected a dict of tensors by the sets' names, but got {came}")
    if not samples:
        raise ValueError(f"{argument}: expected at least one set, but got an empty dict")
    for name, values in samples.items():
        if values.dim() != 1 or not len(values):
            raise ValueError(
                f"{argument}[{name!r}]: expected a number for each of at least one sample, shape (N,), but got shape "
                f"{tuple(values.shape)}"
            )
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"{argument}[{name!r}]: expected finite numbers, but {int((~torch.isfinite(values)).sum())} of "
                f"{len(values)} are infinite or not a number; take those samples out"
            )
    return {name: values.detach().double().cpu().numpy() for name, values in samples.items()}

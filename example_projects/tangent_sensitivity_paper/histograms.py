"""Figure 1 of Daróczy (2022): the distribution of the number of active hidden units over the samples of sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lightning_tansens.show.figures.canvas import one_axis
from lightning_tansens.show.figures.distributions import checked_samples, common_edges, shares
from lightning_tansens.show.figures.style import set_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_histograms(
    samples: Mapping[str, Tensor],
    epoch: int | None = None,
    name: str = "active hidden units",
    bins: int | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draws the distributions of a number over the samples of several sets, one outline over the other.

    By default the number of active hidden units (Figure 1 of Daróczy 2022), which
    ``ActiveNodeSensitivity().distributions()[""]`` returns for a set. The bins are common to all sets, heights are shares of
    a set, and the legend has each mean and standard deviation.

    Args:
        samples: Each sample's number, shapes (N,), by the set's name.
        epoch: The epoch, for the title.
        name: What the number is, with its unit if it has one.
        bins: How many bins; None chooses them by the data: for counts each bin has as many integers as any other.
        ax: A matplotlib axis to draw on; None for one of a new figure.

    Returns:
        The figure and the axis.

    Raises:
        TypeError: If the samples are no dict of tensors.
        ValueError: If a set has no samples, a shape other than (N,) or values that are not finite.

    """
    numbers = checked_samples(samples, "samples")
    edges = common_edges(list(numbers.values()), bins)
    figure, ax = one_axis(ax)
    for set_name, values in numbers.items():
        style = set_style(set_name)
        label = f"{set_name}: {_with_spread(float(values.mean()), float(values.std()))}"
        ax.stairs(shares(values, edges), edges, color=style.colour, linestyle=style.line, linewidth=1.8, label=label)
    ax.set_xlabel(name)
    ax.set_ylabel("share of samples in a bin")
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    if epoch is not None:
        ax.set_title(f"epoch {epoch}")
    ax.legend(title="mean ± standard deviation", fontsize="small", title_fontsize="small")
    return figure, ax


def _with_spread(mean: float, std: float) -> str:
    """A mean with as many decimals as a standard deviation of three digits has."""
    if not std or std >= 1e5:
        return f"{mean:.4g} ± {std:.3g}"
    decimals = max(0, 2 - int(np.floor(np.log10(std))))
    return f"{mean:.{decimals}f} ± {std:.{decimals}f}"

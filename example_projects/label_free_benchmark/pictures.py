"""The figures of the benchmark: estimates against the truth, and errors by family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from ranking import family_errors
from results import Row

from lightning_tansens.record import TRIVIAL

#: These look at the weights alone, which are the same on all sets.
LIKE_TRIVIAL = ("layer_norm", "spectral_norm")

COLOURS = {"underfit": "tab:blue", "well_fit": "tab:green", "memorising": "tab:red"}


def plot_truth(rows: Sequence[Row], quantity: str, path: Path) -> None:
    """Draws one panel for each estimator: its estimates against the truth, a dot for each network and set."""
    names = [name for name in dict.fromkeys(row.estimator for row in rows) if name not in LIKE_TRIVIAL]
    columns = 5
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3 * columns, 3 * lines), layout="constrained", squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    truth = [row.actual for row in rows]
    low, high = min(truth), max(truth)
    for name, ax in zip(names, axes.flat, strict=False):
        for regime, colour in COLOURS.items():
            chosen = [row for row in rows if row.estimator == name and row.network[2] == regime]
            ax.scatter([row.actual for row in chosen], [row.estimate for row in chosen], 3, colour, alpha=0.3, label=regime)
        ax.plot([low, high], [low, high], color="black", linewidth=0.8)
        ax.set(title=name, xlim=(low, high), ylim=(low, high))
        if quantity == "loss":
            ax.set(xscale="log", yscale="log")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
    figure.supxlabel(f"true {quantity}" + (" [nats]" if quantity == "loss" else ""))
    figure.supylabel("estimate")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, [label.replace("_", " ") for label in labels], loc="outside lower right", markerscale=4, ncols=3)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def plot_families(rows: Sequence[Row], quantity: str, path: Path) -> None:
    """Draws the mean absolute error of each estimator on each family, over the trivial estimate's."""
    errors = family_errors(rows)
    families = [family for family in errors[TRIVIAL] if family != "none"]
    names = [name for name in errors if name not in (TRIVIAL, *LIKE_TRIVIAL)]
    ratios = np.array([[errors[name][family] / errors[TRIVIAL][family] for family in families] for name in names])
    figure, ax = plt.subplots(figsize=(1.5 + 0.62 * len(families), 1.5 + 0.4 * len(names)), layout="constrained")
    image = ax.imshow(np.log2(ratios), cmap="RdBu_r", vmin=-2, vmax=2, aspect="auto")
    for (line, column), ratio in np.ndenumerate(ratios):
        colour = "white" if abs(np.log2(ratio)) > 1.4 else "black"
        ax.text(column, line, "" if np.isnan(ratio) else f"{ratio:.2f}", color=colour, ha="center", va="center", fontsize=7)
    ax.set_xticks(range(len(families)), [family.replace("_", " ") for family in families], rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set_title(f"{quantity}: error over the trivial estimate's (below one, blue, is better)")
    figure.colorbar(image, ax=ax, label="log2 of the ratio", pad=0.01)
    figure.savefig(path, dpi=100)
    plt.close(figure)

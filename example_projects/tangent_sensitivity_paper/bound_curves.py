"""Figure 2 of Daróczy (2022): how the bound of Eq. 2 depends on its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import matplotlib.pyplot as plt
import numpy as np
from run_histories import write_rows

from lightning_tansens.functional import log_active_node_bound
from lightning_tansens.functional.bounds import ActiveNodeForm

INPUTS = 3072
DEPTHS = (2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 300, 500, 700, 1000)
#: The few depths that are drawn as curves.
CURVES = (2, 5, 10, 100, 1000)


@dataclass(frozen=True)
class Setting:
    """A network of layers of one width without biases, one output, and its active units.

    Attributes:
        depth: k, the number of weight layers.
        width: Units of each hidden layer.
        max_weight: w_max.
        mean_share: μ/N, for N = (k − 1) · width hidden units.
        std_share: σ/N.

    """

    depth: int = 5
    width: int = 1000
    max_weight: float = 0.1
    mean_share: float = 0.48
    std_share: float = 0.04

    def log10_bound(self, form: ActiveNodeForm) -> float:
        """Returns the common logarithm of Eq. 2's bound, in the form that is printed or the consistent one."""
        units = (self.depth - 1) * self.width
        parameters = self.width * (INPUTS + (self.depth - 2) * self.width + 1)
        moments = self.mean_share * units, self.std_share * units
        return log_active_node_bound(parameters, INPUTS, self.depth, *moments, self.max_weight, form=form) / math.log(10)


#: What each panel varies, with the label of its axis and the values.
PANELS = {
    "mean_share": ("(a) mean of active units, μ/N", np.linspace(0.1, 0.9, 17)),
    "std_share": ("(b) deviation of active units, σ/N", np.geomspace(0.001, 0.3, 17)),
    "max_weight": ("(c) largest weight, w_max", np.geomspace(0.0005, 1, 17)),
    "width": ("(d) width of the layers", np.unique(np.geomspace(10, 10_000, 17).astype(int))),
}


def curves() -> list[dict[str, float | str]]:
    """Computes the bound for each panel, value and depth, in both forms."""
    rows: list[dict[str, float | str]] = []
    for name, (_, numbers) in PANELS.items():
        for depth in DEPTHS:
            for number in numbers.tolist():
                setting = replace(Setting(depth), **{name: number})
                bounds = {f"log10_{form}": setting.log10_bound(form) for form in get_args(ActiveNodeForm)}
                rows.append({"varied": name, "value": number, "depth": depth, **bounds})
    return rows


def doublings(depth: int = 5) -> list[dict[str, float | str]]:
    """Computes by how many decades the bound rises when one parameter is doubled."""
    base = Setting(depth)
    rows: list[dict[str, float | str]] = []
    for name in ("depth", *PANELS):
        doubled = replace(base, **{name: 2 * getattr(base, name)})
        rises = {f"decades_{form}": doubled.log10_bound(form) - base.log10_bound(form) for form in get_args(ActiveNodeForm)}
        rows.append({"depth": depth, "doubled": name, **rises})
    return rows


def draw(folder: Path) -> None:
    """Writes the numbers, the figure, and the same bounds over the depth."""
    rows = curves()
    write_rows(folder / "figure2.csv", rows)
    write_rows(folder / "figure2_doublings.csv", [row for depth in (5, 100) for row in doublings(depth)])
    _draw_panels(folder / "figure2.png", rows, over_depth=False)
    _draw_panels(folder / "figure2_depth.png", rows, over_depth=True)


def _draw_panels(file: Path, rows: list[dict[str, float | str]], over_depth: bool) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    colours = plt.get_cmap("viridis")
    for axis, (name, (label, numbers)) in zip(axes.flat, PANELS.items(), strict=True):
        across, along = ("depth", "value") if over_depth else ("value", "depth")
        steps = numbers[:: len(numbers) // 4].tolist() if over_depth else list(CURVES)
        for position, step in enumerate(steps):
            points = [row for row in rows if row["varied"] == name and row[along] == step]
            colour = colours(position / len(steps))
            for form, style in (("consistent", "-"), ("printed", "--")):
                heights = [row[f"log10_{form}"] for row in points]
                text = (f"{step:.3g}" if over_depth else f"k = {step}") if form == "consistent" else None
                axis.plot([row[across] for row in points], heights, style, color=colour, label=text)
        if over_depth or name != "mean_share":
            axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=10)
        axis.set_xlabel("depth k (weight layers)" if over_depth else label)
        axis.set_ylabel("log₁₀ of the bound")
        axis.grid(alpha=0.3)
        if over_depth:
            axis.legend(title=label, fontsize="x-small", title_fontsize="x-small", loc="upper left")
    if not over_depth:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(
        "Eq. 2, consistent (solid) and printed (dashed)\n"
        "layers of 1000, w_max = 0.1, μ = 0.48 N, σ = 0.04 N, one of them varied"
    )
    figure.savefig(file, dpi=110)
    plt.close(figure)

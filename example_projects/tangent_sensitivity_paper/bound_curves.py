"""Figure 2 of Daróczy (2022): how the bound of Eq. 2 depends on its parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import matplotlib.pyplot as plt
import numpy as np
from bound_figure import BoundSetting as Setting
from bound_figure import plot_bound
from run_histories import write_rows

from lightning_tansens.bounds.active_nodes import ActiveNodeForm

DEPTHS = (2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 300, 500, 700, 1000)
#: The few depths that are drawn as curves.
CURVES = (2, 5, 10, 100, 1000)


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
    write_rows(folder / "figure2.csv", curves())
    write_rows(folder / "figure2_doublings.csv", [row for depth in (5, 100) for row in doublings(depth)])
    _draw_panels(folder / "figure2.png", over_depth=False)
    _draw_panels(folder / "figure2_depth.png", over_depth=True)


def _draw_panels(file: Path, over_depth: bool) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    for axis, (name, (label, numbers)) in zip(axes.flat, PANELS.items(), strict=True):
        if over_depth:
            plot_bound("depth", DEPTHS, name, numbers[:: len(numbers) // 4].tolist(), ax=axis)
            axis.legend(title=label, fontsize="x-small", title_fontsize="x-small", loc="upper left")
        else:
            plot_bound(name, numbers.tolist(), "depth", CURVES, ax=axis)
            axis.get_legend().remove()
            axis.set_xlabel(label)
        axis.set_ylabel("log₁₀ of the bound")
    if not over_depth:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), title="depth k", loc="outside right center")
    figure.suptitle(
        "Eq. 2, consistent (solid) and printed (dashed)\n"
        "layers of 1000, w_max = 0.1, μ = 0.48 N, σ = 0.04 N, one of them varied"
    )
    figure.savefig(file, dpi=110)
    plt.close(figure)

"""The curves of Rácz et al. (2023) from the records of a monitor: losses, the gap and a measure, outputs and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from heat_map import draw_matrix

from lightning_tansens.record import MeasureRecord
from lightning_tansens.show.correlations import correlations
from lightning_tansens.show.figures.canvas import legend_beside, one_axis, set_epochs, some_points
from lightning_tansens.show.figures.labels import value_label
from lightning_tansens.show.figures.series import (
    History,
    Series,
    check_history,
    check_target,
    epochs,
    gap_of,
    measured_on,
    on_set,
    series,
    truth_of,
)
from lightning_tansens.show.figures.style import estimate_style, output_style, set_style
from lightning_tansens.show.keys import ACTUAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_losses(history: History, target: str = "test", ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws the reference's loss and a target's true loss over the epochs."""
    check_history(history)
    check_target(history, target)
    losses = {
        history[0].reference.name: series(record.reference.loss for record in history),
        target: truth_of(history, target, "loss"),
    }
    figure, ax = one_axis(ax)
    for number, (name, values) in enumerate(losses.items()):
        ax.plot(epochs(history), values, label=name, markevery=some_points(len(values), number), **set_style(name).of_line())
    set_epochs(ax)
    ax.set_ylabel("loss [units of the criterion]")
    ax.legend(fontsize="small")
    return figure, ax


def plot_gap(
    history: History, measure: str = "empirical", target: str = "test", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws the generalisation gap over the epochs, and a measure on the target scaled to the gap's range.

    The legend has Pearson's coefficient, which the scaling does not change.
    """
    check_history(history)
    gap, values = gap_of(history, target), measured_on(history, measure, target)
    both = np.isfinite(gap) & np.isfinite(values)
    if not both.any():
        raise ValueError(
            f"measure: expected a measurement with both the true loss of {target!r} and {measure!r}, but got none; measure "
            "both at the same epochs"
        )
    low, high = values[both].min(), values[both].max()
    scaled = gap[both].min() + (values - low) / (high - low or 1.0) * np.ptp(gap[both])
    figure, ax = one_axis(ax)
    ax.plot(epochs(history), gap, label=f"gap |true − reference loss| on {target}", **estimate_style(ACTUAL).of_line())
    label = f"{value_label(measure).name}, scaled to it ({_pearson(gap, values)})"
    ax.plot(epochs(history), scaled, label=label, markevery=some_points(len(gap)), **estimate_style(measure).of_line())
    set_epochs(ax)
    ax.set_ylabel("gap [units of the criterion]")
    ax.legend(fontsize="small")
    return figure, ax


def plot_outputs(
    history: History, target: str = "test", measure: str = "output_sensitivity", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws the sensitivity of each output on a target over the epochs, with its correlation with the gap if that is known.

    ``measure`` is "output_sensitivity" or "class_sensitivity", of which the outputs over all samples are drawn.
    """
    check_history(history)
    found = [one.measures.get(measure, MeasureRecord()).parts for one in on_set(history, target)]
    names = list(dict.fromkeys(part for parts in found for part in parts))
    of_all = [name for name in names if name.startswith("all/")] or names
    if not of_all:
        raise ValueError(
            f"history: expected the outputs of {measure!r} on {target!r}, but got none; use OutputSensitivity or "
            "ClassSensitivity in the monitor"
        )
    labelled = any(one.loss is not None for one in on_set(history, target))
    gap = gap_of(history, target) if labelled else None
    figure, ax = one_axis(ax, 7.6)
    for number, name in enumerate(of_all):
        values, shown = series(parts.get(name) for parts in found), name.removeprefix("all/")
        label = shown if gap is None else f"{shown} ({_pearson(gap, values)})"
        style = {**output_style(number).of_line(), "marker": "o" if len(values) == 1 else ""}
        ax.plot(epochs(history), values, label=label, **style)
    set_epochs(ax)
    ax.set_ylabel(f"{value_label(measure)} on {target}")
    legend_beside(ax, "output" if gap is None else "output (r with the gap)", columns=1 + (len(of_all) - 1) // 20)
    return figure, ax


def plot_class_correlations(history: History, target: str = "test", ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws Pearson's coefficient of each class's gap (a row) with each output's sensitivity on that class (a column).

    The monitor needs ``ClassSensitivity(matrix=True)`` and ``by_class=True``. A coefficient that is not defined stays blank.
    """
    check_history(history)
    found = [one.measures.get("class_sensitivity", MeasureRecord()).parts for one in on_set(history, target)]
    pairs = [name.split("/") for parts in found for name in parts if "/" in name and not name.startswith("all/")]
    if not pairs:
        raise ValueError(
            f"history: expected the class_sensitivity of classes and outputs on {target!r}, but got none; use "
            "ClassSensitivity(matrix=True) in the monitor, and compare_with_labels=True"
        )
    classes, outputs = (sorted({pair[i] for pair in pairs}, key=int) for i in (0, 1))
    matrix = np.full((len(classes), len(outputs)), np.nan)
    for row, k in enumerate(classes):
        ours, others = (
            series(one.class_losses.get(int(k)) for one in sets)
            for sets in (on_set(history, target), [record.reference for record in history])
        )
        if np.isnan(ours - others).all():
            raise ValueError(f"history: expected the losses of class {k} on {target!r} and the reference; use by_class=True")
        for place, c in enumerate(outputs):
            values = series(parts.get(f"{k}/{c}") for parts in found)
            matrix[row, place] = _coefficient(np.abs(ours - others), values)
    figure, ax = one_axis(ax, 5.8, 5)
    draw_matrix(ax, matrix, classes, outputs, "r of the class's gap and the sensitivity", limits=(-1, 1))
    return figure, ax


def _coefficient(first: Series, second: Series) -> float:
    return correlations(first.tolist(), second.tolist()).get("pearson", np.nan)


def _pearson(first: Series, second: Series) -> str:
    found = _coefficient(first, second)
    return "r undefined" if np.isnan(found) else f"r = {found:.2f}"

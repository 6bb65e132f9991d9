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
    Records,
    Series,
    check_records,
    check_target,
    epochs,
    measured_on,
    on_set,
    series,
    truth_of,
)
from lightning_tansens.show.figures.style import COLOURS, Style, estimate_style, set_style
from lightning_tansens.show.keys import ACTUAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: With nine colours, 36 outputs differ in their colour or their line.
LINES = ("-", "--", ":", "-.")


def plot_losses(records: Records, target: str = "test", ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws the reference's loss and a target's true loss over the epochs."""
    check_records(records)
    check_target(records, target)
    losses = {
        records[0].reference.name: series(record.reference.loss for record in records),
        target: truth_of(records, target, "loss"),
    }
    figure, ax = one_axis(ax)
    for number, (name, values) in enumerate(losses.items()):
        ax.plot(epochs(records), values, label=name, markevery=some_points(len(values), number), **set_style(name).of_line())
    set_epochs(ax)
    ax.set_ylabel("loss [units of the criterion]")
    ax.legend(fontsize="small")
    return figure, ax


def plot_gap(
    records: Records, measure: str = "empirical", target: str = "test", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws the generalisation gap over the epochs, and a measure on the target scaled to the gap's range.

    The legend has Pearson's coefficient, which the scaling does not change.
    """
    check_records(records)
    gap, values = _gap(records, target), measured_on(records, measure, target)
    both = np.isfinite(gap) & np.isfinite(values)
    if not both.any():
        raise ValueError(
            f"measure: expected a measurement with both the true loss of {target!r} and {measure!r}, but got none; measure "
            "both at the same epochs"
        )
    low, high = values[both].min(), values[both].max()
    scaled = gap[both].min() + (values - low) / (high - low or 1.0) * np.ptp(gap[both])
    figure, ax = one_axis(ax)
    ax.plot(epochs(records), gap, label=f"gap |true − reference loss| on {target}", **estimate_style(ACTUAL).of_line())
    label = f"{value_label(measure).name}, scaled to it ({_pearson(gap, values)})"
    ax.plot(epochs(records), scaled, label=label, markevery=some_points(len(gap)), **estimate_style(measure).of_line())
    set_epochs(ax)
    ax.set_ylabel("gap [units of the criterion]")
    ax.legend(fontsize="small")
    return figure, ax


def plot_outputs(
    records: Records, target: str = "test", measure: str = "output_sensitivity", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draws the sensitivity of each output on a target over the epochs, with its correlation with the gap if that is known.

    ``measure`` is "output_sensitivity" or "class_sensitivity", of which the outputs over all samples are drawn.
    """
    check_records(records)
    found = [one.measures.get(measure, MeasureRecord()).parts for one in on_set(records, target)]
    names = list(dict.fromkeys(part for parts in found for part in parts))
    of_all = [name for name in names if name.startswith("all/")] or names
    if not of_all:
        raise ValueError(
            f"records: expected the outputs of {measure!r} on {target!r}, but got none; use OutputSensitivity or "
            "ClassSensitivity in the monitor"
        )
    labelled = any(one.loss is not None for one in on_set(records, target))
    gap = _gap(records, target) if labelled else None
    figure, ax = one_axis(ax, 7.6)
    for number, name in enumerate(of_all):
        values, shown = series(parts.get(name) for parts in found), name.removeprefix("all/")
        label = shown if gap is None else f"{shown} ({_pearson(gap, values)})"
        style = {**_output_style(number).of_line(), "marker": "o" if len(values) == 1 else ""}
        ax.plot(epochs(records), values, label=label, **style)
    set_epochs(ax)
    ax.set_ylabel(f"{value_label(measure)} on {target}")
    legend_beside(ax, "output" if gap is None else "output (r with the gap)", columns=1 + (len(of_all) - 1) // 20)
    return figure, ax


def plot_class_correlations(records: Records, target: str = "test", ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws Pearson's coefficient of each class's gap (a row) with each output's sensitivity on that class (a column).

    The monitor needs ``ClassSensitivity(matrix=True)`` and ``by_class=True``. A coefficient that is not defined stays blank.
    """
    check_records(records)
    found = [one.measures.get("class_sensitivity", MeasureRecord()).parts for one in on_set(records, target)]
    pairs = [name.split("/") for parts in found for name in parts if "/" in name and not name.startswith("all/")]
    if not pairs:
        raise ValueError(
            f"records: expected the class_sensitivity of classes and outputs on {target!r}, but got none; use "
            "ClassSensitivity(matrix=True) in the monitor, and compare_with_labels=True"
        )
    classes, outputs = (sorted({pair[i] for pair in pairs}, key=int) for i in (0, 1))
    matrix = np.full((len(classes), len(outputs)), np.nan)
    for row, k in enumerate(classes):
        ours, others = (
            series(one.class_losses.get(int(k)) for one in sets)
            for sets in (on_set(records, target), [record.reference for record in records])
        )
        if np.isnan(ours - others).all():
            raise ValueError(f"records: expected the losses of class {k} on {target!r} and the reference; use by_class=True")
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


def _gap(records: Records, target: str) -> Series:
    """The generalisation gap, abs(true loss − reference loss), shape (T,)."""
    check_target(records, target)
    return np.abs(truth_of(records, target, "loss") - series(record.reference.loss for record in records))


def _output_style(number: int) -> Style:
    return Style(COLOURS[number % len(COLOURS)], "", LINES[number // len(COLOURS) % len(LINES)])

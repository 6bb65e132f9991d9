"""Draws the last estimates of many unlabelled sets below one another, on one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_tansens.record import HEADLINE, TRIVIAL, Quantity
from lightning_tansens.show.figures.card import (
    BAR,
    BOTTOM,
    HEIGHT,
    LINE,
    RIGHT,
    SMALL,
    WIDTH,
    estimates_on,
    last_answer,
    last_record,
    places,
    values_shown,
    write,
    write_bar,
)
from lightning_tansens.show.figures.series import Records
from lightning_tansens.show.figures.style import ESTIMATES
from lightning_tansens.show.keys import ACTUAL
from lightning_tansens.show.words import SHOWN, said

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# where the bars, the values, the scale and the values of the other quantity begin
_BARS, _VALUES, _SCALE, _OTHERS = 3, 137, 236, 362


def draw_rows(ax: Axes, records: Records, targets: list[str], left_out: int, quantity: Quantity) -> None:
    """Draws a row for each set: name and verdict, the estimate with its interval, both on a scale, the other quantity.

    Args:
        ax: The axis, in pixels.
        records: The records of a monitor.
        targets: The sets, at most ten.
        left_out: How many sets there are besides.
        quantity: What is on the scale.

    """
    (other,) = (of for of in SHOWN if of != quantity)
    found = {target: last_answer(records, target) for target in targets}
    others = any(other in one.estimates for one in found.values())
    right, top = _OTHERS - 8 if others else WIDTH - RIGHT - 4, HEIGHT - LINE
    last = [last_record(records, target) for target in targets]
    low, high = values_shown(last, targets, quantity)

    def x(value: Any) -> Any:
        return _SCALE + (np.clip(value, low, high) - low) / (high - low) * (right - _SCALE)

    look: dict[str, Any] = {"size": SMALL, "color": "#404040"}
    ax.text(_BARS, top + 3, f"after epoch {records[-1].epoch}", **look)
    ax.text(_VALUES, top + 3, quantity, **look)
    if others:
        ax.text(WIDTH - RIGHT, top + 3, other, ha="right", **look)
    if left_out:
        ax.text(_BARS, BOTTOM - 12, f"{left_out} more in TEXT and monitor.history", **look)
    grid: list[tuple[float, float]] = [(_SCALE, top), (_SCALE, BOTTOM), (right, BOTTOM)]
    ax.plot(*np.transpose(grid), color="#404040", linewidth=0.5, zorder=1)
    grid = []  # one line for all, interrupted by nan, is drawn faster
    for place in places(3, (low, high)):
        grid += [(x(place), BOTTOM), (x(place), top), (np.nan, np.nan)]
        ax.text(x(place), BOTTOM - 12, f"{place:.6g}", ha="center", **look)
    ax.plot(*np.transpose(grid), color="#E4E4E4", linewidth=0.5, zorder=0)
    reference = records[-1].reference.labelled(quantity)
    if reference is not None and np.isfinite(reference):
        style = ESTIMATES[TRIVIAL]
        ax.plot(
            [x(reference)] * 2, [BOTTOM, top], label="reference", color=style.colour, linestyle=style.line, linewidth=1.1
        )
    tall = (top - BOTTOM) / len(targets)
    for number, (target, record) in enumerate(zip(targets, last, strict=True)):
        middle = top - (number + 0.5) * tall
        text = middle - BAR / 2 + 5
        write_bar(ax, _BARS, _VALUES - 5, middle - BAR / 2 + 1, found[target])
        write(ax, _VALUES, _SCALE - 5, text, found[target].value(quantity) or "no estimate yet", weight="bold")
        if other in found[target].estimates:
            beside = said(other, found[target].estimates[other][1].value)
            write(ax, _OTHERS, WIDTH - RIGHT, text, beside, at_right=True)
        (estimate,) = estimates_on([record], target, quantity)
        truth = record.targets[target].labelled(quantity)
        colour = ESTIMATES[HEADLINE].colour
        if estimate is not None and estimate.low is not None and estimate.high is not None:
            ends, about = [x(estimate.low), x(estimate.high)], (middle - 4, middle + 4)
            ax.fill_between(ends, *about, label="95 % interval", color=colour, alpha=0.25, linewidth=0, gid=target)
        marks: tuple[tuple[str, float | None, dict[str, Any]], ...] = (
            ("estimate", None if estimate is None else estimate.value, {"color": colour, "marker": "o", "markersize": 4}),
            ("truth", truth, {"color": ESTIMATES[ACTUAL].colour, "marker": "|", "markersize": 8, "markeredgewidth": 1.5}),
        )
        for label, value, mark in marks:
            if value is not None and np.isfinite(value):
                ax.plot([x(value)], [middle], label=label, linestyle="", gid=target, **mark)

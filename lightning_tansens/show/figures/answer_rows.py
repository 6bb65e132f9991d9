"""Draws the last estimates of many unlabelled sets below one another, on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_tansens.record import HEADLINE, TRIVIAL, Estimate, Quantity
from lightning_tansens.show.figures.card import (
    BAR,
    BOTTOM,
    HEIGHT,
    LINE,
    RIGHT,
    SMALL,
    WIDTH,
    estimates_on,
    last_answers,
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


# the characters of a name
_NAME = 12

# what is not an estimate
_LOOK: dict[str, Any] = {"size": SMALL, "color": "#404040"}

# where the uppermost row ends, below the headings
_TOP = HEIGHT - LINE


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
    found = last_answers(records, targets, _NAME)
    has_other = any(other in one.estimates for one in found.values())
    ax.text(_BARS, _TOP + 3, f"after epoch {records[-1].epoch}", **_LOOK)
    ax.text(_VALUES, _TOP + 3, quantity, **_LOOK)
    if has_other:
        ax.text(WIDTH - RIGHT, _TOP + 3, other, ha="right", **_LOOK)
    if left_out:
        ax.text(_BARS, BOTTOM - 12, f"{left_out} more in TEXT and monitor.history", **_LOOK)
    last = {target: last_record(records, target) for target in targets}
    limits = values_shown(list(last.values()), targets, quantity)
    scale = _Scale(ax, *limits, right=_OTHERS - 8 if has_other else WIDTH - RIGHT - 4)
    scale.draw(records[-1].reference.labelled(quantity))
    tall = (_TOP - BOTTOM) / len(targets)
    for number, (target, one) in enumerate(found.items()):
        middle = _TOP - (number + 0.5) * tall
        text = middle - BAR / 2 + 5
        write_bar(ax, _BARS, _VALUES - 5, middle - BAR / 2 + 1, one)
        write(ax, _VALUES, _SCALE - 5, text, one.value(quantity) or "no estimate yet", weight="bold")
        if other in one.estimates:
            write(ax, _OTHERS, WIDTH - RIGHT, text, said(other, one.estimates[other][1].value), at_right=True)
        (estimate,) = estimates_on([last[target]], target, quantity)
        scale.mark(target, middle, estimate, last[target].targets[target].labelled(quantity))


@dataclass(frozen=True)
class _Scale:
    """The scale that all rows have in common, to a right end in pixels."""

    ax: Axes
    low: float
    high: float
    right: float

    def x(self, value: Any) -> Any:
        """Where a value is."""
        return _SCALE + (np.clip(value, self.low, self.high) - self.low) / (self.high - self.low) * (self.right - _SCALE)

    def draw(self, reference: float | None) -> None:
        """Draws the lines of the scale, and the reference's own value."""
        corners = np.array([(_SCALE, _TOP), (_SCALE, BOTTOM), (self.right, BOTTOM)])
        self.ax.plot(*corners.T, color="#404040", linewidth=0.5, zorder=1)
        grid: list[tuple[float, float]] = []  # one line for all, interrupted by nan, is drawn faster
        for place in places(3, (self.low, self.high)):
            grid += [(self.x(place), BOTTOM), (self.x(place), _TOP), (np.nan, np.nan)]
            self.ax.text(self.x(place), BOTTOM - 12, f"{place:.6g}", ha="center", **_LOOK)
        self.ax.plot(*np.transpose(grid), color="#E4E4E4", linewidth=0.5, zorder=0)
        if reference is not None and np.isfinite(reference):
            style = ESTIMATES[TRIVIAL]
            look: dict[str, Any] = {"color": style.colour, "linestyle": style.line, "linewidth": 1.1}
            self.ax.plot([self.x(reference)] * 2, [BOTTOM, _TOP], label="reference", **look)

    def mark(self, target: str, middle: float, estimate: Estimate | None, truth: float | None) -> None:
        """Marks a set's estimate, its interval and the truth, at a height."""
        colour = ESTIMATES[HEADLINE].colour
        if estimate is not None and estimate.low is not None and estimate.high is not None:
            ends, about = [self.x(estimate.low), self.x(estimate.high)], (middle - 4, middle + 4)
            self.ax.fill_between(ends, *about, label="95 % interval", color=colour, alpha=0.25, linewidth=0, gid=target)
        marks: tuple[tuple[str, float | None, dict[str, Any]], ...] = (
            ("estimate", None if estimate is None else estimate.value, {"color": colour, "marker": "o", "markersize": 4}),
            ("truth", truth, {"color": ESTIMATES[ACTUAL].colour, "marker": "|", "markersize": 8, "markeredgewidth": 1.5}),
        )
        for label, value, look in marks:
            if value is not None and np.isfinite(value):
                self.ax.plot([self.x(value)], [middle], label=label, linestyle="", gid=target, **look)

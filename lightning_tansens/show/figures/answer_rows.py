"""Draws the last estimates of many unlabelled sets below one another, on one scale."""

from typing import Any

import numpy as np

from lightning_tansens.record import HEADLINE, TRIVIAL, Estimate, Quantity
from lightning_tansens.show.figures import card
from lightning_tansens.show.figures.canvas import Axes
from lightning_tansens.show.figures.series import Records
from lightning_tansens.show.figures.style import ESTIMATES
from lightning_tansens.show.keys import ACTUAL
from lightning_tansens.show.words import SHOWN, said

# where the bars, the values, the scale and the values of the other quantity begin
_BARS, _VALUES, _SCALE, _OTHERS = 3, 137, 236, 362

# the characters of a name
_NAME = 12

# where the uppermost row ends, below the headings
_TOP = card.HEIGHT - card.LINE


def draw_rows(ax: Axes, records: Records, targets: list[str], left_out: int, quantity: Quantity) -> None:
    """Draws a row for each set: name and verdict, the estimate with its interval, both on a scale, the other quantity.

    The axis is in pixels; a line says how many sets are left out, and where they are.
    """
    (other,) = (of for of in SHOWN if of != quantity)
    found = card.last_answers(records, targets, _NAME)
    has_other = any(other in one.estimates for one in found.values())
    ax.text(_BARS, _TOP + 3, f"after epoch {records[-1].epoch}", **card.QUIET)
    ax.text(_VALUES, _TOP + 3, quantity, **card.QUIET)
    if has_other:
        ax.text(card.WIDTH - card.RIGHT, _TOP + 3, other, ha="right", **card.QUIET)
    if left_out:
        ax.text(_BARS, card.BOTTOM - 12, f"{left_out} more in TEXT and monitor.history", **card.QUIET)
    last = {target: card.last_record(records, target) for target in targets}
    limits = card.values_shown(list(last.values()), targets, quantity)
    right = _OTHERS - 8 if has_other else card.WIDTH - card.RIGHT - 4
    scale = card.Frame(ax, _SCALE, card.BOTTOM, right - _SCALE, _TOP - card.BOTTOM, limits)
    scale.scale(card.places(3, limits))
    reference, style = records[-1].reference.labelled(quantity), ESTIMATES[TRIVIAL]
    if reference is not None and np.isfinite(reference):
        look: dict[str, Any] = {"color": style.colour, "linestyle": style.line, "linewidth": 1.1}
        ax.plot([scale.x(reference)] * 2, [card.BOTTOM, _TOP], label="reference", **look)
    tall = (_TOP - card.BOTTOM) / len(targets)
    for number, (target, one) in enumerate(found.items()):
        middle = _TOP - (number + 0.5) * tall
        text = middle - card.BAR / 2 + 5
        card.write_bar(ax, _BARS, _VALUES - 5, middle - card.BAR / 2 + 1, one)
        card.write(ax, _VALUES, _SCALE - 5, text, one.value(quantity) or "no estimate yet", weight="bold")
        if other in one.estimates:
            card.write(ax, _OTHERS, card.WIDTH - card.RIGHT, text, said(other, one.estimates[other][1].value), at_right=True)
        (estimate,) = card.estimates_on([last[target]], target, quantity)
        _mark(scale, target, middle, estimate, last[target].targets[target].labelled(quantity))


def _mark(scale: card.Frame, target: str, middle: float, estimate: Estimate | None, truth: float | None) -> None:
    """Marks a set's estimate, its interval and the truth, at a height."""
    colour = ESTIMATES[HEADLINE].colour
    if estimate is not None and estimate.low is not None and estimate.high is not None:
        ends, about = [scale.x(estimate.low), scale.x(estimate.high)], (middle - 4, middle + 4)
        scale.ax.fill_between(ends, *about, label="95 % interval", color=colour, alpha=0.25, linewidth=0, gid=target)
    marks: tuple[tuple[str, float | None, dict[str, Any]], ...] = (
        ("estimate", None if estimate is None else estimate.value, {"color": colour, "marker": "o", "markersize": 4}),
        ("truth", truth, {"color": ESTIMATES[ACTUAL].colour, "marker": "|", "markersize": 8, "markeredgewidth": 1.5}),
    )
    for label, value, look in marks:
        if value is not None and np.isfinite(value):
            scale.ax.plot([scale.x(value)], [middle], label=label, linestyle="", gid=target, **look)

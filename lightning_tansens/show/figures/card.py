"""What the first picture of a run is made of: its size, its texts, its scales and its legend."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lightning_tansens.record import Estimate, Quantity, Record
from lightning_tansens.show.figures.canvas import Axes
from lightning_tansens.show.figures.series import Records, on_set
from lightning_tansens.show.figures.style import VERDICTS
from lightning_tansens.show.words import SetAnswer, answer, headline, shortened

#: The room for a picture on TensorBoard's first page; it shows higher ones smaller. All lengths are in its pixels.
WIDTH, HEIGHT = 400, 215

#: Pixels of the picture for each of those, for sharp screens.
SCALE = 2

#: What is left, right and below, for scales and the legend; the height of a bar and of a line of text.
LEFT, RIGHT, BOTTOM, BAR, LINE = 38, 4, 30, 16, 13

#: Sizes of fonts: 100 pixels an inch, 72 points an inch.
TEXT, SMALL = 0.72 * 10, 0.72 * 9

# how far a text without room is made smaller before it is cut
_SMALLEST = 0.8

# the order of the legend
_ELEMENTS = ("estimate", "95 % interval", "reference", "truth")

#: What is neither an estimate nor its name.
QUIET: dict[str, Any] = {"size": SMALL, "color": "#404040"}


@dataclass(frozen=True)
class Frame:
    """A part of the picture in which values have their places: from left to right, and from the bottom up."""

    ax: Axes
    left: float
    bottom: float
    width: float
    height: float
    across: tuple[float, float]
    up: tuple[float, float] = (0, 1)

    def x(self, value: Any) -> Any:
        """Returns where a value is from left to right, at an end if it lies outside."""
        low, high = self.across
        return self.left + (np.clip(value, low, high) - low) / (high - low) * self.width

    def y(self, value: Any) -> Any:
        """Returns where a value is from the bottom up."""
        low, high = self.up
        return self.bottom + (np.clip(value, low, high) - low) / (high - low) * self.height

    def scale(self, across: Iterable[float], up: Iterable[float] = (), below: bool = True, beside: bool = True) -> None:
        """Draws a grid at some values, with their numbers below and beside it."""
        right, top = self.left + self.width, self.bottom + self.height
        grid: list[tuple[float, float]] = []  # one line for all, interrupted by nan, is drawn faster
        for value in across:
            grid += [(self.x(value), self.bottom), (self.x(value), top), (np.nan, np.nan)]
            if below:
                self.ax.text(self.x(value), self.bottom - 12, f"{value:.6g}", ha="center", **QUIET)
        for value in up:
            grid += [(self.left, self.y(value)), (right, self.y(value)), (np.nan, np.nan)]
            if beside:
                self.ax.text(self.left - 4, self.y(value), f"{value:.6g}", ha="right", va="center", **QUIET)
        self.ax.plot(*np.transpose(grid), color="#E4E4E4", linewidth=0.5, zorder=0)
        corner = [self.left, self.left, right], [top, self.bottom, self.bottom]
        self.ax.plot(*corner, color="#404040", linewidth=0.5, zorder=1)


def write(ax: Axes, left: float, right: float, y: float, text: str, at_right: bool = False, **look: Any) -> float:
    """Writes a text, smaller where there is no room for it and at last cut; returns how wide it is."""
    x, align = (right, "right") if at_right else (left, "left")
    artist = ax.text(x, y, text, size=TEXT, ha=align, parse_math=False, **look)
    needed, room = float(artist.get_window_extent().width) / SCALE, right - left
    if needed > room:
        artist.set_fontsize(TEXT * max(room / needed, _SMALLEST))
        if needed * _SMALLEST > room:
            artist.set_text(text[: int(len(text) * room / needed / _SMALLEST) - 1] + "…")
    return min(needed, room)


def write_bar(ax: Axes, left: float, right: float, y: float, found: SetAnswer) -> None:
    """A bar with a set's name and its verdict."""
    from matplotlib.patches import Rectangle

    style, doubtful = VERDICTS[found.kind], bool(found.doubts)
    fill = "white" if doubtful else style.colour
    ax.add_patch(Rectangle((left, y), right - left, BAR - 2, facecolor=fill, edgecolor=style.colour, linewidth=0.8))
    ink: Any = "black" if doubtful else style.ink
    used = write(ax, left + 3, right - 3, y + 4, found.mark, at_right=True, color=ink)
    write(ax, left + 3, right - 11 - used, y + 4, found.name, weight="bold", color=ink)


def places(most: int, limits: tuple[float, float]) -> list[float]:
    """Round numbers within limits, for a scale."""
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(most, steps=[1, 2, 5, 10])
    return [float(place) for place in locator.tick_values(*limits) if limits[0] <= place <= limits[1]]


def explain(ax: Axes, reference: str) -> None:
    """The legend, in one line below all."""
    known = {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    shown = {reference if name == "reference" else name: known[name] for name in _ELEMENTS if name in known}
    look: dict[str, Any] = {"frameon": False, "borderaxespad": 0.0, "borderpad": 0.0, "handletextpad": 0.5, "ncols": 4}
    ax.legend(shown.values(), shown, loc=(0.1, 0.01), fontsize=SMALL, handlelength=1.8, columnspacing=1.4, **look)


def values_shown(records: Records, targets: list[str], quantity: Quantity) -> tuple[float, float]:
    """Limits with all estimates, references and truths inside, and intervals as far as they do not flatten these."""
    found = [one for target in targets for one in estimates_on(records, target, quantity) if one is not None]
    shown = [one for record in records for one in record.sets if one is record.reference or one.name in targets]
    labelled = [one.labelled(quantity) for one in shown]
    always = _known([*labelled, *(one.value for one in found)])
    ends = _known(end for one in found for end in (one.low, one.high))
    low, high = (min(always), max(always)) if always else (0.0, 1.0)
    span = (high - low) or abs(high) or 1.0
    low, high = max(low - span, min([low, *ends])), min(high + span, max([high, *ends]))
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def estimates_on(records: Records, target: str, quantity: Quantity) -> list[Estimate | None]:
    """What stands for a set, at each measurement."""
    return [of[1] if (of := headline(one, quantity)) else None for one in on_set(records, target)]


def last_answers(records: Records, targets: list[str], width: int) -> dict[str, SetAnswer]:
    """What the last measurement of each set says, with its name in so many characters."""
    short = shortened(targets, width)
    return {name: replace(answer(last_record(records, name), name), name=short[name]) for name in targets}


def last_record(records: Records, target: str) -> Record:
    """The last measurement of a set."""
    return next(record for record in reversed(records) if target in record.targets)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and np.isfinite(value)]

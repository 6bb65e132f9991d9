"""Draws the first picture of a run: how well the network does on each unlabelled set, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_tansens.checks import check_choice
from lightning_tansens.record import HEADLINE, TRIVIAL, Estimate, Quantity
from lightning_tansens.show.figures.canvas import check_matplotlib
from lightning_tansens.show.figures.series import Records, check_records, epochs, on_set, series, targets_of
from lightning_tansens.show.figures.style import ESTIMATES, VERDICTS
from lightning_tansens.show.keys import ACTUAL, QUANTITIES
from lightning_tansens.show.words import SHOWN, SetAnswer, answer, first_quantity, headline, said

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The size at which TensorBoard shows a picture on its first page. All lengths here are in its pixels.
WIDTH, HEIGHT = 400, 215

#: Pixels of the picture for each of those, for sharp screens.
SCALE = 2

#: So many sets stand in one row; of more, two do.
IN_A_ROW = 3

# what is around the panels, between them, and in the title of each
_LEFT, _RIGHT, _BOTTOM, _GAP, _BAR, _LINE, _LEAST = 38, 4, 30, 9, 16, 13, 26

#: Sizes of fonts: 100 pixels an inch, 72 points an inch.
_TEXT, _SMALL = 0.72 * 10, 0.72 * 9

#: How far a text without room is made smaller before it is cut.
_SMALLEST = 0.8

#: The order of the legend.
_ELEMENTS = ("estimate", "95 % interval", "reference", "truth")


def plot_answer(records: Records, quantity: Quantity | None = None) -> tuple[Figure, Axes]:
    """Draws the estimate of each target over the epochs, with the last one and its verdict as the title.

    A panel has the estimate with its 95 % interval, the reference's own value, dashed, and the truth where labels were
    compared. The verdict is a word on a colour; on white, with a question mark, where something speaks against the estimate.
    All panels have the same scales.

    Args:
        records: The records of a monitor.
        quantity: "accuracy" or "loss"; None takes the accuracy where it is estimated.

    Returns:
        The figure, as large as TensorBoard shows it on its first page, and its only axis, whose units are pixels: it takes a
        third of the time of an axis for each panel.

    Raises:
        TypeError: If they are no list of records.
        ValueError: If they are empty or have no target.

    Example:
        >>> from lightning_tansens.record import Estimate, Record, SetRecord
        >>> accuracy = {"estimate": Estimate(0.36, low=0.27, high=0.43, verdict="worse")}
        >>> test = SetRecord("test", estimates={"accuracy": accuracy})
        >>> figure, ax = plot_answer([Record(t, t, SetRecord("val", accuracy=0.5), {"test": test}) for t in range(3)])
        >>> [text.get_text() for text in ax.texts][:4]
        ['accuracy', 'worse', 'test', 'accuracy 0.36 [0.27, 0.43]']

    """
    check_records(records)
    targets = targets_of(records)
    if not targets:
        raise ValueError("records: expected a test set, but none was measured; pass test_dataloaders to the monitor")
    chosen = first_quantity(records) if quantity is None else quantity
    check_choice("quantity", chosen, QUANTITIES)
    check_matplotlib()
    from matplotlib.figure import Figure

    columns = len(targets) if len(targets) <= IN_A_ROW else 2
    rows = -(-len(targets) // columns)
    lines = 2 if rows == 1 else 1
    title = _BAR + _LINE * lines
    height = max(HEIGHT, _BOTTOM + rows * (title + _LEAST + _GAP) - _GAP)
    wide, tall = (WIDTH - _LEFT - _RIGHT + _GAP) / columns, (height - _BOTTOM + _GAP) / rows
    figure = Figure((WIDTH / 100, height / 100), dpi=100 * SCALE)
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    ax.set_axis_off()
    ax.text(9, (_BOTTOM + height) / 2, chosen, rotation=90, ha="center", va="center", size=_SMALL)
    scales = _epochs_shown(records), _values_shown(records, targets, chosen)
    for number, target in enumerate(targets):
        row, column = divmod(number, columns)
        corner = _LEFT + column * wide, height - (row + 1) * tall + _GAP
        panel = _Panel(ax, *corner, wide - _GAP, tall - _GAP - title, *scales)
        last = next(record for record in reversed(records) if target in record.targets)
        panel.write(answer(last, target), chosen, lines)
        panel.scale(8 // columns, 2 + 3 // rows, number + columns >= len(targets), column == 0)
        panel.draw(records, target, chosen)
    ax.text(3, _BOTTOM - 12, "epoch", size=_SMALL)
    _explain(ax, records[-1].reference.name)
    return figure, ax


@dataclass(frozen=True)
class _Panel:
    """A set's place in the picture, with the limits of its epochs and values."""

    ax: Axes
    left: float
    bottom: float
    width: float
    height: float
    epochs: tuple[float, float]
    values: tuple[float, float]

    def x(self, epoch: Any) -> Any:
        first, last = self.epochs
        return self.left + (epoch - first) / (last - first) * self.width

    def y(self, value: Any) -> Any:
        low, high = self.values
        return self.bottom + (np.clip(value, low, high) - low) / (high - low) * self.height

    def write(self, found: SetAnswer, quantity: Quantity, lines: int) -> None:
        """The title: a bar with the name and the verdict, and the values below it."""
        from matplotlib.patches import Rectangle

        bar = self.bottom + self.height + _LINE * lines + 1
        style, doubtful = VERDICTS[found.kind], bool(found.doubts)
        fill = "white" if doubtful else style.colour
        size = self.width, _BAR - 2
        self.ax.add_patch(Rectangle((self.left, bar), *size, facecolor=fill, edgecolor=style.colour, linewidth=0.8))
        ink: Any = "black" if doubtful else style.ink
        free = self.width - 14 - self._text(found.mark, bar + 4, self.width - 6, right=True, color=ink)
        self._text(found.name, bar + 4, free, weight="bold", color=ink)
        first, *rest = [of for of in dict.fromkeys((quantity, *SHOWN)) if of in found.estimates] or [quantity]
        wide = lines > 1 and self.width > 150 and found.estimates  # elsewhere the axis alone says what the first value is
        value = f"{first} {found.value(first)}" if wide else found.value(first) or "no estimate yet"
        used = self._text(value, bar - _LINE + 2, self.width - 6, weight="bold")
        for of in rest:
            if lines > 1:
                self._text(f"{of} {found.value(of)}", bar - 2 * _LINE + 2, self.width - 6)
            else:
                text = f"{of} {said(of, found.estimates[of][1].value)}"
                self._text(text, bar - _LINE + 2, self.width - 12 - used, right=True)

    def _text(self, text: str, y: float, room: float, right: bool = False, **look: Any) -> float:
        """Writes a text, smaller where there is no room for it and at last cut; returns how wide it is."""
        x, align = (self.left + self.width - 3, "right") if right else (self.left + 3, "left")
        artist = self.ax.text(x, y, text, size=_TEXT, ha=align, parse_math=False, **look)
        needed = float(artist.get_window_extent().width) / SCALE
        if needed > room:
            artist.set_fontsize(_TEXT * max(room / needed, _SMALLEST))
            if needed * _SMALLEST > room:
                artist.set_text(text[: int(len(text) * room / needed / _SMALLEST) - 1] + "…")
        return min(needed, room)

    def scale(self, most_epochs: int, most_values: int, below: bool, beside: bool) -> None:
        """The grid and its numbers."""
        from matplotlib.ticker import MaxNLocator

        look: dict[str, Any] = {"size": _SMALL, "color": "#404040"}
        right, top = self.left + self.width, self.bottom + self.height
        grid: list[tuple[float, float]] = []  # one line for all, interrupted by nan, is drawn faster
        for place in _inside(MaxNLocator(most_epochs, steps=[1, 2, 5, 10]), self.epochs):
            if place != round(place):
                continue
            x = self.x(place)
            grid += [(x, self.bottom), (x, top), (np.nan, np.nan)]
            if below:
                self.ax.text(x, self.bottom - 12, f"{place:g}", ha="center", **look)
        for place in _inside(MaxNLocator(most_values, steps=[1, 2, 5, 10]), self.values):
            y = self.y(place)
            grid += [(self.left, y), (right, y), (np.nan, np.nan)]
            if beside:
                self.ax.text(self.left - 4, y, f"{place:.6g}", ha="right", va="center", **look)
        self.ax.plot(*np.transpose(grid), color="#E4E4E4", linewidth=0.5, zorder=0)
        corner = [self.left, self.left, right], [top, self.bottom, self.bottom]
        self.ax.plot(*corner, color="#404040", linewidth=0.5, zorder=1)

    def draw(self, records: Records, target: str, quantity: Quantity) -> None:
        """The four elements."""
        at, found = self.x(epochs(records)), _estimates(records, target, quantity)
        values, low, high = (
            series(None if one is None else getattr(one, name) for one in found) for name in ("value", "low", "high")
        )
        if not np.isnan(low).all():
            look: dict[str, Any] = {"color": ESTIMATES[HEADLINE].colour, "alpha": 0.25, "linewidth": 0, "gid": target}
            around = [at] if len(at) > 1 else [at - 4, at + 4]  # an area of one point is nothing
            bottom, top = (np.concatenate([self.y(end)] * len(around)) for end in (low, high))
            self.ax.fill_between(np.concatenate(around), bottom, top, label="95 % interval", **look)
        for name, label, line in (
            (TRIVIAL, "reference", series(record.reference.labelled(quantity) for record in records)),
            (HEADLINE, "estimate", values),
            (ACTUAL, "truth", series(one.labelled(quantity) for one in on_set(records, target))),
        ):
            known, style = np.isfinite(line), ESTIMATES[name]
            if known.any():
                look = {"color": style.colour, "linestyle": style.line, "linewidth": 1.1, "gid": target, "markersize": 3}
                look["marker"] = "o" if known.sum() == 1 else ""  # a line of one point is nothing
                self.ax.plot(at[known], self.y(line[known]), label=label, **look)


def _inside(locator: Any, limits: tuple[float, float]) -> list[float]:
    return [float(place) for place in locator.tick_values(*limits) if limits[0] <= place <= limits[1]]


def _explain(ax: Axes, reference: str) -> None:
    """The legend, in one line below the panels."""
    known = {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    shown = {reference if name == "reference" else name: known[name] for name in _ELEMENTS if name in known}
    look: dict[str, Any] = {"frameon": False, "borderaxespad": 0.0, "borderpad": 0.0, "handletextpad": 0.5, "ncols": 4}
    ax.legend(shown.values(), shown, loc=(0.1, 0.01), fontsize=_SMALL, handlelength=1.8, columnspacing=1.4, **look)


def _epochs_shown(records: Records) -> tuple[float, float]:
    """The first and the last epoch, with some room."""
    first, last = records[0].epoch, records[-1].epoch
    room = max(0.03 * (last - first), 0.1)
    return first - room, last + room


def _values_shown(records: Records, targets: list[str], quantity: Quantity) -> tuple[float, float]:
    """Limits with all estimates, references and truths inside, and intervals as far as they do not flatten these."""
    found = [one for target in targets for one in _estimates(records, target, quantity) if one is not None]
    labelled = [one.labelled(quantity) for record in records for one in record.sets]
    always = _known([*labelled, *(one.value for one in found)])
    ends = _known(end for one in found for end in (one.low, one.high))
    low, high = (min(always), max(always)) if always else (0.0, 1.0)
    span = (high - low) or abs(high) or 1.0
    low, high = max(low - span, min([low, *ends])), min(high + span, max([high, *ends]))
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and np.isfinite(value)]


def _estimates(records: Records, target: str, quantity: Quantity) -> list[Estimate | None]:
    return [of[1] if (of := headline(one, quantity)) else None for one in on_set(records, target)]

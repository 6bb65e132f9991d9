"""Draws the first picture of a run: how well the network does on each unlabelled set, and how sure that is."""

from typing import Any

import numpy as np

from lightning_tansens.checks import check_choice
from lightning_tansens.record import HEADLINE, TRIVIAL, Quantity
from lightning_tansens.show.figures import card
from lightning_tansens.show.figures.answer_rows import draw_rows
from lightning_tansens.show.figures.canvas import Axes, Figure, check_matplotlib
from lightning_tansens.show.figures.series import Records, check_records, epochs, on_set, series, targets_of
from lightning_tansens.show.figures.style import ESTIMATES
from lightning_tansens.show.keys import ACTUAL, QUANTITIES
from lightning_tansens.show.words import SHOWN, SetAnswer, said

#: So many sets have a panel each; of more, each has a row of numbers, and of so many the first ones.
PANELS, ROWS = 6, 10

# the space between panels, and the characters of a name by the number of columns
_GAP, _NAMES = 9, (50, 20, 10)


def plot_answer(records: Records, quantity: Quantity | None = None) -> tuple[Figure, Axes]:
    """Draws the estimate of each target over the epochs, with the last one and its verdict as the title.

    A panel has the estimate with its 95 % interval, the reference's own value, dashed, and the truth where labels were
    compared. The verdict is a word on a colour; on white, with a question mark, where something speaks against the estimate.
    All panels have the same scales.

    For curves of more than six sets there is no room: each of the first ten has a row with its last estimate, on one scale,
    and a line says how many are left out and where they are.

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
    has_accuracy = any(one.estimates.get("accuracy") for record in records for one in record.targets.values())
    chosen: Quantity = ("accuracy" if has_accuracy else "loss") if quantity is None else quantity
    check_choice("quantity", chosen, QUANTITIES)
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure((card.WIDTH / 100, card.HEIGHT / 100), dpi=100 * card.SCALE)
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, card.WIDTH), ylim=(0, card.HEIGHT))
    ax.set_axis_off()
    if len(targets) > PANELS:
        draw_rows(ax, records, targets[:ROWS], len(targets[ROWS:]), chosen)
    else:
        _draw_panels(ax, records, targets, chosen)
    card.explain(ax, records[-1].reference.name)
    return figure, ax


def _draw_panels(ax: Axes, records: Records, targets: list[str], quantity: Quantity) -> None:
    """A panel for each set: up to three in one row, four in two of two, more in two of three."""
    columns = 2 if len(targets) == 4 else min(len(targets), 3)
    rows = -(-len(targets) // columns)
    lines = 1 if columns == rows == 2 else 2
    wide, tall = (card.WIDTH - card.LEFT - card.RIGHT + _GAP) / columns, (card.HEIGHT - card.BOTTOM + _GAP) / rows
    ax.text(9, (card.BOTTOM + card.HEIGHT) / 2, quantity, rotation=90, ha="center", va="center", size=card.SMALL)
    first, last = records[0].epoch, records[-1].epoch
    room = max(0.03 * (last - first), 0.1)
    scales = (first - room, last + room), card.values_shown(records, targets, quantity)
    found = card.last_answers(records, targets, _NAMES[columns - 1])
    whole = [epoch for epoch in card.places(8 // columns, scales[0]) if epoch == round(epoch)]
    for number, target in enumerate(targets):
        row, column = divmod(number, columns)
        corner = card.LEFT + column * wide, card.HEIGHT - (row + 1) * tall + _GAP
        panel = card.Frame(ax, *corner, wide - _GAP, tall - _GAP - card.BAR - card.LINE * lines, *scales)
        _write_title(panel, found[target], quantity, lines)
        panel.scale(whole, card.places(2 + 3 // rows, scales[1]), number + columns >= len(targets), column == 0)
        _draw_elements(panel, records, target, quantity)
    ax.text(3, card.BOTTOM - 12, "epoch", size=card.SMALL)


def _write_title(panel: card.Frame, found: SetAnswer, quantity: Quantity, lines: int) -> None:
    """A bar with the name and the verdict, and the values below it."""
    bar, left, right = panel.bottom + panel.height + card.LINE * lines + 1, panel.left + 3, panel.left + panel.width - 3
    card.write_bar(panel.ax, panel.left, panel.left + panel.width, bar, found)
    first, *rest = [of for of in dict.fromkeys((quantity, *SHOWN)) if of in found.estimates] or [quantity]
    wide = lines > 1 and panel.width > 150 and found.estimates  # elsewhere the axis alone says what the first value is
    value = f"{first} {found.value(first)}" if wide else found.value(first) or "no estimate yet"
    used = card.write(panel.ax, left, right, bar - card.LINE + 2, value, weight="bold")
    for of in rest:
        if lines > 1:
            card.write(panel.ax, left, right, bar - 2 * card.LINE + 2, f"{of} {found.value(of)}")
        else:
            text = f"{of} {said(of, found.estimates[of][1].value)}"
            card.write(panel.ax, left + 6 + used, right, bar - card.LINE + 2, text, at_right=True)


def _draw_elements(panel: card.Frame, records: Records, target: str, quantity: Quantity) -> None:
    """The estimate, its interval, the reference and the truth."""
    at, found = panel.x(epochs(records)), card.estimates_on(records, target, quantity)
    values, low, high = (
        series(None if one is None else getattr(one, name) for one in found) for name in ("value", "low", "high")
    )
    if not np.isnan(low).all():
        look: dict[str, Any] = {"color": ESTIMATES[HEADLINE].colour, "alpha": 0.25, "linewidth": 0, "gid": target}
        around = [at] if len(at) > 1 else [at - 4, at + 4]  # an area of one point is nothing
        bottom, top = (np.concatenate([panel.y(end)] * len(around)) for end in (low, high))
        panel.ax.fill_between(np.concatenate(around), bottom, top, label="95 % interval", **look)
    for name, label, line in (
        (TRIVIAL, "reference", series(record.reference.labelled(quantity) for record in records)),
        (HEADLINE, "estimate", values),
        (ACTUAL, "truth", series(one.labelled(quantity) for one in on_set(records, target))),
    ):
        known, style = np.isfinite(line), ESTIMATES[name]
        if known.any():
            look = {"color": style.colour, "linestyle": style.line, "linewidth": 1.1, "gid": target, "markersize": 3}
            look["marker"] = "o" if known.sum() == 1 else ""  # a line of one point is nothing
            panel.ax.plot(at[known], panel.y(line[known]), label=label, **look)

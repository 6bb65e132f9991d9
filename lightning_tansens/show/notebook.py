"""What a notebook shows of a monitor: a table of the sets, each with its course over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lightning_tansens.record import Estimate, Quantity, Record
from lightning_tansens.show.figures.style import ESTIMATES, VERDICTS
from lightning_tansens.show.keys import ACTUAL, HEADLINE, TRIVIAL
from lightning_tansens.show.words import answer, answer_rows, headline, quantities_of

#: The size of a course in pixels.
WIDTH, HEIGHT = 140, 32

_CELL = "style='text-align:left;white-space:nowrap'"


def to_html(history: Sequence[Record]) -> str:
    """Returns a small table in HTML, from the records alone.

    Args:
        history: The records of a monitor.

    Returns:
        A row for each set: its accuracy and loss with their intervals, the verdict, what speaks against them, and how the
        estimate went over the epochs, with its interval, the reference (dashed) and the truth (black) where it is known.
        Before the first measurement, a sentence.

    Example:
        >>> to_html([])
        '<p>TangentSensitivityMonitor: nothing is measured yet; the first measurement comes after an epoch.</p>'

    """
    if not history:
        return "<p>TangentSensitivityMonitor: nothing is measured yet; the first measurement comes after an epoch.</p>"
    last, quantity = history[-1], next(iter(quantities_of(history)), "loss")
    rows = answer_rows(last)
    course = f"{quantity} over the epochs"
    head = "".join(f"<th {_CELL}>{escape(heading)}</th>" for heading in (*rows[0], course))
    body = ""
    for row, name in zip(rows, ("", *last.targets), strict=True):
        cells = {heading: escape(text) for heading, text in row.items()}
        if name and cells.get("verdict"):
            mark = VERDICTS[answer(last, name).kind]
            look = f"background:{mark.colour};color:{mark.ink};padding:1px 6px;border-radius:3px"
            cells["verdict"] = f"<span style='{look}'>{cells['verdict']}</span>"
        drawn = _course(history, name, quantity) if name else ""
        body += "<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in (*cells.values(), drawn)) + "</tr>"
    return f"<table><caption>after epoch {last.epoch}</caption><tr>{head}</tr>{body}</table>"


def _course(history: Sequence[Record], name: str, quantity: Quantity) -> str:
    """A line for the estimate, the reference and the truth, and an area for the interval, as SVG."""
    shown = [record for record in history if name in record.targets]
    found = [of[1] if (of := headline(record.targets[name], quantity)) else None for record in shown]
    lines = {
        TRIVIAL: [record.reference.labelled(quantity) for record in shown],
        HEADLINE: [one and one.value for one in found],
        ACTUAL: [record.targets[name].labelled(quantity) for record in shown],
    }
    known = [value for values in lines.values() for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)

    def point(place: int, value: float) -> str:
        x = WIDTH * place / max(len(shown) - 1, 1)
        y = HEIGHT - 2 - (HEIGHT - 4) * (min(max(value, low), high) - low) / ((high - low) or 1)
        return f"{x:.1f},{y:.1f}"

    parts = []
    ranges = [(place, one) for place, one in enumerate(found) if one is not None and _has_range(one)]
    if ranges:
        area = [point(place, one.low or 0.0) for place, one in ranges]
        area += [point(place, one.high or 0.0) for place, one in reversed(ranges)]
        parts.append(f"<polygon points='{' '.join(area)}' fill='{ESTIMATES[HEADLINE].colour}' opacity='0.25'/>")
    for of, values in lines.items():
        points = " ".join(point(place, value) for place, value in enumerate(values) if value is not None)
        dashes = " stroke-dasharray='4 3'" if of == TRIVIAL else ""
        parts.append(f"<polyline points='{points}' fill='none' stroke='{ESTIMATES[of].colour}'{dashes}/>" if points else "")
    return f"<svg width='{WIDTH}' height='{HEIGHT}' style='background:white'>{''.join(parts)}</svg>"


def _has_range(one: Estimate) -> bool:
    return one.low is not None and one.high is not None

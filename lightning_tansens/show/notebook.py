"""Shows a monitor in a notebook: a table of the sets and a picture of the run."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from io import BytesIO

from lightning_tansens.record import Record
from lightning_tansens.show.figures.answer import plot_answer
from lightning_tansens.show.figures.card import WIDTH
from lightning_tansens.show.figures.style import VERDICTS
from lightning_tansens.show.words import answer, answer_rows

_CELL = "style='text-align:left;white-space:nowrap'"

# remarks are long, so that they are wrapped
_LOOK = {"remarks": "style='text-align:left;min-width:20em'"}


def to_html(records: Sequence[Record]) -> str:
    """Returns HTML, from the records of a monitor alone.

    Returns:
        A table with a row for each set: its accuracy and loss with their intervals, the verdict, and what speaks against
        them; with matplotlib, also the picture of :func:`~lightning_tansens.show.figures.plot_answer`. Before the first
        measurement, a sentence.

    Example:
        >>> to_html([])
        '<p>TangentSensitivityMonitor: nothing is measured yet; the first measurement comes after an epoch.</p>'
    """
    if not records:
        return "<p>TangentSensitivityMonitor: nothing is measured yet; the first measurement comes after an epoch.</p>"
    last = records[-1]
    rows = answer_rows(last)
    lines = ["".join(f"<th {_CELL}>{escape(heading)}</th>" for heading in rows[0])]
    for row, name in zip(rows, ("", *last.targets), strict=True):
        cells = {heading: escape(text) for heading, text in row.items()}
        if cells.get("verdict"):
            mark = VERDICTS[answer(last, name).kind]
            look = f"background:{mark.colour};color:{mark.ink};padding:1px 6px;border-radius:3px"
            cells["verdict"] = f"<span style='{look}'>{cells['verdict']}</span>"
        lines.append("".join(f"<td {_LOOK.get(heading, _CELL)}>{cell}</td>" for heading, cell in cells.items()))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    picture = _picture(records) if last.targets and find_spec("matplotlib") is not None else ""
    return f"<div><table><caption>after epoch {last.epoch}</caption>{body}</table>{picture}</div>"


def _picture(records: Sequence[Record]) -> str:
    file = BytesIO()
    plot_answer(records)[0].savefig(file, format="png")
    return f"<img width='{WIDTH}' src='data:image/png;base64,{b64encode(file.getvalue()).decode()}'/>"

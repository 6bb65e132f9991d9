"""The interface of writers, which send things to loggers; each kind of logger has a file of its own."""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from textwrap import wrap
from typing import Any

from torch import Tensor

from lightning_tansens.show.figures.canvas import Figure
from lightning_tansens.show.layout import Layout

#: Letters in a line of a table's cell.
LONGEST_LINE = 21


class Writer:
    """Sends scalars to a logger and drops everything else; a subclass overrides what its logger can take.

    To support another logger, subclass this and register it: ``writer_of.register(MyLogger, MyWriter)``.
    """

    #: Whether tables are shown in a narrow column, in which many columns break every word.
    narrow_tables = False

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    @property
    def takes_figures(self) -> bool:
        """Whether :meth:`figure` is overridden, so that it shows or keeps something."""
        return type(self).figure is not Writer.figure

    def void(self, from_step: int) -> None:
        """Removes what an interrupted process had sent for this step and later ones."""

    def begin(self, compared: Sequence[str] = ()) -> None:
        """Prepares for the first measurement, now that it is known which of the keys for :meth:`compare` there are."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Sends scalars by key, all at once."""
        self.logger.log_metrics(dict(values), step)

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Sends a distribution: one number per sample, shape (N,)."""

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """Sends a figure of matplotlib."""

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Sends a text."""

    def table(self, tag: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Sends a table, rows with the same keys; as a text unless overridden."""
        self.text(tag, markdown_table(rows), step)

    def layout(self, layout: Layout) -> None:
        """Sends the grouping of scalars into charts."""

    def compare(self, keys: Sequence[str], hparams: Mapping[str, Any] | None) -> None:
        """Names the scalars by which runs are compared, as far as they are known before the first step.

        The user's hyperparameters are logged by Lightning right after; None where it logs none.
        """


@singledispatch
def writer_of(logger: Any) -> Writer:
    """Returns the writer for a logger; one that takes nothing for an unknown kind."""
    return Writer(logger)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes rows as a table in Markdown.

    Example:
        >>> print(markdown_table([{"name": "a", "MAE": 0.12345}]))
        | name | MAE |
        |---|---|
        | a | 0.1235 |
    """
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(map(_cell, row.values())) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    # a long cell would leave the others no room
    return "<br>".join(wrap(text, LONGEST_LINE, break_long_words=False)).replace("|", "\\|")

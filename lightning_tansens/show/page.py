"""Sends scalars, charts, tables and pictures of one run to its loggers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_tansens.record import Record
from lightning_tansens.show.figures.answer import plot_answer
from lightning_tansens.show.keys import Keys
from lightning_tansens.show.layout import compared_keys, make_layout
from lightning_tansens.show.loggers import Writer
from lightning_tansens.show.options import Display
from lightning_tansens.show.pictures import ShownSamples, draw_figures
from lightning_tansens.show.scorecard import BRIEF, Scorecard
from lightning_tansens.show.words import answer_rows, describe

#: So many epochs are overlaid in a figure of distributions; more than that are thinned out.
EPOCHS_SHOWN = 8

#: One number per sample, shape (N,), by set, measure and part; the part "" is the whole.
Distributions = Mapping[str, Mapping[str, Mapping[str, Tensor]]]


@dataclass(eq=False)
class Page:
    """Sends what the user has chosen to see, on the process that writes; elsewhere it has no writers and does nothing.

    A writer that fails for want of space or of a connection is switched off with one warning, and the run goes on.
    """

    display: Display
    keys: Keys
    writers: Sequence[Writer]
    explained: Sequence[object] = ()  #: The measures and estimators, which are described by their docstrings.
    correlated: bool = False  #: Whether correlations with the gap are recorded.
    folder: Path | None = None  #: Where the run keeps files; None for nowhere.
    strict: bool = False  #: Whether a writer that fails raises instead.
    #: Leaves out of a record what loggers are not sent: charts and figures of all estimates are without it.
    brief: Callable[[Record], Record] = lambda record: record

    def __post_init__(self) -> None:
        self._working = list(self.writers)
        self._begun = time.perf_counter()
        self._drawing = 0.0
        self._shown = False
        self._compared: Callable[..., list[str]] | None = None
        self._last: Mapping[str, ShownSamples] | None = None  # of a measurement that has not been drawn yet
        self._nodes: dict[int, dict[str, Tensor]] = {}

    def compare(
        self, targets: Sequence[str], estimators: Sequence[str], hparams: Mapping[str, Any] | None, labelled: bool
    ) -> None:
        """Tells the loggers by which values to compare runs, before Lightning sends the hyperparameters, if it does."""
        if self.display.layout:
            self._compared = partial(compared_keys, targets, estimators, self.keys, labelled)
            compared = self._compared()
            self._send(lambda writer: writer.compare(compared, hparams))

    def resume(self, from_step: int) -> None:
        """Removes what an interrupted process had sent, before a run goes on from a checkpoint at its next step."""
        self._send(lambda writer: writer.void(from_step))

    def show(
        self,
        record: Record,
        records: Sequence[Record],
        distributions: Distributions | None = None,
        samples: Mapping[str, ShownSamples] | None = None,
    ) -> None:
        """Sends everything of a measurement, the last one of ``records``, except its scalars."""
        if not self._working:
            return
        if not self._shown:
            self._shown = True
            self._begin(self.brief(record))
        if self.display.texts and record.targets:
            self._send(lambda writer: writer.table(self.keys.answer, answer_rows(record), record.step))
        if self._draws and record.targets:
            figure = plot_answer(records)[0]
            self._send(lambda writer: writer.figure(self.keys.answer, figure, record.step))
        for set_name, measures in (distributions or {}).items() if self.display.histograms else ():
            for measure, parts in measures.items():
                for part, numbers in parts.items():
                    tag = self.keys.value(f"{measure}_histogram", set_name, part)
                    self._send(lambda writer: writer.histogram(tag, numbers, record.step))  # noqa: B023  (called at once)
        self._last = samples or {}
        self._keep_nodes(record.epoch, distributions or {})
        if self._drawing <= self.display.figure_time * (time.perf_counter() - self._begun):
            self._draw(records, self._last)

    def scalars(self, record: Record, scalars: Mapping[str, float]) -> None:
        """Sends values by key to each logger in one call; last of all, where one of them is how long the rest has taken."""
        if scalars:
            self._send(lambda writer: writer.scalars(scalars, record.step))

    def finish(self, records: Sequence[Record]) -> None:
        """Sends what is known at the end: how good the estimates were, and the last figures."""
        if self._last is not None:
            self._draw(records, self._last)
        if not records:
            return
        scorecard = Scorecard.from_records(records)
        rows, brief = scorecard.to_rows(), scorecard.to_rows(BRIEF)
        if rows and self.display.texts:
            tag, step = self.keys.value("scorecard"), records[-1].step
            self._send(lambda writer: writer.table(tag, brief if writer.narrow_tables else rows, step))
        if rows and self.scorecard_file is not None:
            self.scorecard_file.parent.mkdir(parents=True, exist_ok=True)
            scorecard.to_csv(self.scorecard_file)

    @property
    def scorecard_file(self) -> Path | None:
        """Where :meth:`finish` writes the scorecard as CSV, if the truth is known; None for nowhere."""
        return None if self.folder is None else self.folder / f"{self.keys.prefix.replace('/', '_')}_scorecard.csv"

    @property
    def notes(self) -> list[str]:
        """What to tell the user of things that are not shown."""
        misses = self.display.figure_time and not self._draws and any(writer.takes_figures for writer in self._working)
        return ['no figures are drawn, as matplotlib is missing; pip install "lightning-tansens[figures]"'] if misses else []

    @property
    def _draws(self) -> bool:
        return bool(self.display.figure_time) and find_spec("matplotlib") is not None

    def _send(self, call: Callable[[Writer], None]) -> None:
        for writer in list(self._working):
            try:
                call(writer)
            except OSError as error:
                if self.strict:
                    raise
                self._working.remove(writer)
                rank_zero_warn(
                    f"TangentSensitivityMonitor: {type(writer).__name__} failed and is switched off; the run goes on: "
                    f"{error}"
                )

    def _begin(self, record: Record) -> None:
        layout = make_layout(record, self.keys, self.correlated) if self.display.layout else None
        described = "\n\n".join(map(describe, self.explained)) if self.display.texts else ""
        compared = [] if self._compared is None else self._compared(record)
        self._send(lambda writer: writer.begin(compared))
        if layout:
            self._send(lambda writer: writer.layout(layout))
        if described:
            self._send(lambda writer: writer.text(self.keys.value("measures"), described, record.step))

    def _keep_nodes(self, epoch: int, distributions: Distributions) -> None:
        found = {name: of["active_nodes"].get("") for name, of in distributions.items() if "active_nodes" in of}
        whole = {name: numbers for name, numbers in found.items() if numbers is not None}
        if whole and self.display.figure_time:
            self._nodes[epoch] = whole
        if len(self._nodes) > 2 * EPOCHS_SHOWN:
            self._nodes = {epoch: self._nodes[epoch] for epoch in list(self._nodes)[::2]}

    def _draw(self, records: Sequence[Record], samples: Mapping[str, ShownSamples]) -> None:
        if not self._draws or not self._working:
            return
        start = time.perf_counter()
        drawn = [self.brief(record) for record in records]
        for tag, figure in draw_figures(drawn, self._nodes_shown(), samples, self.display.num_images, self.keys):
            self._send(lambda writer: writer.figure(tag, figure, records[-1].step))  # noqa: B023
        self._last = None
        self._drawing += time.perf_counter() - start

    def _nodes_shown(self) -> dict[int, dict[str, Tensor]]:
        """Those of evenly spaced epochs, the last one among them."""
        epochs = list(self._nodes)
        spacing = -(-len(epochs) // EPOCHS_SHOWN) or 1
        return {epoch: self._nodes[epoch] for epoch in sorted(epochs[::-1][::spacing])}

"""The page of one run: what its loggers are sent beside scalars."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from lightning_tansens.estimators.trust import Reason
from lightning_tansens.metrics.base import Measure
from lightning_tansens.monitor.report import Report
from lightning_tansens.monitor.sets import MeasuredSet
from lightning_tansens.show.keys import Keys
from lightning_tansens.show.layout import make_layout
from lightning_tansens.show.loggers import Writer
from lightning_tansens.show.options import Display
from lightning_tansens.show.pictures import draw_figures
from lightning_tansens.show.scorecard import Scorecard
from lightning_tansens.show.texts import describe

#: So many epochs are overlaid in a figure of distributions; more than that are thinned out.
EPOCHS_SHOWN = 8


class Page:
    """Sends what the user has chosen to see, on the process that writes.

    Args:
        display: What is shown.
        keys: How the values are named.
        writers: Where it is sent.
        measures: What is measured.
        correlated: Whether correlations with the gap are logged.
        folder: Where the run keeps files; None for nowhere.

    """

    def __init__(
        self,
        display: Display,
        keys: Keys,
        writers: Sequence[Writer],
        measures: Sequence[Measure] = (),
        correlated: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._folder = folder
        self._doubts: dict[str, tuple[Reason, ...]] = {}
        self._measures, self._correlated = measures, correlated
        self._display, self._keys, self._writers = display, keys, writers
        self._begun = time.perf_counter()
        self._drawing = 0.0
        self._shown = False
        self._last: Report | None = None  # what has not been drawn yet
        self._nodes: dict[int, dict[str, Tensor]] = {}

    def show(self, report: Report, history: Sequence[Mapping[str, float]], sets: Sequence[MeasuredSet]) -> None:
        """Sends what there is to see of a measurement.

        Args:
            report: Its values and distributions.
            history: The rows of all measurements, this one at the end.
            sets: What was measured.

        """
        if not self._writers:
            return
        step = int(history[-1]["step"])
        if not self._shown:
            self._shown = True
            self._begin(report, step)
        for writer in self._writers:
            if self._display.histograms:
                for tag, numbers in report.histograms.items():
                    writer.histogram(tag, numbers, step)
            if self._display.layout:
                for key, value in report.scalars.items():
                    error = report.scalars.get(self._keys.stderr(key))
                    if error is not None:
                        writer.band(key, value - error, value + error, step)
        self._last, self._doubts = report, report.doubts
        self._keep_nodes(int(history[-1]["epoch"]), report)
        if self._drawing <= self._display.figure_time * (time.perf_counter() - self._begun):
            self._draw(report, history, sets)

    def finish(self, history: Sequence[Mapping[str, float]], sets: Sequence[MeasuredSet], scorecard: Scorecard) -> None:
        """Sends what is known at the end: how good the estimates were, whether to trust them, the last figures.

        Args:
            history: The rows of all measurements.
            sets: What was measured.
            scorecard: How good the estimates were, where the truth is known.

        """
        if self._last is not None:
            self._draw(self._last, history, sets)
        if not history:
            return
        step = int(history[-1]["step"])
        scores = scorecard.to_rows()
        trust = [
            {"estimate": key, "trusted": not reasons, "doubts": "; ".join(reason.value for reason in reasons)}
            for key, reasons in self._doubts.items()
        ]
        for writer in self._writers if self._display.texts else ():
            for name, rows in (("scorecard", scores), ("trust", trust)):
                if rows:
                    writer.table(self._keys.value(name), rows, step)
        if scores and self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            scorecard.to_csv(self._folder / f"{self._keys.prefix.replace('/', '_')}_scorecard.csv")

    def _begin(self, report: Report, step: int) -> None:
        layout = make_layout(report.scalars, self._keys, self._correlated) if self._display.layout else {}
        described = [describe(measure.key, measure) for measure in self._measures] if self._display.texts else []
        for writer in self._writers:
            if layout:
                writer.layout(layout)
            if described:
                writer.text(self._keys.value("measures"), "\n\n".join(described), step)

    def _keep_nodes(self, epoch: int, report: Report) -> None:
        start = self._keys.value("active_nodes_histogram") + "/"
        found = {tag.removeprefix(start): numbers for tag, numbers in report.histograms.items() if tag.startswith(start)}
        whole = {name: numbers for name, numbers in found.items() if "/" not in name}
        if whole and self._display.figure_time:
            self._nodes[epoch] = whole
        if len(self._nodes) > 2 * EPOCHS_SHOWN:
            self._nodes = {epoch: self._nodes[epoch] for epoch in list(self._nodes)[::2]}

    def _draw(self, report: Report, history: Sequence[Mapping[str, float]], sets: Sequence[MeasuredSet]) -> None:
        if not self._display.figure_time or find_spec("matplotlib") is None:
            return
        start = time.perf_counter()
        for tag, figure in draw_figures(report, history, sets, self._nodes_shown(), self._display.num_images, self._keys):
            for writer in self._writers:
                writer.figure(tag, figure, int(history[-1]["step"]))
        self._last = None
        self._drawing += time.perf_counter() - start

    def _nodes_shown(self) -> dict[int, dict[str, Tensor]]:
        """Those of evenly spaced epochs, the last one among them."""
        epochs = list(self._nodes)
        spacing = -(-len(epochs) // EPOCHS_SHOWN) or 1
        return {epoch: self._nodes[epoch] for epoch in sorted(epochs[::-1][::spacing])}

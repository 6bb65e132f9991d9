"""Comet."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import CometLogger
from torch import Tensor

from lightning_tansens.show.figures.canvas import Figure
from lightning_tansens.show.loggers.base import Writer, writer_of


@writer_of.register(CometLogger)
class CometWriter(Writer):
    """Logs to an experiment; the table of experiments can be sorted by every scalar's last value as it is."""

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        self.logger.experiment.log_histogram_3d(values.numpy(), tag, step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self.logger.experiment.log_figure(tag, figure, step=step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        self.logger.experiment.log_text(markdown, step, {"tag": tag})

    def table(self, tag: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        cells = [list(row.values()) for row in rows]
        self.logger.experiment.log_table(f"{tag.replace('/', '_')}.csv", cells, headers=list(rows[0]))

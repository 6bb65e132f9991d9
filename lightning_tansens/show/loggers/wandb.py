"""Weights & Biases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from lightning_tansens.show.figures.canvas import Figure
from lightning_tansens.show.loggers.base import Writer, writer_of


@writer_of.register(WandbLogger)
class WandbWriter(Writer):
    """Logs to a run; its table of runs can be sorted by every scalar's last value as it is."""

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        import wandb

        self.logger.log_metrics({tag: wandb.Histogram(np_histogram=np.histogram(values.numpy(), bins=64))}, step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self.logger.log_image(tag, [figure], step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        self.logger.log_text(tag, columns=["text"], data=[[markdown]], step=step)

    def table(self, tag: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        self.logger.log_table(tag, columns=list(rows[0]), data=[list(row.values()) for row in rows], step=step)

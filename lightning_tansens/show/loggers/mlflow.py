"""MLflow."""

import numpy as np
from lightning.pytorch.loggers import MLFlowLogger
from torch import Tensor

from lightning_tansens.show.figures.canvas import Figure
from lightning_tansens.show.loggers.base import Writer, writer_of


@writer_of.register(MLFlowLogger)
class MLFlowWriter(Writer):
    """Keeps artifacts of a run; its table of runs can be sorted by every scalar's last value as it is."""

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Keeps counts and edges, for which MLflow has no picture of its own."""
        counts, edges = np.histogram(values.numpy(), bins=64)
        kept = {"step": step, "counts": counts.tolist(), "edges": edges.tolist()}
        self.logger.experiment.log_dict(self.logger.run_id, kept, f"{tag}/{step:09d}.json")

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self.logger.experiment.log_figure(self.logger.run_id, figure, f"{tag}/{step:09d}.png")

    def text(self, tag: str, markdown: str, step: int) -> None:
        self.logger.experiment.log_text(self.logger.run_id, markdown, f"{tag}.md")

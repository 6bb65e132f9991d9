"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.logger import _convert_params, _flatten_dict, _sanitize_params
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from lightning_tansens.show.loggers.base import Layout, Writer, markdown_table, writer_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@writer_of.register(TensorBoardLogger)
class TensorBoardWriter(Writer):
    """Writes event files."""

    takes_figures = True

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        self.logger.experiment.add_histogram(tag, values, step)

    def band(self, key: str, low: float, high: float, step: int) -> None:
        """Writes the two scalars that a chart of the kind "Margin" needs beside its value."""
        self.logger.experiment.add_scalar(f"{key}_lower", low, step)
        self.logger.experiment.add_scalar(f"{key}_upper", high, step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        # `close` is for figures that pyplot knows
        self.logger.experiment.add_figure(tag, figure, step, close=False)

    def text(self, tag: str, markdown: str, step: int) -> None:
        self.logger.experiment.add_text(tag, markdown, step)

    def table(self, tag: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        self.text(tag, markdown_table(rows), step)

    def layout(self, layout: Layout) -> None:
        self.logger.experiment.add_custom_scalars(layout)

    def compare(self, keys: Sequence[str], hparams: Mapping[str, Any] | None) -> None:
        """Names the scalars as metrics in the HPARAMS tab, whose rows are sorted by their last values.

        TensorBoard keeps the first such list of a run, and Lightning's own has ``hp_metric`` alone, so this one comes first.
        """
        # without a hyperparameter the tab stays empty, so that the run's folder stands for them
        given = {"run": Path(self.logger.log_dir).name} if hparams is None else dict(hparams)
        params = _sanitize_params(_flatten_dict(_convert_params(given)))
        metrics = dict.fromkeys([*(["hp_metric"] if hparams is not None else []), *keys], 0)
        experiment, start, _ = hparams_summaries({name: _plain(value) for name, value in params.items()}, metrics)
        writer = self.logger.experiment._get_file_writer()
        writer.add_summary(experiment)
        if hparams is None:  # Lightning starts no session then
            writer.add_summary(start)


def _plain(value: Any) -> Any:
    """What the event file can hold: numbers, booleans and text; the rest as text."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)

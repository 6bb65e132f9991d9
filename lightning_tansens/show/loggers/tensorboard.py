"""TensorBoard."""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.utilities.logger import _convert_params, _flatten_dict, _sanitize_params
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout as LayoutOfCharts
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from lightning_tansens.show.figures.canvas import Figure
from lightning_tansens.show.layout import Layout
from lightning_tansens.show.loggers.base import Writer, writer_of

#: How the names of our event files end.
SUFFIX = ".tansens"

#: TensorBoard keeps the first list of compared scalars in a run, and reads its files by their names: this one is the first.
_FIRST_FILE = "events.out.tfevents.0000000000.compared" + SUFFIX


class EventFile:
    """An event file beside Lightning's, written without a thread: what fails, fails here and at once.

    Lightning's own writer would be broken for good by our figure that the disk has no room for. The first event makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add_summary(self, summary: Summary, global_step: int | None = None, walltime: float | None = None) -> None:
        """Appends a summary, as :class:`torch.utils.tensorboard.FileWriter` does."""
        step = 0 if global_step is None else global_step
        self._append(Event(summary=summary, step=step, wall_time=walltime or time.time()))

    def events(self) -> Iterator[Event]:
        """Yields what is in the file, up to a record that was not finished."""
        return (Event.FromString(record) for record in RawEventFileLoader(str(self.path)).Load())

    def take_out(self, from_step: int) -> None:
        """Removes what belongs to a step or a later one, and the layout, which is sent again."""
        kept = EventFile(self.path.with_name(f".{self.path.name}.part"))
        kept.path.unlink(missing_ok=True)
        for event in self.events():
            layout = any(value.tag == CONFIG_SUMMARY_TAG for value in event.summary.value)
            if event.step < from_step and not layout:
                kept._append(event)
        os.replace(kept.path, self.path)

    def _append(self, event: Event) -> None:
        with self.path.open("ab") as file:
            writer = RecordWriter(file)
            if not file.tell() and not event.file_version:
                writer.write(Event(wall_time=event.wall_time, file_version="brain.Event:2").SerializeToString())
            writer.write(event.SerializeToString())


class _OwnWriter(SummaryWriter):
    """torch's writer, with a file of ours."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}{SUFFIX}"
        self._file = EventFile(folder / name)
        super().__init__(str(folder))

    def _get_file_writer(self) -> EventFile:
        return self._file


@writer_of.register(TensorBoardLogger)
class TensorBoardWriter(Writer):
    """Writes an event file of its own in the run's folder; where that is not a local one, it uses Lightning's writer."""

    narrow_tables = True

    def __init__(self, logger: TensorBoardLogger) -> None:
        super().__init__(logger)
        self._folder = None if "://" in logger.log_dir else Path(logger.log_dir)
        self._compared: tuple[Sequence[str], Mapping[str, Any] | None] | None = None

    @cached_property
    def _events(self) -> SummaryWriter:
        """The writer of what is ours."""
        if self._folder is None:
            remote: SummaryWriter = self.logger.experiment
            return remote
        self._folder.mkdir(parents=True, exist_ok=True)
        return _OwnWriter(self._folder)

    def void(self, from_step: int) -> None:
        """Takes out of our files what an interrupted process had written; Lightning's own file is left alone.

        What that one holds twice, TensorBoard leaves out itself if the logger was given a ``purge_step``.
        """
        for path in self._folder.glob(f"events.out.tfevents.*{SUFFIX}") if self._folder is not None else ():
            if path.name != _FIRST_FILE:
                EventFile(path).take_out(from_step)

    def begin(self, compared: Sequence[str] = ()) -> None:
        """Completes the list in the HPARAMS tab, and takes out what there is not, such as a regression's accuracy."""
        if self._compared is None:
            return
        (keys, hparams), self._compared = self._compared, None
        if not self.logger._default_hp_metric:
            self.logger.experiment.flush()
            self._list(compared or keys, hparams, postponed=True)
        elif compared and self._folder is not None:
            self._list(compared, hparams, instead_of=keys)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._events.add_scalar(key, value, step)

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        self._events.add_histogram(tag, values, step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        self._events.add_image(tag, _softened(np.asarray(canvas.buffer_rgba())[..., :3]), step, dataformats="HWC")

    def text(self, tag: str, markdown: str, step: int) -> None:
        self._events.add_text(tag, markdown, step)

    def layout(self, layout: Layout) -> None:
        """Adds charts to those that the user or another monitor has laid out: TensorBoard shows the last layout alone."""
        self.logger.experiment.flush()
        # the tab shows charts with bands from the last one to the first
        turned = {title: list(charts.items()) for title, charts in layout.items()}
        turned = {title: charts[::-1] if charts[0][1][0] == "Margin" else charts for title, charts in turned.items()}
        summary = custom_scalars({title: dict(charts) for title, charts in turned.items()})
        (sent,) = summary.value
        charts = LayoutOfCharts.FromString(sent.tensor.string_val[0])
        known = list(self._written(CONFIG_SUMMARY_TAG))
        if known:
            titles = {category.title for category in charts.category}
            others = LayoutOfCharts.FromString(known[-1].tensor.string_val[0]).category
            charts.category.extend(category for category in others if category.title not in titles)
            sent.tensor.string_val[0] = charts.SerializeToString()
        self._events._get_file_writer().add_summary(summary)

    def compare(self, keys: Sequence[str], hparams: Mapping[str, Any] | None) -> None:
        """Names the scalars as metrics in the HPARAMS tab, whose rows are sorted by their last values.

        Lightning's own list has ``hp_metric`` alone. With ``default_hp_metric=False`` users write a list of theirs when the
        training starts, so that ours waits for the first measurement and is added to theirs.
        """
        self._compared = keys, hparams
        if self.logger._default_hp_metric:
            self._list(keys, hparams)

    def _list(
        self,
        keys: Sequence[str],
        hparams: Mapping[str, Any] | None,
        postponed: bool = False,
        instead_of: Sequence[str] = (),
    ) -> None:
        # without a hyperparameter the tab stays empty, so that the run's folder stands for them
        given = {"run": Path(self.logger.log_dir).name} if hparams is None else dict(hparams)
        params = _sanitize_params(_flatten_dict(_convert_params(given)))
        # an event file holds numbers, booleans and text
        plain = {name: one if isinstance(one, (bool, int, float, str)) else str(one) for name, one in params.items()}
        metrics = dict.fromkeys([*([] if hparams is None or postponed else ["hp_metric"]), *keys], 0)
        experiment, start, _ = hparams_summaries(plain, metrics)
        # the list that TensorBoard shows so far
        shown = next(self._written(metadata.EXPERIMENT_TAG), None)
        listed = None if shown is None else metadata.parse_experiment_plugin_data(shown.metadata.plugin_data.content)
        if listed is not None:
            others = [info for info in listed.metric_infos if info.name.tag not in instead_of]
            known = {info.name.tag for info in others}
            del listed.metric_infos[:]
            own = metadata.parse_experiment_plugin_data(experiment.value[0].metadata.plugin_data.content)
            listed.metric_infos.extend([*others, *(info for info in own.metric_infos if info.name.tag not in known)])
            of_list = metadata.create_summary_metadata(HParamsPluginData(experiment=listed))
            experiment = Summary(value=[Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=of_list)])
        if self._folder is None:
            first = self.logger.experiment._get_file_writer()
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            first = EventFile(self._folder / _FIRST_FILE)
            first.path.unlink(missing_ok=True)
        first.add_summary(experiment)
        if hparams is None or (postponed and listed is None):  # Lightning starts no session then
            first.add_summary(start)

    def _written(self, tag: str) -> Iterator[Summary.Value]:
        """What the run's files hold of a tag, in TensorBoard's order."""
        for path in sorted(self._folder.glob("events.out.tfevents.*")) if self._folder is not None else ():
            for event in EventFile(path).events():
                yield from (value for value in event.summary.value if value.tag == tag)


def _softened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of each pixel and its next ones, shape (H, W, 3): TensorBoard shrinks a picture by leaving out pixels."""
    next_too = np.pad(image.astype(np.uint16), ((0, 1), (0, 1), (0, 0)), mode="edge")
    mean = (next_too[:-1, :-1] + next_too[1:, :-1] + next_too[:-1, 1:] + next_too[1:, 1:] + 2) // 4
    return mean.astype(np.uint8)

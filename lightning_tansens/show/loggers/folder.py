"""Files in a folder: for loggers that keep files, and for runs whose loggers take no figures."""

import re
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from lightning_tansens.show.figures.canvas import Figure
from lightning_tansens.show.loggers.base import Writer, writer_of

#: Where figures are kept within a run's folder.
FOLDER = "tansens_figures"

#: What some file system takes in no name.
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


class FolderWriter(Writer):
    """Keeps the latest figure, text and table of each tag, as files.

    Args:
        folder: Where they are kept; it is made when there is something to keep.
        logger: The logger that takes the scalars; None where another one does.
    """

    def __init__(self, folder: Path, logger: CSVLogger | None = None) -> None:
        super().__init__(logger)
        self.folder = folder

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if self.logger is not None:
            super().scalars(values, step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        figure.savefig(self._file(tag, "png"))

    def text(self, tag: str, markdown: str, step: int) -> None:
        self._file(tag, "md").write_text(markdown + "\n", encoding="utf-8")

    def _file(self, tag: str, ending: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{_UNSAFE.sub('_', tag)[:150]}.{ending}"


@writer_of.register(CSVLogger)
def _of_csv(logger: CSVLogger) -> Writer:
    return FolderWriter(Path(logger.log_dir) / FOLDER, logger)

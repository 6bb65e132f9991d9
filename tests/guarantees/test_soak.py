"""Five hundred epochs with everything switched on: nothing grows but the log.

Run: ``python -m pytest -m slow tests/guarantees/test_soak.py``.
"""

import ctypes
import gc
import os
import resource
import tracemalloc
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_tansens.show import Display
from tests.boring import BoringData, fit, make_monitor
from tests.guarantees.recording import every_measure

EPOCHS, SETTLED = 500, 100


class Watch(pl.Callback):
    """Notes, after each epoch, what the process holds."""

    def __init__(self, folder):
        self.folder, self.rows = folder, []

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch % 50 == 0:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is not held by anybody
            self.rows.append(
                {
                    "epoch": trainer.current_epoch,
                    "traced": tracemalloc.get_traced_memory()[0],
                    # a trace of each block that the history holds is the test's own
                    "resident": _resident() - tracemalloc.get_tracemalloc_memory(),
                    "files": len(os.listdir("/proc/self/fd")),
                    "hooks": sum(
                        len(hooks)
                        for module in pl_module.modules()
                        for name, hooks in vars(module).items()
                        if name.endswith("_hooks")
                    ),
                    "events": sum(path.stat().st_size for path in Path(self.folder).rglob("events*")),
                }
            )


def _resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_nothing_grows(tmp_path):
    monitor = make_monitor(
        measures=every_measure(),
        compare_with_labels=True,
        by_class=True,
        correlate_with_gap=True,
        on_failure="raise",
        display=Display(figure_time=0.05),
    )
    watch = Watch(tmp_path)
    save = ModelCheckpoint(tmp_path, save_last=True)
    tracemalloc.start()
    try:
        fit(
            watch,
            monitor,
            save,
            data=BoringData(validation=True),
            max_epochs=EPOCHS + 1,
            enable_checkpointing=True,
            logger=TensorBoardLogger(tmp_path),
            log_every_n_steps=1000,
        )
    finally:
        tracemalloc.stop()
    assert len(monitor.history) == EPOCHS + 1
    rows = {row["epoch"]: row for row in watch.rows}
    settled, last = rows[SETTLED], rows[EPOCHS]
    print(*watch.rows, sep="\n")
    assert last["hooks"] == settled["hooks"]
    assert last["files"] <= settled["files"]
    # the history is kept: its numbers, as Python objects in dicts
    history = 200 * sum(len(row) for row in monitor.history[SETTLED:])
    assert last["traced"] - settled["traced"] < history
    assert last["resident"] - settled["resident"] < history + 20 * 2**20
    assert_one_record_an_epoch(tmp_path, monitor.history)


def assert_one_record_an_epoch(folder, history):
    """The event file is in proportion: one record for each value and epoch, and once what is said once."""
    (file,) = Path(folder).rglob("events*")
    events = EventAccumulator(str(file), dict.fromkeys(("scalars", "histograms", "images", "tensors"), 0)).Reload()
    tags = events.Tags()
    for key in {key for row in history for key in row if "/" in key}:
        assert len(events.Scalars(key)) == sum(key in row for row in history)
    histograms = [tag for tag in tags["histograms"] if tag.startswith("tansens/")]
    assert histograms
    assert {len(events.Histograms(tag)) for tag in histograms} == {len(history)}
    assert all(len(events.Images(tag)) <= len(history) for tag in tags["images"])
    assert {len(events.Tensors(tag)) for tag in tags["tensors"] if "scalars__config" in tag or "measures" in tag} == {1}

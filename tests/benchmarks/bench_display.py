"""What the page costs beside the measurement: charts, bands, histograms and figures of an MLP 4×100 in TensorBoard.

Run it from the repository root; it prints a Markdown table:

    python -m tests.benchmarks.bench_display [--epochs 60] [--images 50000]

Each kind of display has a training of its own. Its epoch is the median over the epochs, without the monitor's hooks; the
monitor's time is the whole of its hooks, figures at the first and the last measurement among them.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import warnings

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import SimpleProfiler
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import Display, TangentSensitivityMonitor
from tests.benchmarks.bench_exact import INPUTS, OUTPUTS, mlp, table
from tests.benchmarks.bench_monitor import Net

#: What is displayed, from nothing to all of it at each measurement.
DISPLAYS = {
    "scalars": Display(layout=False, texts=False, histograms=False, figure_time=0),
    "and charts, bands, texts": Display(histograms=False, figure_time=0),
    "and histograms": Display(figure_time=0),
    "and figures, by default": Display(),
    "figures at each measurement": Display(figure_time=1),
}


def measure(name: str, display: Display, images: int, epochs: int) -> list[str]:
    """A row of the table."""
    train, test = (TensorDataset(torch.randn(n, INPUTS), torch.randint(OUTPUTS, (n,))) for n in (images, 2000))
    net = Net(mlp(INPUTS, 100, 100, 100, 100, OUTPUTS), 0.01)
    test_data = DataLoader(test, 1000)
    monitor = TangentSensitivityMonitor(test_data, compare_with_labels=True, verbose=False, display=display)
    profiler = SimpleProfiler()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[monitor],
            logger=TensorBoardLogger(folder),
            profiler=profiler,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(net, DataLoader(train, 64))
    hooks = [
        durations
        for action, durations in profiler.recorded_durations.items()
        if "TangentSensitivityMonitor" in action and action.endswith(("on_train_epoch_end", "on_train_end"))
    ]
    of_monitor, of_epochs = sum(map(sum, hooks)), statistics.median(net.epoch_seconds) * epochs
    return [name, f"{of_monitor / epochs:.3f} s", f"{of_epochs / epochs:.2f} s", f"{of_monitor / of_epochs:.1%}"]


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=50_000, help="training images of an epoch")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = [measure(name, display, arguments.images, arguments.epochs) for name, display in DISPLAYS.items()]
    table(f"What is shown, {arguments.epochs} epochs", ("shown", "monitor an epoch", "epoch", "share"), rows)


if __name__ == "__main__":
    main()

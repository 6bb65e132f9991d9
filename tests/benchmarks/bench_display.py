"""What the page costs beside the measurement: charts, histograms and figures of an MLP 4×100 in TensorBoard.

Run it from the repository root; it prints two Markdown tables:

    python -m tests.benchmarks.bench_display [--epochs 60] [--images 50000]

The first one has the milliseconds of processor time, the median of twenty, in which the picture of the unlabelled sets is
drawn and written, after 10 and after 200 epochs. In the second one each kind of display has a training of its own. Its
epoch is the median over the epochs, without the hooks of the monitor, whose time is the whole of its hooks, figures at the
first and the last measurement among them.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import SimpleProfiler
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import Display, TangentSensitivityMonitor
from lightning_tansens.record import Estimate, Record, SetRecord
from lightning_tansens.show.figures import plot_answer
from lightning_tansens.show.loggers import writer_of
from tests.benchmarks.bench_exact import INPUTS, OUTPUTS, mlp, table
from tests.benchmarks.bench_monitor import Net, quiet_trainer

#: What is displayed, from nothing to all of it at each measurement.
DISPLAYS = {
    "scalars": Display(layout=False, texts=False, histograms=False, figure_time=0),
    "and charts, tables": Display(histograms=False, figure_time=0),
    "and histograms": Display(figure_time=0),
    "and figures, by default": Display(),
    "figures at each measurement": Display(figure_time=1),
}


def run_of(sets: int, epochs: int) -> list[Record]:
    """Records of a run in which all there is to draw is known."""
    found = Estimate(0.5, low=0.4, high=0.6, verdict="worse")
    estimates = {"accuracy": {"estimate": found}, "loss": {"estimate": found}}
    targets = {f"set {i}": SetRecord(f"set {i}", loss=0.5, accuracy=0.5, estimates=estimates) for i in range(sets)}
    return [Record(epoch, epoch, SetRecord("val", loss=0.4, accuracy=0.6), targets) for epoch in range(epochs)]


def time_picture(sets: int, epochs: int, folder: Path) -> float:
    """The milliseconds in which the picture is drawn and written."""
    history, writer = run_of(sets, epochs), writer_of(TensorBoardLogger(folder, "", ""))
    seconds = []
    for step in range(23):
        start = time.process_time()
        writer.figure("picture", plot_answer(history)[0], step)
        seconds.append(time.process_time() - start)
    return 1e3 * statistics.median(seconds[3:])


def measure(name: str, display: Display, images: int, epochs: int) -> list[str]:
    """A row of the table."""
    train, test = (TensorDataset(torch.randn(n, INPUTS), torch.randint(OUTPUTS, (n,))) for n in (images, 2000))
    net = Net(mlp(INPUTS, 100, 100, 100, 100, OUTPUTS), 0.01)
    test_data = DataLoader(test, 1000)
    monitor = TangentSensitivityMonitor(test_data, compare_with_labels=True, verbose=False, display=display)
    profiler = SimpleProfiler()
    with tempfile.TemporaryDirectory() as folder:
        trainer = quiet_trainer(monitor, max_epochs=epochs, logger=TensorBoardLogger(folder), profiler=profiler)
        trainer.fit(net, DataLoader(train, 64))
    hooks = [
        durations
        for action, durations in profiler.recorded_durations.items()
        if "TangentSensitivityMonitor" in action and action.endswith(("on_train_epoch_end", "on_train_end"))
    ]
    of_monitor, of_epochs = sum(map(sum, hooks)), statistics.median(net.epoch_seconds) * epochs
    return [name, f"{of_monitor / epochs:.3f} s", f"{of_epochs / epochs:.2f} s", f"{of_monitor / of_epochs:.1%}"]


def main() -> None:
    """Parses the arguments and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=50_000, help="training images of an epoch")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            [str(sets), *(f"{time_picture(sets, epochs, Path(folder)):.0f} ms" for epochs in (10, 200))]
            for sets in (1, 2, 3, 5, 10)
        ]
    table("The picture of the unlabelled sets", ("sets", "after 10 epochs", "after 200 epochs"), rows)
    rows = [measure(name, display, arguments.images, arguments.epochs) for name, display in DISPLAYS.items()]
    table(f"What is shown, {arguments.epochs} epochs", ("shown", "monitor an epoch", "epoch", "share"), rows)


if __name__ == "__main__":
    main()

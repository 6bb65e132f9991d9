"""The benchmark: trains the networks of a matrix, measures them on every shifted set, and writes one CSV.

python example_projects/label_free_benchmark/main.py --config example_projects/label_free_benchmark/matrix.yaml

What is there already is kept, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import lightning.pytorch as pl
import torch
from images import Images, load_images
from jsonargparse import CLI
from measuring import COLUMNS, measure
from results import Set, open_table
from runs import Run
from shifts import shifted_sets
from torch.utils.data import Dataset
from training import REGIMES, BenchmarkClassifier, train


def benchmark(
    runs: list[Run],
    cifar10_dir: str = "data",
    mnist_dir: str = "data",
    download: bool = True,
    folder: Path = Path("benchmark_runs"),
    csv_file: Path | None = None,
    train_only: bool = False,
) -> None:
    """Trains and measures every network of the matrix.

    Args:
        runs: The matrix.
        cifar10_dir: Folder of CIFAR-10, as in the example cifar10.
        mnist_dir: Folder of MNIST.
        download: Whether to download what is not there.
        folder: Where weights and measurements are kept.
        csv_file: Where all measurements are written together, compressed if the name ends in .gz; None for benchmark.csv
            in that folder.
        train_only: Whether to leave the measuring to another call.

    """
    for run in runs:
        data = load_images(run.dataset, cifar10_dir if run.dataset == "cifar10" else mnist_dir, download, run.train_samples)
        sets = shifted_sets(data.test, run.samples, run.families)
        for seed in run.seeds:
            for step, seconds in steps(run, seed, data, {} if train_only else sets, folder / run.folder_of(seed)):
                print(f"{run.folder_of(seed)} {step}: {seconds:.0f} s", flush=True)
            gather(runs, folder, csv_file or folder / "benchmark.csv")


def steps(run: Run, seed: int, data: Images, sets: Mapping[Set, Dataset], folder: Path) -> Iterator[tuple[str, float]]:
    """Does what is not done yet of one network, and yields each step with the seconds; without sets it is only trained."""
    start = time.perf_counter()
    pl.seed_everything(seed, verbose=False)
    channels, size = data.train.images.shape[1], data.train.images.shape[-1]
    module = BenchmarkClassifier(run.network, channels, size, data.means, data.deviations, run.optimizer, run.learning_rate)
    if train(module, data, folder, seed, run.epochs, run.precision):
        yield "training", time.perf_counter() - start
    for regime in REGIMES if sets else ():
        path = folder / f"{regime}.csv"
        if not path.exists():
            module.load_state_dict(
                torch.load(folder / f"{regime}.ckpt", weights_only=True, map_location="cpu")["state_dict"]
            )
            yield (
                regime,
                measure(module, data, sets, run, path),
            )


def gather(runs: list[Run], folder: Path, csv_file: Path) -> None:
    """Writes all measurements that are there into one file."""
    csv_file.parent.mkdir(parents=True, exist_ok=True)
    with open_table(csv_file, "w") as gathered:
        writer = csv.writer(gathered)
        writer.writerow(["dataset", "network", "regime", "seed", *COLUMNS])
        for run in runs:
            for seed in run.seeds:
                for regime in REGIMES:
                    path = folder / run.folder_of(seed) / f"{regime}.csv"
                    if path.exists():
                        with path.open(newline="") as part:
                            rows = list(csv.reader(part))[1:]
                        writer.writerows([run.dataset, run.network, regime, seed, *row] for row in rows)


if __name__ == "__main__":
    sys.exit(CLI(benchmark))

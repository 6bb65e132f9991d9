"""Trains the networks of a matrix, one after the other; whatever is there already is kept."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
from images import DatasetName, load_images
from jsonargparse import auto_cli
from networks import NetworkName
from training import BenchmarkClassifier, train


@dataclass
class Run:
    """One network of the matrix.

    Args:
        dataset: What it is trained on.
        network: Its name.
        seeds: One training for each.
        epochs: The number of epochs at most.
        optimizer: "sgd" or "adam".
        learning_rate: The step size.
        samples: The number of samples of each shifted set.
        train_samples: The number of training images; None for all.

    """

    dataset: DatasetName
    network: NetworkName
    seeds: list[int]
    epochs: int
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    samples: int
    train_samples: int | None = None


def train_all(
    runs: list[Run], cifar10_dir: str = "data", mnist_dir: str = "data", download: bool = True, folder: Path = Path("runs")
) -> None:
    """Trains every network of the matrix.

    Args:
        runs: The matrix.
        cifar10_dir: Folder of CIFAR-10.
        mnist_dir: Folder of MNIST.
        download: Whether to download what is not there.
        folder: Where the weights are kept.

    """
    for run in runs:
        data = load_images(run.dataset, cifar10_dir if run.dataset == "cifar10" else mnist_dir, download, run.train_samples)
        for seed in run.seeds:
            start = time.perf_counter()
            pl.seed_everything(seed, verbose=False)
            channels, size = data.train.images.shape[1], data.train.images.shape[-1]
            module = BenchmarkClassifier(
                run.network, channels, size, data.means, data.deviations, run.optimizer, run.learning_rate
            )
            name = f"{run.dataset}_{run.network}_{seed}"
            train(module, data, folder / name, seed, run.epochs)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(auto_cli(train_all))

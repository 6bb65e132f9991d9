"""Trains the networks of a matrix and writes one file of outputs for each.

python example_projects/trajectory_benchmark/main.py --config example_projects/trajectory_benchmark/matrix.yaml

Networks whose file is there are left out, and an interrupted training goes on where it stopped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, get_args

from fitting import Run, fit
from image_sets import ImageName, image_data
from jsonargparse import CLI
from sets import Data
from table_sets import TableName, table_data


def main(
    runs: list[Run],
    outputs: Path = Path("trajectory_outputs"),
    checkpoints: Path = Path("trajectory_checkpoints"),
    cifar10_dir: str = "data",
    mnist_dir: str = "data",
    download: bool = True,
    employment: Path | None = None,
    california: Path | None = None,
    development_families: list[str] | None = None,
    networks: list[str] | None = None,
) -> None:
    """Trains every network that has no file yet.

    Args:
        runs: The matrix.
        outputs: Where the files are written.
        checkpoints: Where an interrupted training is kept.
        cifar10_dir: Folder of CIFAR-10, see the example cifar10.
        mnist_dir: Folder of MNIST.
        download: Whether to download images that are not there.
        employment: The file of persons, see the README; needed by the tables' networks alone.
        california: The file of districts.
        development_families: The families that were looked at during development; for the report alone.
        networks: The names of those to train; None for all.

    """
    for run in runs:
        file = outputs / f"{run.name}.npz"
        if file.exists() or (networks is not None and run.name not in networks):
            continue
        start = time.perf_counter()
        data = load(run, cifar10_dir, mnist_dir, download, employment, california)
        fit(run, data, checkpoints).save(file)
        (checkpoints / f"{run.name}.ckpt").unlink(missing_ok=True)
        print(f"{file}: {time.perf_counter() - start:.0f} s", flush=True)


def load(
    run: Run, cifar10_dir: str, mnist_dir: str, download: bool, employment: Path | None, california: Path | None
) -> Data:
    """Returns what a network is trained and measured on.

    Raises:
        ValueError: If there is no such data set.

    """
    name: Any = run.data
    if name in get_args(ImageName):
        return image_data(name, cifar10_dir, mnist_dir, download, run.train_samples, run.families)
    if name in get_args(TableName):
        return table_data(name, employment, california, run.split, run.train_samples, run.families)
    known = (*get_args(ImageName), *get_args(TableName))
    raise ValueError(f"data: expected one of {', '.join(known)}, but got {name!r}")


if __name__ == "__main__":
    sys.exit(CLI(main))

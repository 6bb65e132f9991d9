"""The headline under noise: where it cannot be seen in the outputs, and where it is stronger than a copy's.

Run it from the repository root; it prints two Markdown tables:

    python -m tests.benchmarks.bench_noise [--seeds 3]

Inputs of 20 independent normal columns belong to the class of the largest of three quadratic forms; targets get normal noise
after they are labelled, so that their inputs have the distribution of a wider draw. The other network classifies
scikit-learn's digits, pixels from 0 to 1; noise of 0.7 of their deviation, 0.26, is among the reference's copies.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import TangentSensitivityMonitor
from tests.benchmarks.bench_exact import mlp, table
from tests.benchmarks.bench_monitor import quiet_trainer

COLUMNS, CLASSES = 20, 3

#: Inputs and labels for the training, the reference and the targets.
Parts = list[tuple[Tensor, Tensor]]


class Net(pl.LightningModule):
    """A small classifier."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.network = mlp(*widths)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs.flatten(1))

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


def columns() -> Parts:
    """Draws rows of normal columns."""
    linear = torch.randn(COLUMNS, CLASSES)
    rows = [torch.randn(count, COLUMNS) for count in (4000, 1000, 1000)]
    return [(one, (one @ linear + one.square() @ linear.roll(1, 0) / 2).argmax(1)) for one in rows]


def digits() -> Parts:
    """Splits the digits."""
    images, labels = (torch.tensor(found) for found in load_digits(return_X_y=True))
    order = torch.randperm(len(labels)).split([900, 450, len(labels) - 1350])
    return [((images[part] / 16).float().unflatten(1, (1, 8, 8)), labels[part]) for part in order]


def run(
    make: Callable[[], Parts], noises: tuple[float, ...], widths: tuple[int, ...], epochs: int, seed: int
) -> list[list[float]]:
    """For each noise, the accuracy in truth, its estimate, and the ends of the interval."""
    pl.seed_everything(seed, verbose=False)
    train, reference, (inputs, labels) = make()
    targets = {str(noise): TensorDataset(inputs + noise * torch.randn(inputs.shape), labels) for noise in noises}
    monitor = TangentSensitivityMonitor(targets, compare_with_labels=True, verbose=False)
    loader = DataLoader(TensorDataset(*train), 64, shuffle=True)
    quiet_trainer(monitor, max_epochs=epochs).fit(Net(*widths), loader, DataLoader(TensorDataset(*reference), 256))
    found = [(monitor.records[-1].targets[name].accuracy, monitor.estimates[name].accuracy) for name in targets]
    return [[truth, estimate.value, estimate.low, estimate.high] for truth, estimate in found]


def main() -> None:
    """Parses the arguments and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    header = ("noise", "accuracy in truth", "estimate", "low", "high")
    cases = {
        "Normal columns": (columns, (0.0, 0.3, 0.6, 1.0), (COLUMNS, 100, 100, CLASSES), 12),
        "Digits": (digits, (0.0, 0.15, 0.3, 0.45, 0.6, 0.75), (64, 100, 100, 10), 30),
    }
    for name, (make, noises, widths, epochs) in cases.items():
        means = np.mean([run(make, noises, widths, epochs, seed) for seed in range(arguments.seeds)], 0)
        rows = [[f"{noise}", *(f"{value:.2f}" for value in row)] for noise, row in zip(noises, means)]
        table(f"{name}, means of {arguments.seeds} seeds", header, rows)


if __name__ == "__main__":
    main()

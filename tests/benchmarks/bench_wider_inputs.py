"""The headline where a shift cannot be seen: noise on independent Gaussian columns only makes them wider.

Run it from the repository root; it prints a Markdown table:

    python -m tests.benchmarks.bench_wider_inputs [--seeds 3]

Inputs of 20 independent normal columns belong to the class of the largest of three quadratic forms. Targets get normal noise
after they are labelled. Their inputs have the distribution of a wider draw, which a network classifies better, not worse.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import TangentSensitivityMonitor
from tests.benchmarks.bench_exact import mlp, table
from tests.benchmarks.bench_monitor import quiet_trainer

COLUMNS, CLASSES = 20, 3
NOISE = (0.0, 0.3, 0.6, 1.0)


class Net(pl.LightningModule):
    """A small classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.network: nn.Module = mlp(COLUMNS, 100, 100, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


def run(seed: int) -> list[tuple[float, float, float, float]]:
    """For each noise, the accuracy in truth, its estimate, and the ends of the interval."""
    pl.seed_everything(seed, verbose=False)
    linear = torch.randn(COLUMNS, CLASSES)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(count, COLUMNS)
        return inputs, (inputs @ linear + inputs.square() @ linear.roll(1, 0) / 2).argmax(1)

    train, reference, (inputs, labels) = draw(4000), draw(1000), draw(1000)
    targets = {str(noise): TensorDataset(inputs + noise * torch.randn(inputs.shape), labels) for noise in NOISE}
    monitor = TangentSensitivityMonitor(targets, compare_with_labels=True, verbose=False)
    loader = DataLoader(TensorDataset(*train), 64, shuffle=True)
    quiet_trainer(monitor, max_epochs=12).fit(Net(), loader, DataLoader(TensorDataset(*reference), 256))
    found = [(monitor.records[-1].targets[name].accuracy, monitor.estimates[name].accuracy) for name in targets]
    return [(truth, estimate.value, estimate.low, estimate.high) for truth, estimate in found]


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    means = np.mean([run(seed) for seed in range(arguments.seeds)], 0)
    rows = [[f"{noise}", *(f"{value:.2f}" for value in row)] for noise, row in zip(NOISE, means)]
    table(f"Means of {arguments.seeds} seeds", ("noise", "accuracy in truth", "estimate", "low", "high"), rows)


if __name__ == "__main__":
    main()

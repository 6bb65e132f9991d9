"""What the field's estimators and the calibrated one cost: each alone, and in the monitor.

Run it from the repository root; it prints Markdown tables:

    python -m tests.benchmarks.bench_estimators [--samples 1024] [--repeats 5]

Alone, an estimator gets the outputs of two sets and makes its estimate; the unit is the forward pass of the same samples
through a small CNN. In the monitor the unit is a measurement without estimators; times are the best of several.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import Display, TangentSensitivityMonitor
from lightning_tansens.estimators import Calibrated, Estimator, Outputs, SetSummary, Trajectory, default_estimators
from tests.benchmarks.bench_exact import INPUTS, OUTPUTS, best_of, mlp, table
from tests.benchmarks.bench_monitor import Net, quiet_trainer

FEATURES = 256


def convolutional() -> nn.Module:
    """A small CNN for images of CIFAR-10's size."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, OUTPUTS)).eval()


def summary_of(samples: int, classes: int, labelled: bool) -> SetSummary:
    """A set with features and with outputs at three earlier measurements."""
    outputs, earlier = 3 * np.random.randn(samples, classes), Trajectory()
    for _ in range(3):
        earlier = earlier.updated(Outputs.of(outputs + np.random.randn(samples, classes)))
    labels = np.random.randint(classes, size=samples) if labelled else None
    made = Outputs.of(outputs, labels, np.random.randn(samples, FEATURES), earlier)
    return SetSummary("reference" if labelled else "target", samples, made, loss=2.0, accuracy=0.5 if labelled else None)


def alone(estimator: Estimator, samples: int, classes: int, repeats: int) -> float:
    """Seconds of a score and an estimate, with nothing known of the outputs before."""
    sets = summary_of(samples, classes, False), summary_of(samples, classes, True)

    def run() -> None:
        target, reference = (replace(one, outputs=replace(one.outputs)) for one in sets)  # type: ignore[type-var]
        estimator.scores(target)
        estimator.estimate(target, reference)

    (seconds,) = best_of(repeats, run)
    return seconds


def in_monitor(network: nn.Module, shape: tuple[int, ...], repeats: int, **options: object) -> float:
    """Seconds of a measurement in the monitor, its logging included."""
    train, test = (TensorDataset(torch.randn(2000, *shape), torch.randint(OUTPUTS, (2000,))) for _ in range(2))
    quiet = Display(layout=False, texts=False, histograms=False, figure_time=0)
    monitor = TangentSensitivityMonitor(DataLoader(test, 1000), display=quiet, verbose=False, **options)  # type: ignore[arg-type]
    trainer = quiet_trainer(monitor, max_epochs=repeats, limit_train_batches=1)
    trainer.fit(Net(network, 0.0), DataLoader(train, 64))
    return min(row["tansens/seconds"] for row in monitor.history)


def main() -> None:
    """Parses the arguments and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network, images = convolutional(), torch.randn(arguments.samples, 3, 32, 32)
    with torch.no_grad():
        (forward,) = best_of(arguments.repeats, lambda: network(images))
    rows = []
    for estimator in default_estimators():
        costs = [alone(estimator, arguments.samples, classes, arguments.repeats) for classes in (10, 100)]
        rows.append(
            [f"`{estimator.key}`", *(f"{cost:.4f} s" for cost in costs), *(f"{cost / forward:.2f}" for cost in costs)]
        )
    header = ("estimator", "10 classes", "100 classes", "of a forward pass, 10", "100")
    table(f"{arguments.samples} samples in two sets; a forward pass takes {forward:.3f} s", header, rows)
    variants: dict[str, dict[str, object]] = {
        "the measures alone": {"estimators": []},
        "the defaults": {},
        "and the calibrated one (six copies)": {"estimators": [*default_estimators(), Calibrated()]},
    }
    rows = []
    networks = (("MLP 4×100", (INPUTS,), lambda: mlp(INPUTS, *[100] * 4, OUTPUTS)), ("CNN", (3, 32, 32), convolutional))
    for name, shape, make in networks:
        costs = [in_monitor(make(), shape, arguments.repeats, **options) for options in variants.values()]
        rows += [[name, what, f"{cost:.3f} s", f"{cost / costs[0]:.2f}"] for what, cost in zip(variants, costs, strict=True)]
    table("A measurement", ("network", "what", "time", "of the measures"), rows)


if __name__ == "__main__":
    main()

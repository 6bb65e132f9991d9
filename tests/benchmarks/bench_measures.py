"""What each measure costs: an update on a batch over a training step (forward, backward, SGD) on the same batch.

Run: ``python -m tests.benchmarks.bench_measures``. The best of several runs is taken of both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tansens import metrics
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import Gaussian
from tests.benchmarks.bench_exact import best_of, mlp, table

MEASURES: dict[str, Callable[[], metrics.Measure]] = {
    "empirical": metrics.EmpiricalSensitivity,
    "layer_norm": metrics.LayerwiseNormSensitivity,
    "active_nodes": metrics.ActiveNodeSensitivity,
    "input_output": metrics.InputOutputSensitivity,
    "fisher_rao": metrics.FisherRaoSensitivity,
    "spectral_norm": metrics.SpectralNormSensitivity,
    "region": metrics.RegionSensitivity,
    "output_sensitivity": metrics.OutputSensitivity,
    "class_sensitivity": metrics.ClassSensitivity,
    "movement": metrics.SensitivityMovement,
    "patterns": metrics.ActivationPatterns,
    "pattern_information": metrics.PatternInformation,
    "neuron_margins": metrics.NeuronMargins,
    "gradient_difference": lambda: metrics.GradientDifference(Gaussian(0.1)),
}


def small_cnn() -> nn.Module:
    """Three convolutions with BatchNorm on images of 32 × 32."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP 4x100": (lambda: mlp(3072, 100, 100, 100, 100, 10), (3072,)),
    "CNN": (small_cnn, (3, 32, 32)),
}


def training_step(network: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], None]:
    """A step of SGD on a batch."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), labels).backward()
        optimizer.step()

    return step


def update(measure: metrics.Measure, network: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], None]:
    """An update from nothing."""

    def run() -> None:
        measure.reset()
        if not measure.needs_data:
            measure.update(network)
        elif isinstance(measure, metrics.LabelledMeasure):
            measure.update(network, x, labels, range(len(x)))
        else:
            measure.update(network, x, range(len(x)))
        measure.values()

    return run


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = {name: [name] for name in MEASURES}
    for make, shape in NETWORKS.values():
        network, x = make(), torch.randn(arguments.samples, *shape)
        labels = torch.randint(10, (arguments.samples,))
        step = training_step(network, x, labels)
        for name, make_measure in MEASURES.items():
            measure = make_measure()
            try:
                measure.prepare(network, x[:1])
                seconds = best_of(arguments.repeats, step, update(measure, network, x, labels))
                rows[name].append(f"{seconds[1] / seconds[0]:.2f}")
            except UnsupportedNetworkError:
                rows[name].append("not covered")
    table(f"A measure on {arguments.samples} samples / a training step on them", ["measure", *NETWORKS], list(rows.values()))


if __name__ == "__main__":
    main()

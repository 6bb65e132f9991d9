"""Cost of a training step with the regulariser over one without.

Run: ``python -m tests.benchmarks.bench_regulariser [--threads 1] [--repeats 10]``. A step is forward, backward and SGD with
momentum on one batch; every figure is the best of several steps, taken in turn with the others'.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tansens.tangent.regulariser import TangentSensitivityRegulariser
from tests.benchmarks import bench_exact
from tests.benchmarks.bench_exact import table
from tests.benchmarks.bench_stochastic import best_of, mlp


def step(
    net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, term: TangentSensitivityRegulariser | None
) -> None:
    """A training step, with a further term in the loss or without."""
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y)
    if term is not None:
        loss = loss + term(net, x)
    loss.backward()
    optimizer.step()


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    networks = {
        "digits MLP 64-100-100-10": (bench_exact.mlp(64, 100, 100, 10), (32, 64)),
        "MLP 3 x 1000": (mlp(1000), (256, 3, 32, 32)),
    }
    rows = []
    for name, (net, shape) in networks.items():
        x, y = torch.randn(shape), torch.randint(10, shape[:1])
        # so small a strength and rate that the weights stay where they are; neither changes the cost
        optimizer = torch.optim.SGD(net.parameters(), 1e-9, momentum=0.9)
        terms = {
            "without": None,
            "sum": TangentSensitivityRegulariser(1e-9),
            "each": TangentSensitivityRegulariser(1e-9, "each"),
            "each, 4 probes": TangentSensitivityRegulariser(1e-9, "each", num_probes=4),
        }
        steps = {kind: partial(step, net, optimizer, x, y, term) for kind, term in terms.items()}
        times = best_of(steps, arguments.repeats)
        ratios = [f"{times[kind] / times['without']:.1f}" for kind in terms if kind != "without"]
        rows.append((name, shape[0], f"{1000 * times['without']:.2f} ms", *ratios))
    columns = ("network", "batch", "step without", "with sum / without", "each / without", "each, 4 probes / without")
    table(f"{arguments.threads} threads, torch {torch.__version__}", columns, rows)


if __name__ == "__main__":
    main()

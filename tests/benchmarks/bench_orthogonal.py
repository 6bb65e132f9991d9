"""Whether orthogonal probes pay: the spread of a sample's estimate from K independent and from K orthogonal probes.

Run: ``python -m tests.benchmarks.bench_orthogonal``. Orthogonal probes are K columns of a random rotation, scaled
to length √D; both kinds are unbiased and cost the same passes (the rotation itself is not counted).
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import Network
from lightning_tansens.tangent.operators.substitutes import twice_differentiable
from lightning_tansens.tangent.probes.batch_axis import BatchAxes
from lightning_tansens.tangent.probes.coverage import find_batch_axes
from lightning_tansens.tangent.probes.input_space import input_space_blocks
from lightning_tansens.tangent.sensitivity import sum_blocks
from tests.benchmarks.bench_exact import mlp, table
from tests.benchmarks.bench_stochastic import ViTTiny, cifar_resnet18


def independent(samples: int, count: int, size: int) -> Tensor:
    """Rademacher probes, shape (count, samples, size)."""
    return torch.randint(2, (count, samples, size)).float() * 2 - 1


def orthogonal(samples: int, count: int, size: int) -> Tensor:
    """Probes at right angles for each sample, shape (count, samples, size)."""
    q, _ = torch.linalg.qr(torch.randn(samples, size, count))
    return q.permute(2, 0, 1) * size**0.5


def estimate(network: Network, axes: BatchAxes, probes: Tensor) -> Tensor:
    """The mean over probes of ‖S v‖², shape (N,)."""
    shape = network.x.shape
    draws = [sum_blocks(input_space_blocks(network, v.reshape(shape), "sum", axes))[:, 0] for v in probes]
    return torch.stack(draws).mean(0)


def spreads(net: nn.Module, x: Tensor, count: int, draws: int) -> list[float]:
    """The relative standard deviation of a sample's estimate, for each kind of probes."""
    found = []
    with evaluation(net), twice_differentiable(net):
        network = Network(net, x)
        axes = find_batch_axes(network)
        assert isinstance(axes, BatchAxes)
        for kind in (independent, orthogonal):
            values = torch.stack([estimate(network, axes, kind(len(x), count, x[0].numel())) for _ in range(draws)])
            found.append(float((values.std(0) / values.mean(0)).square().mean().sqrt()))
    return found


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=40)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    networks = {
        "MLP 16-100-100-10, tanh": (nn.Sequential(nn.Linear(16, 100), nn.Tanh(), nn.Linear(100, 10)), (16,), (1, 2, 4, 8)),
        "MLP 3072-100×4-10": (mlp(3072, 100, 100, 100, 100, 10), (3072,), (1, 4, 16)),
        "ResNet-18 (CIFAR form)": (cifar_resnet18(), (3, 32, 32), (1, 4)),
        "ViT-Tiny, patches of 4": (ViTTiny(), (3, 32, 32), (1, 4)),
    }
    rows = []
    for name, (net, shape, counts) in networks.items():
        for count in counts:
            alone, together = spreads(net, torch.randn(4, *shape), count, arguments.draws)
            rows.append((name, count, f"{alone:.2%}", f"{together:.2%}"))
    table("Spread of a sample's estimate", ("network", "probes", "independent", "orthogonal"), rows)


if __name__ == "__main__":
    main()

"""Cost and variance of the random probes, in training steps and in standard deviations.

Run: ``python tests/benchmarks/bench_stochastic.py [--threads 2] [--repeats 5]``. A training step is forward, backward and
SGD with momentum on the same batch; every figure is the best of several runs, taken in turn with the step's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from lightning_tansens.functional import chosen_method, tangent_sensitivity


def mlp(width: int) -> nn.Module:
    sizes = [3072, width, width, width]
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))


def cifar_resnet18() -> nn.Module:
    net = resnet18(num_classes=10)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return net


class ViTTiny(nn.Module):
    """Patches of 4 × 4, width 192, depth 12, 3 heads."""

    def __init__(self, width: int = 192, depth: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.encoder(x)[:, 0]))


def best_of(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The least time of each function, all taken in turn."""
    least = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--probes", type=int, default=16, help="probes for the variance")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    networks = {
        "MLP 3 x 1000": (mlp(1000), 256),
        "MLP 3 x 3000": (mlp(3000), 256),
        "ResNet-18 (torchvision)": (resnet18(num_classes=10), 64),
        "ResNet-18 (CIFAR form)": (cifar_resnet18(), 32),
        "ViT-Tiny, patches 4": (ViTTiny(), 32),
    }
    print(f"device {device}, {arguments.threads} threads, torch {torch.__version__}, best of {arguments.repeats}")
    print(f"{'network':24} {'batch':>5} {'step s':>8} {'input/step':>11} {'parameter/step':>15} {'auto':>12}", end=" ")
    print(f"{'sd input':>9} {'sd parameter':>13} {'mean sd parameter':>18}")
    for name, (net, batch) in networks.items():
        torch.manual_seed(0)
        net = net.to(device)
        x, y = torch.randn(batch, 3, 32, 32, device=device), torch.randint(10, (batch,), device=device)
        optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)

        def step(net: nn.Module = net, x: Tensor = x, y: Tensor = y, optimizer: torch.optim.SGD = optimizer) -> None:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

        def probe(method: str, net: nn.Module = net, x: Tensor = x) -> None:
            tangent_sensitivity(net, x, method=method)

        way = chosen_method(net, x).way
        times = best_of(
            {"step": step, "input": lambda: probe("input_space"), "parameter": lambda: probe("parameter_space")},
            arguments.repeats,
        )
        few, spreads = x[: min(batch, 16)], {}
        for method in ("input_space", "parameter_space"):
            draws = torch.stack(
                [
                    tangent_sensitivity(net, few, method=method, generator=torch.Generator().manual_seed(seed))
                    for seed in range(arguments.probes)
                ]
            )
            spreads[method] = (draws.std(0) / draws.mean(0)).mean(), draws.mean(1).std() / draws.mean()
        ratios = times["input"] / times["step"], times["parameter"] / times["step"]
        print(f"{name:24} {batch:5} {times['step']:8.3f} {ratios[0]:11.2f} {ratios[1]:15.2f} {way:>12}", end=" ")
        print(
            f"{spreads['input_space'][0]:9.1%} {spreads['parameter_space'][0]:13.1%} {spreads['parameter_space'][1]:18.1%}"
        )


if __name__ == "__main__":
    main()

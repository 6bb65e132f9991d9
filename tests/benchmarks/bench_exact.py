"""Times the closed form against plain autograd, and wide layers against the matrix-product rate.

Run it on an idle machine from the repository root; it prints Markdown tables:

    python tests/benchmarks/bench_exact.py

Times are the best of several runs; each ratio is between times taken in the same run of the script.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.tangent.closed_form import jacobian

INPUTS, OUTPUTS = 3072, 10
NEVER = 10**9


def mlp(*widths: int) -> nn.Sequential:
    """A ReLU network with the given numbers of units from input to output."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def best_of(runs: int, *calls: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds of the fastest of several runs of each call; the calls take turns, after a round that warms up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(runs + 1):
        for call, taken in zip(calls, times):
            start = clock()
            call()
            taken.append(clock() - start)
    return [min(taken[1:]) for taken in times]


def with_gathering_from(width: int, call: Callable[[], object]) -> Callable[[], None]:
    """The call, made with another width from which only active rows and columns are multiplied."""

    def changed() -> None:
        before, jacobian.GATHER_FROM_WIDTH = jacobian.GATHER_FROM_WIDTH, width
        try:
            call()
        finally:
            jacobian.GATHER_FROM_WIDTH = before

    return changed


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def nested_autograd(net: nn.Module, sample: Tensor, entries: Sequence[int]) -> Tensor:
    """Adds up ‖∂g_j/∂θ‖² over the given entries of the input gradient g of each output: S, one row of Sᵀ at a time."""
    total = torch.zeros(OUTPUTS)
    parameters = list(net.parameters())
    for c in range(OUTPUTS):
        inputs = sample.clone().requires_grad_()
        (g,) = torch.autograd.grad(net(inputs)[0, c], inputs, create_graph=True)
        g = g.flatten()
        for j in entries:
            rows = torch.autograd.grad(g[j], parameters, retain_graph=True, allow_unused=True)
            total[c] += sum(row.square().sum() for row in rows if row is not None)
    return total


def narrow(full: bool) -> None:
    """Part a: the paper's 4 × 100 network."""
    net, batch = mlp(INPUTS, 100, 100, 100, 100, OUTPUTS), torch.randn(1024, INPUTS)
    exact = best_of(7, lambda: tangent_sensitivity(net, batch, outputs="each", method="exact"))[0] / len(batch)
    entries = torch.randperm(INPUTS)[:200].tolist()
    sampled = best_of(3, lambda: nested_autograd(net, batch[:1], entries))[0] * INPUTS / len(entries)
    rows = [
        ("closed form, batch of 1024, best of 7", f"{1e3 * exact:.3f} ms", "1"),
        ("nested autograd, 200 of 3072 entries, best of 3, scaled", f"{sampled:.1f} s", f"{sampled / exact:,.0f}"),
    ]
    if full:
        start = time.perf_counter()
        oracle = nested_autograd(net, batch[:1], range(INPUTS))
        seconds = time.perf_counter() - start
        torch.testing.assert_close(
            tangent_sensitivity(net, batch[:1], outputs="each", method="exact")[0], oracle, rtol=1e-4, atol=0
        )
        rows.append(("nested autograd, all entries, once; the same values", f"{seconds:.1f} s", f"{seconds / exact:,.0f}"))
    table(f"(a) {INPUTS}-100×4-{OUTPUTS}, ten outputs", ("method", "time a sample", "ratio"), rows)


def wide(samples: int) -> None:
    """Part b: three hidden layers of 3000."""
    width = 3000
    net, batch = mlp(INPUTS, width, width, width, OUTPUTS), torch.randn(samples, INPUTS)
    left, right = torch.randn(4096, 4096), torch.randn(4096, 4096)

    def measure() -> Tensor:
        return tangent_sensitivity(net, batch, outputs="each", method="exact")

    product, gathered, dense = best_of(3, lambda: left @ right, measure, with_gathering_from(NEVER, measure))
    gathered, dense = gathered / samples, dense / samples
    rate = 2 * 4096**3 / product
    floor = 2 * 2 * width**3 / rate  # the products W_2 J_1 and W_3 J_2, each of two square matrices
    rows = [
        ("closed form, as it is", f"{gathered:.3f} s", f"{gathered / floor:.2f}"),
        (f"dense short form at the measured rate of {rate / 1e9:.0f} GFLOP/s", f"{floor:.3f} s", "1"),
        ("closed form, never gathering", f"{dense:.3f} s", f"{dense / floor:.2f}"),
    ]
    title = f"(b) {INPUTS}-3000×3-{OUTPUTS}, ten outputs, {samples} samples, best of 3"
    table(title, ("method", "time a sample", "ratio"), rows)


def crossover(widths: Sequence[int]) -> None:
    """Part c: where gathering begins to pay."""
    rows = []
    for width in widths:
        net, batch = mlp(INPUTS, width, width, width, OUTPUTS), torch.randn(64, INPUTS)

        def measure(net: nn.Module = net, batch: Tensor = batch) -> Tensor:
            return tangent_sensitivity(net, batch, method="exact")

        dense, gathered = (
            seconds / len(batch)
            for seconds in best_of(7, with_gathering_from(NEVER, measure), with_gathering_from(0, measure))
        )
        rows.append((width, f"{1e3 * dense:.3f} ms", f"{1e3 * gathered:.3f} ms", f"{gathered / dense:.2f}"))
    title = f"(c) {INPUTS}-W×3-{OUTPUTS}, 64 samples, best of 7; GATHER_FROM_WIDTH is {jacobian.GATHER_FROM_WIDTH}"
    table(title, ("W", "dense, a sample", "gathered, a sample", "ratio"), rows)


def main() -> None:
    """Parses the arguments and runs the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="abc", help="which parts to run (default: abc)")
    parser.add_argument("--full", action="store_true", help="part a: also all entries of one sample, and compare values")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="number of threads")
    parser.add_argument("--samples", type=int, default=16, help="part b: number of samples")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 48, 64, 128, 256, 512, 1024], help="part c")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"{processor()}, {args.threads} threads, Python {platform.python_version()}, torch {torch.__version__}")
    if "a" in args.parts:
        narrow(args.full)
    if "b" in args.parts:
        wide(args.samples)
    if "c" in args.parts:
        crossover(args.widths)


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if (info.exists())
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

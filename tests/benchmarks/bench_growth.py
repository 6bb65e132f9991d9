"""How time and memory of a measurement grow with width, depth, the number of outputs and the number of samples.

Run from the repository root. The first command measures and writes a table, the second draws it and fits the exponents:

    python -m tests.benchmarks.bench_growth docs/results/growth.csv --threads 1
    python -m tests.benchmarks.bench_growth docs/results/growth.csv --draw docs/images

Time (on a CPU, processor time) is the best of several, in turn with a training step (forward, backward, SGD with momentum)
on the same batch. Memory is what the first measurement takes on top of the network and the batch; it includes examining the
network, which happens once. Each figure comes from a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import multiprocessing
import resource
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tansens.functional import tangent_sensitivity
from tests.benchmarks.bench_exact import INPUTS, best_of, mlp, processor, table
from tests.modules import Residual

#: glibc's name for the size from which blocks are mapped by themselves.
MMAP_THRESHOLD = -3


@dataclass(frozen=True)
class Configuration:
    """What is measured; ``kind`` names the quantity that its sweep changes.

    Attributes:
        kind: "width", "depth", "outputs" or "samples".
        method: The method; "exact" is the closed form.
        network: "mlp" (3072 inputs) or "resnet" (3 × 32 × 32 inputs).
        width: Units of a hidden layer, or channels.
        depth: The number of weight layers.
        outputs: C.
        samples: N.

    """

    kind: str
    method: str
    network: str
    width: int
    depth: int
    outputs: int
    samples: int

    @property
    def which(self) -> str:
        """Which outputs are measured: the closed form has all of them at little cost, probes need a pass for each."""
        return "each" if self.method == "exact" or self.kind == "outputs" else "sum"

    def build(self, device: str) -> nn.Module:
        """The network."""
        if self.network == "mlp":
            return mlp(INPUTS, *[self.width] * (self.depth - 1), self.outputs).to(device)
        stem = nn.Sequential(nn.Conv2d(3, self.width, 3, 2, 1, bias=False), nn.BatchNorm2d(self.width), nn.ReLU())
        blocks = [Residual(self.width) for _ in range(self.depth // 2 - 1)]
        head = nn.Linear(self.width, self.outputs)
        return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).to(device)

    def draw(self, device: str) -> Tensor:
        """The batch."""
        return torch.randn(self.samples, *((INPUTS,) if self.network == "mlp" else (3, 32, 32)), device=device)


MLP = Configuration("", "exact", "mlp", width=128, depth=4, outputs=10, samples=64)
RESNET = Configuration("", "input_space", "resnet", width=16, depth=8, outputs=10, samples=32)

#: For each sweep the values of the fully connected and of the convolutional network.
SWEEPS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "width": ((64, 128, 256, 512, 1024, 2048), ()),
    "depth": ((2, 4, 8, 16, 32), (4, 8, 16, 32)),
    "outputs": ((1, 10, 100, 1000), ()),
    "samples": ((32, 128, 512, 2048, 8192), (32, 128, 512)),
}

COLORS = {("exact", "mlp"): "tab:blue", ("input_space", "mlp"): "tab:orange", ("input_space", "resnet"): "tab:green"}
LABELS = {"exact": "closed form", "input_space": "input-space probe", "mlp": "MLP", "resnet": "ResNet"}
PANELS = {
    "seconds": "seconds a measurement",
    "ratio": "measurement / training step",
    "peak_mib": "memory of a measurement, MiB",
}


def configurations(kinds: Sequence[str], quick: bool) -> Iterator[Configuration]:
    """The points of the sweeps; of each only the smallest two if it has to be quick."""
    for kind in kinds:
        for base, values in zip((MLP, RESNET), SWEEPS[kind]):
            for method in ("exact", "input_space") if base is MLP else ("input_space",):
                for value in values[: 2 if quick else None]:
                    yield replace(base, **{"kind": kind, "method": method, kind: value})


class Subject:
    """A configuration's network and batch, ready to be measured."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        self.net, self.x = configuration.build(self.device), configuration.draw(self.device)
        self.y = torch.randint(configuration.outputs, (configuration.samples,), device=self.device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 1e-3, momentum=0.9)

    def measurement(self) -> None:
        """Measures the sensitivity of the batch."""
        tangent_sensitivity(self.net, self.x, outputs=self.configuration.which, method=self.configuration.method)
        self._wait()

    def step(self) -> None:
        """Trains on the batch."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(self.x), self.y).backward()
        self.optimizer.step()
        self._wait()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def seconds(configuration: Configuration, repeats: int) -> list[float]:
    """The times of a measurement and of a training step."""
    subject = Subject(configuration)
    clock = time.perf_counter if subject.device == "cuda" else time.process_time
    return best_of(repeats, subject.measurement, subject.step, clock=clock)


def peak_mib(configuration: Configuration) -> float:
    """The memory in MiB that a measurement takes at its peak, on top of what was in use before."""
    Subject(replace(configuration, width=8, depth=4, outputs=2, samples=4)).measurement()  # torch loads parts of it late
    subject = Subject(configuration)
    if subject.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        subject.measurement()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    _forget_peak()
    before = _peak_resident()
    subject.measurement()
    return (_peak_resident() - before) / 2**20


def _peak_resident() -> int:
    units = 1 if sys.platform == "darwin" else 1024
    return units * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    """Lets the peak begin at what is in use, and freed tensors leave the process at once; on Linux only.

    Otherwise what imports took and gave back hides small tensors, and holes in the heap look like large ones.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, 2**17)
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def write(path: Path, kinds: Sequence[str], repeats: int, threads: int, quick: bool) -> None:
    """Measures, each figure in a process of its own: first all peaks, then the times; writes the rows as they come."""
    # a child's peak begins with its parent's, so the parent must be one that has not computed anything
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.bench_exact"])
    print(f"{processor()}, {threads} threads, torch {torch.__version__}, best of {repeats}", flush=True)
    points = list(configurations(kinds, quick))
    with (
        open(path, "w", newline="") as file,
        context.Pool(1, _start, (threads,), maxtasksperchild=1) as pool,
    ):
        writer: csv.DictWriter | None = None
        measured = zip(points, pool.imap(peak_mib, points), pool.imap(partial(seconds, repeats=repeats), points))
        for configuration, peak, (taken, step) in measured:
            figures = {"seconds": taken, "step_seconds": step, "ratio": taken / step, "peak_mib": peak}
            row = {**asdict(configuration), **{name: f"{figure:.4g}" for name, figure in figures.items()}}
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(" ".join(f"{value:>11}" for value in row.values()), flush=True)


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of torch's own late imports


def draw(path: Path, folder: Path) -> None:
    """Draws one figure for each sweep, on logarithmic axes, and prints the exponents as a Markdown table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    exponents = []
    for kind, series in read(path).items():
        figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 3.8), layout="constrained")
        for (method, network), rows in series.items():
            label = f"{LABELS[method]}, {LABELS[network]}"
            for axis, column in zip(axes, PANELS):
                x, y = ([float(row[name]) for row in rows] for name in (kind, column))
                axis.loglog(x, y, "o-", color=COLORS[method, network], label=label)
            exponents.append((kind, label, *[exponent(rows, kind, column) for column in PANELS]))
        for axis, title in zip(axes, PANELS.values()):
            axis.set(xlabel=kind, title=title)
            axis.set_xticks(sorted({float(row[kind]) for rows in series.values() for row in rows}))
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(plain)
            axis.yaxis.set_major_formatter(plain)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[1].axhline(1, color="gray", lw=0.8, ls="--")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        figure.savefig(folder / f"growth_{kind}.png", dpi=110)
        plt.close(figure)
    table("exponents, all points (last two)", ("grows with", "method and network", "seconds", "ratio", "memory"), exponents)


def read(path: Path) -> dict[str, dict[tuple[str, str], list[dict[str, str]]]]:
    """The rows of the table, by sweep and then by method and network."""
    sweeps: dict[str, dict[tuple[str, str], list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            sweeps[row["kind"]][row["method"], row["network"]].append(row)
    return sweeps


def exponent(rows: Sequence[dict[str, str]], kind: str, column: str) -> str:
    """The exponent b of a fit y = a x^b by least squares of logarithms: of all points, and of the last two."""
    x, y = (np.log([float(row[name]) for row in rows]) for name in (kind, column))
    return f"{np.polyfit(x, y, 1)[0]:.2f} ({np.polyfit(x[-2:], y[-2:], 1)[0]:.2f})"


def main() -> None:
    """Parses the arguments; measures or draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="the table, written or, with --draw, read")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw the table into this folder, and measure nothing")
    parser.add_argument("--sweeps", nargs="+", choices=list(SWEEPS), default=list(SWEEPS), help="which sweeps to measure")
    parser.add_argument("--repeats", type=int, default=7, help="each time is the best of as many")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="number of threads")
    parser.add_argument("--quick", action="store_true", help="only the two smallest points of each sweep")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.csv, arguments.draw)
    else:
        write(arguments.csv, arguments.sweeps, arguments.repeats, arguments.threads, arguments.quick)


if __name__ == "__main__":
    main()

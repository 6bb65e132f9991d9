"""How time and memory of a whole measurement grow with the number of classes, of unlabelled sets and of snapshots.

Run from the repository root. The first command measures and writes a table, the second draws it and fits the exponents:

    python -m tests.benchmarks.bench_growth_monitor docs/results/growth_monitor.csv
    python -m tests.benchmarks.bench_growth_monitor docs/results/growth_monitor.csv --draw docs/images

A small MLP is measured with the default measures and estimators, 1,024 samples of each set and five copies of 256; loggers,
the page and the console are off. Times are processor time, the least of three measurements in a row. Memory is what the
process takes at its peak on top of what it has after a run of one set and ten classes. Each point is a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import logging
import multiprocessing
import resource
import sys
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks.bench_exact import mlp, processor, table
from tests.benchmarks.bench_growth import exponent, read
from tests.benchmarks.bench_monitor import Net, Timed, quiet_trainer

FEATURES, SAMPLES = 64, 1024

#: For each sweep its values; the other two numbers are those of BASE.
SWEEPS = {"classes": (10, 30, 100, 300), "sets": (1, 2, 5, 10, 20, 50), "snapshots": (3, 10, 30, 100)}
BASE = {"classes": 10, "sets": 1, "snapshots": 3}

PANELS = {"seconds": "seconds a measurement", "peak_mib": "memory, MiB"}


def data(classes: int) -> DataLoader:
    """Samples whose labels can be learned in part."""
    inputs = torch.randn(SAMPLES, FEATURES)
    labels = (inputs @ torch.randn(FEATURES, classes) + 3 * torch.randn(SAMPLES, classes)).argmax(1)
    return DataLoader(TensorDataset(inputs, labels), 256)


def taken(classes: int, sets: int, snapshots: int) -> float:
    """Seconds of the measurement that follows as many snapshots."""
    torch.manual_seed(0)
    monitor = Timed({f"set{number}": data(classes) for number in range(sets)}, data(classes), verbose=False)
    quiet_trainer(monitor, max_epochs=snapshots + 3).fit(Net(mlp(FEATURES, 64, classes), 0.01), data(classes))
    return min(monitor.taken[-3:])


def point(kind: str, value: int) -> tuple[float, float]:
    """Seconds of a measurement, and the memory in MiB."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    taken(**BASE)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = taken(**{**BASE, kind: value})
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def write(path: Path) -> None:
    """Measures, and writes the rows as they come."""
    print(f"{processor()}, 1 thread, torch {torch.__version__}", flush=True)
    with (
        open(path, "w", newline="") as file,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("kind", "method", "network", *SWEEPS, *PANELS))
        for kind, values in SWEEPS.items():
            for value in values:
                seconds, peak = pool.apply(point, (kind, value))
                row = (kind, "all", "mlp", *{**BASE, kind: value}.values(), f"{seconds:.4g}", f"{peak:.4g}")
                writer.writerow(row)
                file.flush()
                print(*row, flush=True)


def draw(path: Path, folder: Path) -> None:
    """Draws one figure, a column for each sweep, on logarithmic axes, and prints the exponents as a Markdown table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator

    exponents = []
    figure, axes = plt.subplots(
        len(PANELS), len(SWEEPS), figsize=(12, 5.5), layout="constrained", sharex="col", sharey="row"
    )
    for column, (kind, series) in enumerate(read(path).items()):
        ((_, rows),) = series.items()
        values = [int(row[kind]) for row in rows]
        for axis, (name, title) in zip(axes[:, column], PANELS.items()):
            axis.loglog(values, [float(row[name]) for row in rows], "o-", color="tab:blue")
            axis.set(title=f"{title}, by {kind}")
            axis.set_xticks(values, [str(value) for value in values])
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        exponents.append((kind, *[exponent(rows, kind, name) for name in PANELS]))
    figure.savefig(folder / "growth_monitor.png", dpi=110)
    plt.close(figure)
    table("exponents, all points (last two)", ("grows with", "seconds", "memory"), exponents)


def main() -> None:
    """Parses the arguments; measures or draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="the table, written or, with --draw, read")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw the table into this folder, and measure nothing")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.csv, arguments.draw)
    else:
        write(arguments.csv)


if __name__ == "__main__":
    main()

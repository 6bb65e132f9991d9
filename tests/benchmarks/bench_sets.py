"""What sets, streams and many classes take in time and memory, whatever their size.

Run it from the repository root; it prints Markdown tables:

    python -m tests.benchmarks.bench_sets [--threads 1]

Memory is what the resident set grows by at its peak, in a process of its own for each figure.
"""

from __future__ import annotations

import argparse
import io
import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.show.keys import flat_row
from tests.benchmarks.bench_exact import processor, table
from tests.benchmarks.bench_growth import _forget_peak, _peak_resident
from tests.benchmarks.bench_monitor import quiet_trainer

SHAPE, COUNT = (3, 32, 32), 1024
CLASSES, TARGETS, FEATURES, MEASUREMENTS = 1000, 10, 64, 4


class Numbered(Dataset):
    """Images that are made when they are asked for."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full(SHAPE, float(index % 255)), index % 10


class Stream(IterableDataset):
    """The same as a stream; with a length and split over workers as those that are read from shards."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for index in range(first, self.samples, step):
            yield torch.full(SHAPE, float(index % 255)), index % 10


def drawn(make: Callable[[], object]) -> tuple[float, float, float, int]:
    """Seconds to draw a subset and to read it once, the growth of memory in MiB, and the samples that were seen."""
    Subset(Numbered(8), 4, 2)
    data = make()
    _forget_peak()
    before, start = _peak_resident(), time.perf_counter()
    subset = Subset(data, COUNT, 256)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    assert sum(len(batch[0]) for batch in subset) == COUNT
    return seconds, time.perf_counter() - start, (_peak_resident() - before) / 2**20, subset.available


def alone(function: Callable[[], object]) -> object:
    """Calls a function in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.bench_growth", "lightning_tansens"])
    with context.Pool(1) as pool:
        return pool.apply(function)


class Linear(pl.LightningModule):
    """Class scores of 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def many_classes(samples: int, classes_logged: bool) -> tuple[int, int, int, float, float]:
    """Scalars that loggers get and that are kept, bytes of the checkpoint, seconds, and growth of memory in MiB."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    sets = [TensorDataset(torch.randn(samples, FEATURES), torch.randint(CLASSES, (samples,))) for _ in range(TARGETS + 1)]
    from lightning_tansens.monitor import Options

    monitor = TangentSensitivityMonitor(
        {f"target {n}": one for n, one in enumerate(sets[1:])},
        reference="train",
        verbose=False,
        options=Options(by_class=classes_logged, num_loss_samples=samples),
    )
    trainer = quiet_trainer(monitor, max_epochs=MEASUREMENTS)
    _forget_peak()
    before = _peak_resident()
    trainer.fit(Linear(), DataLoader(sets[0], 256))
    grown = (_peak_resident() - before) / 2**20
    saved = io.BytesIO()
    torch.save(monitor.state_dict()["trajectories"], saved)
    kept = len(flat_row(monitor.records[-1]))
    sent = len(monitor.logged(monitor.records[-1]))
    return sent, kept, len(saved.getvalue()), monitor.history[-1]["tansens/seconds"], grown


def main() -> None:
    """Parses the arguments and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="number of threads")
    torch.set_num_threads(parser.parse_args().threads)
    print(f"{processor()}, torch {torch.__version__}")
    sources: dict[str, Callable[[], object]] = {}
    for samples in (10**4, 10**6, 10**9):
        sources[f"Dataset, {samples:,}"] = partial(Numbered, samples)
    for samples in (10**6, 10**9):
        sources[f"stream, {samples:,}"] = partial(Stream, samples)
    sources["stream in a DataLoader of 2 workers, 1,000,000"] = partial(_loader, 10**6)
    rows = []
    for name, make in sources.items():
        seconds, reading, grown, seen = alone(partial(drawn, make))  # type: ignore[misc]
        rows.append([name, f"{seconds:.2f} s", f"{reading:.2f} s", f"{grown:.0f} MiB", f"{seen:,}"])
    table(f"{COUNT:,} samples of a set", ("set", "drawing", "first reading", "memory", "samples to draw from"), rows)
    rows = []
    for samples, by_class in ((256, False), (1024, False), (1024, True)):
        sent, kept, state, seconds, grown = alone(partial(many_classes, samples, by_class))  # type: ignore[misc]
        name = f"{samples:,}{', by class' if by_class else ''}"
        rows.append([name, sent, kept, f"{state / 1e6:.1f} MB", f"{seconds:.1f} s", f"{grown:.0f} MiB"])
    header = ("samples of each set", "scalars sent", "scalars in a record", "snapshots saved", "measurement", "memory")
    table(f"{CLASSES:,} classes, {TARGETS} targets, {MEASUREMENTS} measurements", header, rows)


def _loader(samples: int) -> DataLoader:
    return DataLoader(Stream(samples), batch_size=64, num_workers=2)


if __name__ == "__main__":
    main()

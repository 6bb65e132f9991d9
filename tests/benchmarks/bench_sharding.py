"""What a measurement of a sharded network costs as the network grows, on processes of this machine.

Run it from the repository root; it prints two Markdown tables:

    OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc_per_node=2 -m tests.benchmarks.bench_sharding

The network is a chain of equally wide layers under ``fully_shard``. Times are the best of several, of the slowest process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.monitor import sharding
from lightning_tansens.monitor.gathering import copied_with, distributed_tensors, gathered, gathered_size
from lightning_tansens.monitor.supply import Supply
from tests.benchmarks.bench_exact import mlp, processor, table
from tests.benchmarks.bench_monitor import quiet_trainer

DEPTH, OUTPUTS, WIDTHS = 8, 10, (256, 512, 1024, 2048)


def slowest(repeats: int, run: Callable[[], object]) -> float:
    """The best of the slowest process's times."""
    times = []
    for _ in range(repeats):
        dist.barrier()
        start = time.perf_counter()
        run()
        taken = torch.tensor(time.perf_counter() - start)
        dist.all_reduce(taken, op=dist.ReduceOp.MAX)
        times.append(float(taken))
    return min(times)


def shard(network: nn.Sequential, mesh: DeviceMesh) -> None:
    """Shards each linear layer, and the network around them."""
    for layer in network:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)


def row(width: int, samples: int, repeats: int) -> list[float]:
    """Parameters, MB that a gather moves to a process, and the seconds of each part."""
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    network = mlp(width, *[width] * (DEPTH - 1), OUTPUTS)
    size, count = gathered_size(network), sum(parameter.numel() for parameter in network.parameters())
    shard(network, mesh)
    inputs, targets = torch.randn(samples, width), torch.randint(OUTPUTS, (samples,))
    optimizer = torch.optim.SGD(network.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), targets).backward()
        optimizer.step()

    def call() -> Tensor:
        with torch.no_grad():
            return network(inputs)

    training, calling = slowest(repeats, step), slowest(repeats, call)
    network.reshard()
    gathering = slowest(repeats, lambda: gathered(network, nullcontext))
    plain = gathered(network, nullcontext)
    with torch.no_grad():
        forward = slowest(repeats, lambda: plain(inputs))
    probing = slowest(repeats, lambda: tangent_sensitivity(plain, inputs, method="input_space"))
    gathers: list[int] = []
    supply = Supply(0, lambda number: gathers.append(number) or _asked(number))  # type: ignore[func-returns-value]
    remote = copied_with(network, {one: supply.remote(one) for one in distributed_tensors(network)})

    def use() -> None:
        del gathers[:]
        tangent_sensitivity(remote, inputs, method="input_space")
        supply.finish()

    using = slowest(repeats, use)
    uses = sum(number >= 0 for number in gathers) / len(distributed_tensors(network))
    moved = size * (1 - 1 / dist.get_world_size())
    return [count, moved / 1e6, gathering, calling, forward, probing, using, training, uses]


class Chain(pl.LightningModule):
    """The same network under ``ModelParallelStrategy``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = mlp(width, *[width] * (DEPTH - 1), OUTPUTS)

    def configure_model(self) -> None:
        if not isinstance(self.network, FSDPModule):
            shard(self.network, self.device_mesh["data_parallel"])

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-4)


def measurement(width: int, repeats: int, in_step: bool) -> float:
    """The seconds of the shortest measurement without sensitivities, of a target of 1,024 samples in batches of 128."""
    inputs, targets = torch.randn(1024, width), torch.randint(OUTPUTS, (1024,))
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=128)
    monitor = TangentSensitivityMonitor(test_dataloaders={"test": loader}, measures=[], verbose=False)
    processes = dist.get_world_size()
    strategy = ModelParallelStrategy(processes, 1, process_group_backend="gloo")
    trainer = quiet_trainer(monitor, strategy=strategy, devices=processes, max_epochs=repeats)
    with mock.patch.object(sharding, "TOLERANCE", -1.0 if in_step else sharding.TOLERANCE):  # no copy is close enough
        trainer.fit(Chain(width), loader)
    return min(record.seconds["total"] for record in monitor.records)


def _asked(number: int) -> list[int]:
    found = [torch.zeros(1, dtype=torch.long) for _ in range(dist.get_world_size())]
    dist.all_gather(found, torch.tensor([number]))
    return [int(one) for one in found]


def main() -> None:
    """Parses the arguments and prints the table, and the exponents of the last two rows in the number of parameters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=32, help="samples of a batch of each process")
    parser.add_argument("--repeats", type=int, default=3, help="each time is the best of as many")
    arguments = parser.parse_args()
    dist.init_process_group("gloo")
    rows = [row(width, arguments.samples, arguments.repeats) for width in WIDTHS]
    if dist.get_rank() == 0:
        print(f"{processor()}, torch {torch.__version__}, {dist.get_world_size()} processes")
        growth = np.log(np.array(rows[-1]) / np.array(rows[-2])) / np.log(rows[-1][0] / rows[-2][0])
        shown = [
            [f"{one[0] / 1e6:.1f} M", f"{one[1]:.1f} MB", *(f"{1e3 * part:.0f} ms" for part in one[2:-1]), f"{one[-1]:.1f}"]
            for one in rows
        ]
        copies = ("call of the copy", "probe of the copy", "probe, weights as used")
        header = ("parameters", "moved", "gather", "call in step", *copies, "training step", "gathers of a weight")
        table(
            f"{DEPTH} layers, {arguments.samples} samples", header, [*shown, ["exponent", *(f"{b:.2f}" for b in growth[1:])]]
        )
    ways = [[measurement(width, arguments.repeats, in_step) for in_step in (False, True)] for width in WIDTHS]
    if dist.get_rank() == 0:
        shown = [[f"{one[0] / 1e6:.1f} M", *(f"{seconds:.2f} s" for seconds in way)] for one, way in zip(rows, ways)]
        table("A measurement without sensitivities", ("parameters", "on a copy", "in step"), shown)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""One command for a machine with a GPU: CPU values beside GPU values, the costs, and the tests; under eight minutes.

    python -m tests.benchmarks.gpu [--out docs/results/gpu.csv] [--small]

It appends nothing: the table is written anew, with the device's name in each row. ``--small`` takes small networks and few
samples, for a try on a CPU. Each row has a quantity, a network, a precision, a value, and its unit. A part that fails
leaves a row with the reason, and the command goes on with the next one and ends with exit status 1.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gc
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18, resnet50, vit_b_16

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.tangent.methods import Method
from tests.benchmarks.bench_exact import mlp
from tests.benchmarks.bench_monitor import quiet_trainer
from tests.benchmarks.bench_stochastic import ViTTiny

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Row = tuple[str, str, str, str, str]


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """The least time of several runs, after one that warms up."""
    least = float("inf")
    for number in range(repeats + 1):
        _synchronise()
        start = time.perf_counter()
        call()
        _synchronise()
        least = least if number == 0 else min(least, time.perf_counter() - start)
    return least


def _synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak(call: Callable[[], object]) -> str:
    """Peak memory of a call in GiB, over what was there; nothing without a GPU."""
    if DEVICE.type != "cuda":
        return ""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return f"{(torch.cuda.max_memory_allocated() - before) / 2**30:.3f}"


def tests() -> Generator[Row]:
    """Runs the tests that need a GPU, on several processes that share it."""
    files = [str(file) for file in sorted(Path("tests").glob("test_*.py")) if "mark.gpu" in file.read_text(encoding="utf-8")]
    command = [sys.executable, "-m", "pytest", "-v", "-n", "auto", "-m", "gpu", "--tb=short", *files]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)
        output, failed = run.stdout, run.returncode != 0
    except subprocess.TimeoutExpired as stopped:
        output, failed = (stopped.stdout or b"").decode(), True
    yield "GPU tests", "", "", (output.strip().splitlines() or ["no output"])[-1].strip("= "), ""
    if failed:
        print("\n".join(line for line in output.splitlines() if "FAILED" in line), output[-6000:], sep="\n", file=sys.stderr)
        raise RuntimeError("tests failed or took more than 240 s")


def agreement(networks: dict[str, tuple[nn.Module, tuple[int, ...]]]) -> Generator[Row]:
    """The largest relative difference between the values of the CPU and of the device."""
    for name, (network, shape) in networks.items():
        inputs = torch.randn(4, *shape)
        network = copy.deepcopy(network).eval()
        expected = tangent_sensitivity(network, inputs)
        found = tangent_sensitivity(network.to(DEVICE), inputs.to(DEVICE)).cpu()
        yield (
            "CPU and device differ by",
            name,
            "fp32",
            f"{float(((found - expected) / expected).abs().max()):.2e}",
            "relative",
        )


def closed_form(width: int, samples: int) -> Generator[Row]:
    """The closed form of every output of a wide ReLU network."""
    network, inputs = mlp(3072, width, width, width, 10).to(DEVICE), torch.randn(samples, 3072, device=DEVICE)
    name = f"3072-{width}x3-10, {samples} images x 10 outputs"

    def measure() -> Tensor:
        return tangent_sensitivity(network, inputs, outputs="each", method="exact")  # "auto" takes a probe here

    yield "closed form", name, "fp32", f"{seconds(measure, 1):.3f}", "s"
    yield "closed form, peak memory", name, "fp32", peak(measure), "GiB"


def probes(name: str, network: nn.Module, shape: tuple[int, ...], batch: int, precision: str) -> Generator[Row]:
    """A probe of each form, in training steps on the same batch; in bf16 the step is under autocast."""
    network, bf16 = network.to(DEVICE), precision == "bf16"
    inputs, labels = torch.randn(batch, *shape, device=DEVICE), torch.randint(10, (batch,), device=DEVICE)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
    measured = copy.deepcopy(network).bfloat16() if bf16 else network
    given = inputs.bfloat16() if bf16 else inputs

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            outputs = network(inputs)
        F.cross_entropy(outputs.float(), labels).backward()
        optimizer.step()

    of_step = seconds(step)
    yield "training step", name, precision, f"{of_step:.4f}", "s"
    for method in ("input_space", "parameter_space"):

        def probe(method: Method = method) -> None:
            tangent_sensitivity(measured, given, method=method)

        try:
            yield f"probe, {method}", name, precision, f"{seconds(probe) / of_step:.2f}", "training steps"
            yield f"probe, {method}, peak memory", name, precision, peak(probe), "GiB"
        except (UnsupportedNetworkError, torch.OutOfMemoryError) as error:
            yield f"probe, {method}", name, precision, "refused", str(error).split(";")[0]


class Net(pl.LightningModule):
    """A classifier that notes the time of its epochs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.taken = network, []

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def on_train_epoch_start(self) -> None:
        _synchronise()
        self.start = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        if self.trainer.is_last_batch:
            _synchronise()
            self.taken.append(time.perf_counter() - self.start)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def share_of_an_epoch(name: str, network: nn.Module, shape: tuple[int, ...], images: int, batch: int) -> Generator[Row]:
    """The monitor at its defaults against an epoch of 50,000 images, scaled up from as many as are given."""
    data, test = (TensorDataset(torch.randn(n, *shape), torch.randint(10, (n,))) for n in (images, min(images, 2000)))
    net, monitor = Net(network), TangentSensitivityMonitor(DataLoader(test, batch), verbose=False)
    quiet_trainer(monitor, max_epochs=4, accelerator=DEVICE.type).fit(net, DataLoader(data, batch, shuffle=True))
    epoch = min(net.taken) * 50_000 / images
    taken = min(record.seconds["total"] for record in monitor.records)
    yield "measurement", name, "fp32", f"{taken:.4f}", "s"
    yield "epoch of 50,000 images", name, "fp32", f"{epoch:.3f}", "s"
    yield "share of an epoch", name, "fp32", f"{taken / epoch:.4f}", ""


def parts(small: bool) -> Iterator[Generator[Row]]:
    """All of the table, in parts that do not depend on one another."""
    narrow = mlp(3072, 100, 100, 100, 100, 10)
    image = (3, 32, 32) if small else (3, 224, 224)
    wide = ("MLP 3x1000", (mlp(3072, 1000, 1000, 1000, 10), (3072,)))
    large = (
        {"ResNet-18, 32 px": (resnet18(num_classes=10), image), "ViT-Tiny, 32 px": (ViTTiny(), image)}
        if small
        else {"ResNet-50, 224 px": (resnet50(num_classes=10), image), "ViT-B/16, 224 px": (vit_b_16(num_classes=10), image)}
    )
    yield agreement({"MLP 4x100": (narrow, (3072,)), "ResNet-18, 32 px": (resnet18(num_classes=10), (3, 32, 32))})
    yield closed_form(*((300, 64) if small else (3000, 10_000)))
    for name, (network, shape) in (dict([wide]) | large).items():
        for precision in ("fp32", "bf16"):
            yield probes(name, network, shape, 8 if small else 64, precision)
    yield share_of_an_epoch("MLP 4x100", narrow, (3072,), 3200 if small else 50_000, 64)
    if not small:
        yield share_of_an_epoch("ResNet-18, 32 px", resnet18(num_classes=10), (3, 32, 32), 10_000, 64)
    if DEVICE.type == "cuda":
        yield tests()


def rows(small: bool) -> Generator[Row]:
    """The rows of all parts; where one fails, the reason instead."""
    start = time.perf_counter()
    for part in parts(small):
        try:
            yield from part
        except Exception as error:
            traceback.print_exc()
            yield (
                "failed",
                part.__name__,
                "",
                type(error).__name__,
                str(error).strip().splitlines()[-1] if str(error) else "",
            )
        finally:
            gc.collect()
    yield "the whole command", "", "", f"{time.perf_counter() - start:.0f}", "s"


def main() -> None:
    """Parses the arguments and writes the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/gpu.csv"))
    parser.add_argument("--small", action="store_true", help="small networks and few samples, for a try on a CPU")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    name = (
        torch.cuda.get_device_name()
        if DEVICE.type == "cuda"
        else "CPU, one thread"
        if torch.get_num_threads() == 1
        else "CPU"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("device", "torch", "size", "quantity", "network", "precision", "value", "unit"))
        failed = False
        for row in rows(arguments.small):
            failed |= row[0] == "failed"
            writer.writerow((name, torch.__version__, "small" if arguments.small else "full", *row))
            opened.flush()
            print(*row, sep="\t", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

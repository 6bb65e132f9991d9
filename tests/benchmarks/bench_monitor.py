"""The monitor at its default settings, against an epoch of training on 50,000 images of CIFAR-10's size.

Run it from the repository root; it prints a Markdown table:

    python -m tests.benchmarks.bench_monitor [--steps 40] [--threads 2] [--images FOLDER]

An epoch is scaled up from some training steps under Lightning (with the DataLoader) and, as the stricter measure, from
the same steps in a bare loop on tensors in memory. Times are the best of several epochs, in processor time, so that other
work on the machine counts for little; with several threads that is more than what a clock shows. Images are those of a
folder with a sub-folder for each class (FOLDER/train and FOLDER/test), or random ones.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from lightning_tansens import TangentSensitivityMonitor
from tests.benchmarks.bench_exact import INPUTS, OUTPUTS, mlp, table
from tests.benchmarks.bench_stochastic import cifar_resnet18

TRAINING, TESTING = 50_000, 2_000


class Net(pl.LightningModule):
    """A classifier that notes how long each epoch's steps take."""

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.epoch_seconds: list[float] = []

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def on_train_epoch_start(self) -> None:
        self._start = time.process_time()

    def on_train_batch_end(self, *_: object) -> None:
        self._end = time.process_time()

    def on_train_epoch_end(self) -> None:
        self.epoch_seconds.append(self._end - self._start)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate, weight_decay=5e-4)


def quiet_trainer(monitor: pl.Callback, **options: Any) -> pl.Trainer:
    """A Trainer on one device that shows, logs and saves nothing but for what the options say."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(**{"accelerator": "cpu", "devices": 1, "callbacks": [monitor], **quiet, **options})


def bare_epoch(net: Net, data: TensorDataset, batch_size: int, steps: int) -> float:
    """Seconds of an epoch in a bare loop, from a number of steps."""
    optimizer = net.configure_optimizers()
    net.train()

    def train() -> None:
        for start in range(0, steps * batch_size, batch_size):
            inputs, targets = (tensor[start : start + batch_size] for tensor in data.tensors)
            optimizer.zero_grad()
            F.cross_entropy(net(inputs), targets).backward()
            optimizer.step()

    taken = []
    for _ in range(3):
        start = time.process_time()
        train()
        taken.append(time.process_time() - start)
    return min(taken[1:]) * TRAINING / (steps * batch_size)


class Timed(TangentSensitivityMonitor):
    """Notes the processor time of each measurement, with all that is logged and drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.taken: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        start = time.process_time()
        super().on_train_epoch_end(trainer, pl_module)
        self.taken.append(time.process_time() - start)


def images(folder: Path | None, part: str, count: int, shape: tuple[int, ...]) -> TensorDataset:
    """Images and labels, drawn from a folder or at random."""
    if folder is None:
        return TensorDataset(torch.randn(count, *shape), torch.randint(OUTPUTS, (count,)))
    found = ImageFolder(str(folder / part), ToTensor())
    chosen = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:count].tolist()
    inputs, labels = zip(*(found[index] for index in chosen))
    return TensorDataset(((torch.stack(inputs) - 0.47) / 0.25).reshape(-1, *shape), torch.tensor(labels))


def measure(
    name: str, network: nn.Module, shape: tuple[int, ...], batch_size: int, steps: int, epochs: int, folder: Path | None
) -> list[str]:
    """A row of the table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # a few batches' worth of images; the subsets are drawn from them
    train, test = (
        images(folder, part, n, shape) for part, n in (("train", max(steps * batch_size, TESTING)), ("test", TESTING))
    )
    net, monitor = Net(network, 0.01), Timed(DataLoader(test, 1000), verbose=False)
    trainer = quiet_trainer(monitor, max_epochs=epochs, accelerator=device, limit_train_batches=steps)
    trainer.fit(net, DataLoader(train, batch_size, shuffle=True))
    measurement = min(monitor.taken)
    epoch = min(net.epoch_seconds) * TRAINING / (steps * batch_size)
    last = monitor.history[-1]
    spread = last["tansens/empirical/test_stderr"] / last["tansens/empirical/test"]
    bare = bare_epoch(net.to(device), TensorDataset(*(tensor.to(device) for tensor in train.tensors)), batch_size, steps)
    for key, seconds in monitor.history[-1].items():
        if key.endswith("seconds"):
            print(f"{name}: {key} {seconds:.3f} by the clock")
    return [
        name,
        f"{monitor.num_samples} / {monitor.options.num_loss_samples}",
        f"{measurement:.3f} s",
        f"{epoch:.1f} s",
        f"{measurement / epoch:.1%}",
        f"{bare:.1f} s",
        f"{measurement / bare:.1%}",
        f"{spread:.1%}",
    ]


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="training steps of the ResNet; the MLP takes a whole epoch")
    parser.add_argument("--epochs", type=int, default=4, help="epochs, of which the fastest counts")
    parser.add_argument("--images", type=Path, help="folder with train and test, and a folder for each class in them")
    parser.add_argument("--only", choices=("mlp", "resnet"), help="measure one of the networks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="number of threads")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    narrow, folder = mlp(INPUTS, 100, 100, 100, 100, OUTPUTS), arguments.images
    rows = []
    if arguments.only != "resnet":
        rows.append(measure("MLP 4×100, batches of 64", narrow, (INPUTS,), 64, TRAINING // 64, arguments.epochs, folder))
    if arguments.only != "mlp":
        name, shape = "ResNet-18 (CIFAR form), batches of 64", (3, 32, 32)
        rows.append(measure(name, cifar_resnet18(), shape, 64, arguments.steps, 3, folder))
    header = (
        "network",
        "samples / for the loss",
        "measurement",
        "epoch",
        "share",
        "bare loop",
        "share",
        "stderr of the mean",
    )
    table(f"The monitor's defaults, {arguments.threads} threads", header, rows)


if __name__ == "__main__":
    main()

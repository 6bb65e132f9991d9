"""A small LightningModule, its data, and what runs and records a short training."""

import copy
import dataclasses
import random
import tempfile

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.monitor import Options
from lightning_tansens.show import Display

CLASSES = 3

#: The names of the further options.
OPTIONS = {field.name for field in dataclasses.fields(Options)}

#: Where a Trainer keeps what has no folder of its own.
ROOT_DIR = tempfile.mkdtemp()


def points(samples, seed=0):
    """Four features and the class that they belong to."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 4, generator=generator)
    return inputs, (inputs[:, :CLASSES] + 0.3 * torch.randn(samples, CLASSES, generator=generator)).argmax(1)


class Points(Dataset):
    """Points with labels, without (``labels=None``), with a random transform, as tuples or as dicts."""

    def __init__(self, samples=12, seed=0, labels="class", noise=False, as_dict=False):
        self.inputs, classes = points(samples, seed)
        self.labels = {"class": classes, "value": self.inputs.sum(1, keepdim=True)}.get(labels) if labels else None
        self.noise = noise
        self.as_dict = as_dict

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        inputs = self.inputs[index]
        if self.noise:  # draws from all three global generators
            inputs = inputs + 0.1 * torch.randn(4) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        if self.as_dict:
            return {"x": inputs, "y": self.labels[index]}
        return (inputs,) if self.labels is None else (inputs, self.labels[index])


def split_dict(batch):
    """An ``unpack`` for ``Points(as_dict=True)``."""
    return batch["x"], batch["y"]


def squared_error(outputs, targets):
    """A criterion by import path."""
    return F.mse_loss(outputs, targets)


class BoringData(pl.LightningDataModule):
    """Twelve training points in batches of four, and ten test points that exist only after ``setup("test")``."""

    def __init__(self, noise: bool = False, validation: bool = False, workers: int = 0, shuffle: bool = True):
        super().__init__()
        self.loader_args = {"batch_size": 4, "num_workers": workers}
        self.noise, self.validation, self.shuffle = noise, validation, shuffle
        self.test = None

    def setup(self, stage):
        if stage == "test":
            self.test = Points(10, seed=2)

    def train_dataloader(self):
        return DataLoader(Points(noise=self.noise), shuffle=self.shuffle, **self.loader_args)

    def val_dataloader(self):
        return DataLoader(Points(8, seed=1), **self.loader_args) if self.validation else []

    def test_dataloader(self):
        return DataLoader(self.test, **self.loader_args)


def mlp(outputs=CLASSES, extra=()):
    return nn.Sequential(nn.Linear(4, 6), *extra, nn.ReLU(), nn.Linear(6, outputs))


class BoringModule(pl.LightningModule):
    """A chain of two layers, trained by SGD with momentum."""

    def __init__(self, network: nn.Module | None = None, lr: float = 0.1, loss: str = "cross_entropy"):
        super().__init__()
        self.network = network or mlp()
        self.lr, self.loss = lr, loss

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, _):
        inputs, targets = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        loss = getattr(F, self.loss)(self(inputs), targets)
        self.log("train_loss", loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch, _, dataloader_idx=0):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch, _):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


class WithTestLoader(BoringModule):
    """Has a test loader, or several, of its own."""

    tests = 1

    def test_dataloader(self):
        loaders = [DataLoader(Points(10, seed=2 + i), batch_size=4) for i in range(self.tests)]
        return loaders if self.tests > 1 else loaders[0]


class Recorder(pl.Callback):
    """Keeps copies of everything that a measurement must not change; stands behind the monitor in the list."""

    def __init__(self):
        self.epochs, self.losses, self.weights, self.metrics = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append((float(outputs["loss"]), batch))

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append(state_of(trainer))

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append(state_of(trainer))
        self.weights.append(copy.deepcopy(pl_module.state_dict()))
        self.metrics.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    def on_validation_epoch_end(self, trainer, pl_module):
        self.epochs.append(state_of(trainer))

    def on_train_end(self, trainer, pl_module):
        self.epochs.append(state_of(trainer))


def state_of(trainer):
    module = trainer.lightning_module
    return copy.deepcopy(
        {
            "weights": {key: repr(value) if is_lazy(value) else value for key, value in module.state_dict().items()},
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "gradients": {
                name: None if parameter.grad is None else parameter.grad.clone()
                for name, parameter in module.named_parameters()
            },
            "modes": {name: submodule.training for name, submodule in module.named_modules()},
            "random": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
            "step": trainer.global_step,
        }
    )


def make_trainer(*callbacks, **kwargs):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    quiet["default_root_dir"] = ROOT_DIR
    return pl.Trainer(callbacks=list(callbacks), **{"max_epochs": 2, "accelerator": "cpu", "devices": 1, **quiet, **kwargs})


def make_monitor(**kwargs):
    """A quiet monitor of few samples in odd batches, which logs everything; further options are passed flat."""
    few = {"num_samples": 7, "num_loss_samples": 7, "batch_size": 3}
    quiet = {"verbose": False, "estimators": [], "reference": "train", "display": Display(log="all")}
    arguments = {**few, **quiet, **kwargs}
    flat = {name: arguments.pop(name) for name in OPTIONS if name in arguments}
    return TangentSensitivityMonitor(options=Options(**flat), **arguments)


def fit(*callbacks, module=None, data=None, ckpt_path=None, seed=0, **kwargs):
    """Trains for two epochs from a fixed seed and returns the Trainer; ``module`` is made after seeding if a function."""
    pl.seed_everything(seed, verbose=False)
    trainer = make_trainer(*callbacks, **kwargs)
    module = module if isinstance(module, nn.Module) else (module or BoringModule)()
    trainer.fit(module, **loaders_or_module(data), ckpt_path=ckpt_path)
    return trainer


def loaders_or_module(data):
    """Arguments of ``Trainer.fit``: a datamodule, or the training loader (and the validation loader)."""
    if data is None:
        data = BoringData()
    if isinstance(data, pl.LightningDataModule):
        return {"datamodule": data}
    train, *validation = data if isinstance(data, tuple) else (data,)
    return {"train_dataloaders": train, **({"val_dataloaders": validation[0]} if validation else {})}


def loader(data=None, **kwargs):
    return DataLoader(data or Points(), **{"batch_size": 4, **kwargs})


def measured(trainer, prefix="tansens"):
    """The logged keys of a monitor, without the prefix."""
    return {key.removeprefix(f"{prefix}/") for key in trainer.callback_metrics if key.startswith(f"{prefix}/")}


def untimed(history):
    """The rows of ``monitor.history`` without the time that the measurement took."""
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in history]


def unwrapped(text):
    """What a note says, whose lines end at 80 columns."""
    return " ".join(text.split())

"""Trainings with strategies that wrap the module and call it themselves: FSDP1 and DeepSpeed.

They are made for GPUs. On a CPU, where these tests run too, FSDP1 has to be told the device, and Lightning and DeepSpeed
have to be told that they may.
"""

import os
import random

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, deepspeed
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from tests.boring import BoringData, BoringModule, fit, measured, untimed
from tests.launched_sharded import monitor_of
from tests.processes import PATIENCE, backend_of, share_one_gpu


class OnCPU(FSDPStrategy):
    """Wraps the module on a CPU; a class of its own passes Lightning's check, which asks for a GPU."""

    def _setup_model(self, model):
        torch.cpu.Stream.wait_stream = lambda self, other: None  # a CPU has one stream
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **self.kwargs)


def strategy_of(name, device):
    """A strategy: "fsdp", or "deepspeed" and its stage."""
    group = {"process_group_backend": backend_of(device), "timeout": PATIENCE}
    if name == "fsdp":
        kind = OnCPU if device == "cpu" else FSDPStrategy
        return kind(auto_wrap_policy=ModuleWrapPolicy({nn.Linear}), state_dict_type="sharded", **group)
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        deepspeed.CUDAAccelerator = CPUAccelerator
        deepspeed._validate_device_index_selection = lambda devices: None
        DeepSpeedStrategy.root_device = torch.device("cpu", 0)  # it asks for the number
    return DeepSpeedStrategy(stage=int(name.split()[1]), **group)


def memory_of(parameter):
    """What a process holds of a parameter."""
    if hasattr(parameter, "ds_tensor"):  # DeepSpeed's share, whether or not the whole is there too, without its padding
        share = parameter.ds_tensor.detach().flatten()
        return share[: max(0, parameter.ds_numel - dist.get_rank() * share.numel())].cpu().clone()
    return parameter.detach().cpu().clone() if parameter.untyped_storage().size() else None


class Watch(pl.Callback):
    """Keeps what a measurement must not change, without a look at it that talks to the others; behind the monitor."""

    def __init__(self):
        self.states, self.losses = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.keep(trainer)

    def on_train_epoch_start(self, trainer, pl_module):
        self.keep(trainer)

    def on_train_epoch_end(self, trainer, pl_module):
        self.keep(trainer)

    def keep(self, trainer):
        model = trainer.strategy.model
        state = {
            "parameters": {name: memory_of(parameter) for name, parameter in model.named_parameters()},
            "gradients": [None if one.grad is None else one.grad.cpu().clone() for one in model.parameters()],
            "modes": [module.training for module in model.modules()],
            "random": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
            "step": trainer.global_step,
        }
        self.states.append(state)


def still():
    return BoringModule(lr=0.0)


def found_by(monitor, trainer):
    return {"history": untimed(monitor.history), "keys": sorted(measured(trainer)), "notes": monitor._run.notes()}


def train(name, device, folder, **options):
    """Trains, resumes and tests with weights that stay the same; trains with weights that move with and without a monitor.

    Args:
        name: The strategy; None for one process without one.
        device: "cpu" or "gpu".
        folder: Where to keep checkpoints.
        options: Arguments of the Trainer.

    """
    data = BoringData(noise=True, validation=True)
    folder.mkdir(parents=True, exist_ok=True)

    def run(*callbacks, **others):
        strategy = "auto" if name is None else strategy_of(name, device)
        return fit(*callbacks, data=data, **{"accelerator": device, **options, "strategy": strategy, **others})

    found = {}
    monitor, checkpoint = monitor_of(on_failure="raise"), ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    found["fit"] = found_by(monitor, run(monitor, checkpoint, module=still, enable_checkpointing=True))
    monitor = monitor_of(on_failure="raise")
    found["resumed"] = found_by(monitor, run(monitor, module=still, max_epochs=3, ckpt_path=folder / "epoch=0.ckpt"))
    if name is not None:
        for case, callbacks in {"with": [monitor_of(on_failure="raise")], "without": []}.items():
            watch = Watch()
            run(*callbacks, watch)
            found[case] = {"losses": watch.losses, "states": watch.states}
    return found


def train_all(launched):
    """Trains on the device that is named first, with each strategy that is named behind it."""
    device, *names = launched.arguments
    share_one_gpu(device)
    way = launched.trainer()
    launched.save({name: train(name, device, launched.folder / name.replace(" ", "_"), **way) for name in names})

"""Trainings of sharded networks: python tests/launched_sharded.py WAY DATA_PARALLEL TENSOR_PARALLEL FOLDER CASE...

Each process writes what it has found into a file of the folder. It is started by torchrun.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from lightning_tansens.estimators import Calibrated, default_estimators
from lightning_tansens.functional import Gaussian
from lightning_tansens.metrics import EmpiricalSensitivity, SensitivityMovement, default_measures
from tests.boring import BoringData, BoringModule, Points, fit, make_monitor, measured, untimed

GATHERED, IN_STEP = {}, {"gathered_bytes": 0}
COPIES = [Gaussian(0.2), Gaussian(0.5), Gaussian(1.0)]
USUAL = {
    "num_samples": 5,
    "num_loss_samples": 9,
    "test_dataloaders": {"test": Points(10, seed=4, noise=True), "one": Points(1)},
    "compare_with_labels": True,
    "reference": "train",
    "verbose": True,
}


class Sharded(BoringModule):
    """The chain of two layers, sharded where the strategy has a mesh."""

    def __init__(self, lr=0.0):
        super().__init__(nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Dropout(0.1), nn.ReLU(), nn.Linear(6, 3)), lr)

    def configure_model(self):
        if self._device_mesh is None or any(isinstance(parameter, DTensor) for parameter in self.parameters()):
            return
        data, tensor = self.device_mesh["data_parallel"], self.device_mesh["tensor_parallel"]
        if tensor.size() > 1:
            parallelize_module(self.network, tensor, self.plan())
        if data.size() > 1:
            for part in (self.network[0], self.network[-1], self.network):
                fully_shard(part, mesh=data)

    def plan(self):
        """The layers in between would see half of the units."""
        from torch.distributed.tensor import Replicate

        return {"0": ColwiseParallel(output_layouts=Replicate()), "4": RowwiseParallel(input_layouts=Replicate())}


class Watch(pl.Callback):
    """Keeps what a measurement must not change, the whole of it, and writes it at the end."""

    def __init__(self, folder, stage):
        self.folder, self.stage, self.losses, self.weights = folder, stage, [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer, pl_module):
        whole = [one.full_tensor() if isinstance(one, DTensor) else one for one in pl_module.parameters()]
        self.weights.append([one.double().flatten().tolist() for one in [*whole, *pl_module.buffers()]])

    def write(self, trainer):
        monitors = [callback for callback in trainer.callbacks if hasattr(callback, "history")]
        found = {
            "losses": self.losses,
            "weights": self.weights,
            "random": torch.get_rng_state().tolist(),
            "history": [untimed(monitor.history) for monitor in monitors],
            "keys": sorted(measured(trainer)),
        }
        (self.folder / f"{self.stage}.{trainer.global_rank}.json").write_text(json.dumps(found))

    def on_train_end(self, trainer, pl_module):
        self.write(trainer)

    def on_test_end(self, trainer, pl_module):
        self.write(trainer)


def usual_monitor(**options):
    measures = [*default_measures(), SensitivityMovement()]
    return make_monitor(measures=measures, estimators=[*default_estimators(), Calibrated(COPIES)], **{**USUAL, **options})


CASES = {"gathered": {}, "in step": {"gathered_bytes": 0}}

def strategy_of(sizes):
    if sizes is None:
        return "auto"
    data, tensor = sizes
    return ModelParallelStrategy(data, tensor, process_group_backend="gloo", timeout=timedelta(seconds=60))


def train(name, folder, sizes=None, **trainer):
    folder.mkdir(parents=True, exist_ok=True)
    data = BoringData(noise=True, validation=True)
    options = {"data": data, "default_root_dir": folder, "strategy": strategy_of(sizes), "logger": True, **trainer}
    monitor = usual_monitor(**CASES[name])
    fit(monitor, Watch(folder, "fit"), module=Sharded, **options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    data_parallel, tensor_parallel, root, *names = sys.argv[1:]
    sizes = int(data_parallel), int(tensor_parallel)
    for case in names or CASES:
        train(case, Path(root) / case.replace(" ", "_"), sizes, devices=sizes[0] * sizes[1])

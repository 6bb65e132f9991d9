"""Trainings of sharded networks, each process of which writes what it has found into a file of the folder."""

import json
import os
import random
import signal
import threading
from itertools import chain, count
from unittest import mock

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard import _fsdp_param_group
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import MeanMetric

from lightning_tansens.errors import LeftWaitingError
from lightning_tansens.estimators import Calibrated, default_estimators
from lightning_tansens.functional import Gaussian
from lightning_tansens.metrics import EmpiricalSensitivity, SensitivityMovement, default_measures
from lightning_tansens.monitor import processes, sharding
from tests.boring import BoringData, BoringModule, Points, fit, make_monitor, measured, untimed
from tests.launched import folder_of, short_batches, snapshots
from tests.processes import PATIENCE, backend_of, share_one_gpu

#: No gathered weight is kept.
AS_USED = {"gathered_bytes": 0}
#: No copy is close enough to the sharded network.
IN_STEP = {"in step": True}


class Sharded(BoringModule):
    """A chain of two layers, sharded where the strategy has a mesh."""

    def __init__(self, lr=0.0):
        super().__init__(nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Dropout(0.1), nn.ReLU(), nn.Linear(6, 3)), lr)

    def configure_model(self):
        if self._device_mesh is None or any(isinstance(parameter, DTensor) for parameter in self.parameters()):
            return
        data, tensor = self.device_mesh["data_parallel"], self.device_mesh["tensor_parallel"]
        if tensor.size() > 1:
            # the layers in between see all units
            first, last = ColwiseParallel(output_layouts=Replicate()), RowwiseParallel(input_layouts=Replicate())
            parallelize_module(self.network, tensor, {"0": first, "4": last})
        if data.size() > 1 or tensor.size() == 1:
            self.shard(data)
            if data.device_type == "cuda" and dist.get_backend() == "gloo":
                for module in self.modules():
                    if isinstance(module, FSDPModule):
                        module.set_force_sum_reduction_for_comms(True)  # gloo takes no means on a GPU

    def shard(self, mesh):
        for part in (self.network[0], self.network[-1], self.network):
            fully_shard(part, mesh=mesh)


class Double(Sharded):
    """In double precision, which the strategy has no setting for."""

    def __init__(self):
        super().__init__()
        self.double()

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [part.double() if part.is_floating_point() else part for part in batch]


class HoldsMuch(Double):
    """Keeps what cannot be copied, what should not be, what must be the copy's own, and what must not be written to."""

    def __init__(self):
        super().__init__()
        self.lock, self.points, self.first, self.seen = threading.Lock(), Points(4), [self.network[0]], MeanMetric()
        self.network[-1].bias.requires_grad_(False)

    def training_step(self, batch, batch_idx):
        assert self.first[0] is self.network[0]
        with self.lock:
            loss = super().training_step(batch, batch_idx)
        self.seen.update(loss.detach())
        return loss

    def on_train_end(self):
        assert int(self.seen.weight) == self.trainer.global_step


class Trained(Sharded):
    """Its weights move."""

    def __init__(self):
        super().__init__(lr=0.1)


class LowerPrecision(Trained):
    """Computes in bfloat16 where it is sharded over data."""

    def shard(self, mesh):
        for part in (self.network[0], self.network[-1], self.network):
            fully_shard(part, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))


class FromTheTop(Trained):
    """The LightningModule is sharded itself; a part of it that is called before it would take itself for the root."""

    def shard(self, mesh):
        super().shard(mesh)
        fully_shard(self, mesh=mesh)


class CountsOnShards(Double):
    """Its forward pass asks a weight for its shard, which a plain copy does not have."""

    def forward(self, inputs):
        if self._device_mesh is not None:
            self.network[0].weight.to_local()
        return super().forward(inputs)


class OtherOnShards(Double):
    """Computes something else where its weights are distributed while it is called."""

    def forward(self, inputs):
        return super().forward(inputs) * (2.0 if isinstance(self.network[0], FSDPModule) else 1.0)


class Falls(Trained):
    """Its forward pass raises on one process, or on all, while a measurement is taken."""

    def forward(self, inputs):
        if BREAKING["forward everywhere"] or (BREAKING["forward"] and dist.get_rank() == 1):
            raise RuntimeError("fell on one process")
        return super().forward(inputs)


class FallsLate(Trained):
    """Raises where its layers need the other processes no more."""

    def forward(self, inputs):
        outputs = Trained.forward(self, inputs)
        if BREAKING["forward"] and dist.get_rank() == 1:
            raise RuntimeError("fell on one process")
        return outputs


class FallsInside(Trained):
    """Raises between two layers on the second process, and after the last layer on the first one."""

    def __init__(self):
        super().__init__()
        self.network[3] = FallingReLU()

    def shard(self, mesh):  # no weight is left for the network around the layers
        for part in (self.network[0], self.network[1], self.network[-1], self.network):
            fully_shard(part, mesh=mesh)

    def forward(self, inputs):
        outputs = super().forward(inputs)
        if BREAKING["both"] and dist.get_rank() == 0:
            raise RuntimeError("fell on the other process")
        return outputs


class FallingReLU(nn.ReLU):
    def forward(self, x):
        if (BREAKING["layer"] or BREAKING["both"]) and dist.get_rank() == 1:
            raise RuntimeError("fell on one process")
        return super().forward(x)


class FallsAnywhere(Trained):
    """Raises behind one of its layers, each of which is sharded by itself, in any call of a measurement."""

    def __init__(self):
        super().__init__()
        layers = [(nn.Linear(width, 6), FallingAnywhere()) for width in (4, 6, 6)]
        self.network = nn.Sequential(*chain(*layers), nn.Linear(6, 3))

    def shard(self, mesh):
        for part in (*self.network[::2], self.network):
            fully_shard(part, mesh=mesh)


class FallingAnywhere(nn.Module):
    def forward(self, x):
        if BREAKING["anywhere"]:
            BREAKING["anywhere"] -= 1
            if not BREAKING["anywhere"]:
                raise RuntimeError("fell on one process")
        return x


class BreakAnywhere(pl.Callback):
    """Lets a process fall in some measurements, after some calls of layers; stands before the monitor."""

    def on_train_epoch_start(self, trainer, pl_module):
        BREAKING["anywhere"] = 0

    def on_train_epoch_end(self, trainer, pl_module):
        chance = random.Random(f"{trainer.current_epoch} {dist.get_rank()}")
        BREAKING["anywhere"] = chance.randrange(1, 30) if chance.random() < 0.4 else 0


class FallsInGather(Trained):
    """Has no memory on one process for the weights of the last layer, once or for good; where it gathers none, at all."""

    def forward(self, inputs):
        for_good = BREAKING["gather for good"]
        if (BREAKING["gather"] or for_good) and dist.get_rank() == 1:
            if not isinstance(self.network, FSDPModule):
                raise MemoryError("fell on one process")
            BREAKING["gather"], gather, gathers = False, _fsdp_param_group.foreach_all_gather, count(1)

            def fall(*args, **kwargs):
                if next(gathers) < 3:
                    return gather(*args, **kwargs)
                if not for_good:
                    patch.stop()
                raise MemoryError("fell on one process")

            patch = mock.patch.object(_fsdp_param_group, "foreach_all_gather", fall)
            patch.start()
        return super().forward(inputs)


class Talks(Falls):
    """Talks to the other processes itself."""

    def forward(self, inputs):
        outputs = super().forward(inputs)
        dist.all_reduce(torch.zeros(1))
        return outputs


class DepthByData(Double):
    """Calls one layer only where a sample needs it; all weights are gathered at once, so processes may differ in that."""

    def __init__(self):
        super().__init__()
        self.network = Deeper(self.network).double()

    def configure_model(self):
        sharded = self._device_mesh is None or isinstance(self.network.middle.weight, DTensor)
        if not sharded:
            mesh = self.device_mesh["data_parallel" if self.device_mesh["data_parallel"].size() > 1 else "tensor_parallel"]
            fully_shard(self.network, mesh=mesh)


class Deeper(nn.Module):
    """Puts a layer in between for samples whose first number is large enough."""

    def __init__(self, network):
        super().__init__()
        *self.before, self.last = network
        self.first, self.middle = nn.Sequential(*self.before), nn.Linear(6, 6)

    def forward(self, x):
        hidden, needed = self.first(x), x[:, :1] > -0.8  # of the training's samples, all of the first process
        return self.last(torch.where(needed, self.middle(hidden), hidden) if needed.any() else hidden)


#: What goes wrong now, on the second process where nothing else is said.
BREAKING = dict.fromkeys(
    ["data", "forward", "forward everywhere", "layer", "both", "gather", "gather for good", "anywhere"], False
)


class BreaksData(Points):
    """A sample that one process cannot read for a time."""

    def __getitem__(self, index):
        if BREAKING["data"] and dist.is_initialized() and dist.get_rank() == 1:
            raise OSError("broken on one process")
        return super().__getitem__(index)


class Break(pl.Callback):
    """Breaks something while the first measurement is taken, or before the first step; stands before the monitor."""

    def __init__(self, what, early=False):
        self.what, self.early = what, early

    def on_train_start(self, trainer, pl_module):
        BREAKING[self.what] = self.early

    def on_train_epoch_end(self, trainer, pl_module):
        BREAKING[self.what] = trainer.current_epoch == 0


class Watch(pl.Callback):
    """Keeps what a measurement must not change, and writes it with what the monitor found; stands behind the monitor."""

    def __init__(self, folder, stage):
        self.folder, self.stage, self.losses, self.weights, self.types = folder, stage, [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer, pl_module):
        BREAKING.update(dict.fromkeys(BREAKING, False))
        state = pl_module.state_dict().values()  # its hooks see to it that the weights are those that are trained
        whole = [one.full_tensor() if isinstance(one, DTensor) else one for one in state]
        self.weights.append([one.double().flatten().tolist() for one in whole])

    def write(self, trainer):
        monitors = [callback for callback in trainer.callbacks if hasattr(callback, "history")]
        found = {
            "losses": self.losses,
            "weights": self.weights,
            "random": torch.get_rng_state().tolist(),
            "history": [row for monitor in monitors for row in untimed(monitor.history)],
            "notes": [note for monitor in monitors if monitor._run for note in monitor._run.notes()],
            "failed": [monitor._failures.last for monitor in monitors],
            "keys": sorted(measured(trainer)),
            "snapshots": {name: kept for monitor in monitors for name, kept in snapshots(monitor).items()},
        }
        (self.folder / f"{self.stage}.{trainer.global_rank}.json").write_text(json.dumps(found))

    def on_train_end(self, trainer, pl_module):
        self.write(trainer)

    def on_test_end(self, trainer, pl_module):
        self.write(trainer)


def monitor_of(**options):
    """Everything on; one target set has fewer samples than there are processes."""
    everything = {
        "num_samples": 5,
        "num_loss_samples": 9,
        "test_dataloaders": {"test": BreaksData(10, seed=4, noise=True), "one": Points(1)},
        "compare_with_labels": True,
        "measures": [EmpiricalSensitivity(method="input_space"), *default_measures()[1:], SensitivityMovement()],
        "estimators": [*default_estimators(), Calibrated([Gaussian(0.2), Gaussian(0.5), Gaussian(1.0)])],
        "verbose": True,
    }
    options = {**everything, **options}
    sharding.TOLERANCE = -1.0 if options.pop("in step", False) else 0.05
    return make_monitor(**options)


#: By name: the module, the monitor's options (None for no monitor), and what breaks on one process.
CASES = {
    "gathered": (Double, {}, None),
    "as used": (Double, AS_USED, None),
    "in step": (Double, IN_STEP, None),
    "snapshots, gathered": (Double, {"snapshots_per_epoch": 2}, None),
    "snapshots, as used": (Double, {"snapshots_per_epoch": 2, **AS_USED}, None),
    "snapshots, in step": (Double, {"snapshots_per_epoch": 2, **IN_STEP}, None),
    "a copy that fails": (CountsOnShards, {}, None),
    "a copy that differs": (OtherOnShards, {}, None),
    "alone": (Trained, None, None),
    "with gathering": (Trained, {}, None),
    "with gathering as used": (Trained, AS_USED, None),
    "with calls in step": (Trained, IN_STEP, None),
    "from the top, alone": (FromTheTop, None, None),
    "from the top, a part gathered": (FromTheTop, {"network": "network"}, None),
    "from the top, a part as used": (FromTheTop, {"network": "network", **AS_USED}, None),
    "from the top, a part in step": (FromTheTop, {"network": "network", **IN_STEP}, None),
    "holds much": (HoldsMuch, {}, None),
    "lower precision, alone": (LowerPrecision, None, None),
    "lower precision": (LowerPrecision, {}, None),
    "nothing breaks, alone": (Trained, None, "nothing"),
    "data break, gathered": (Trained, {"measures": None}, "data"),
    "data break, as used": (Trained, AS_USED, "data"),
    "data break, in step": (Trained, IN_STEP, "data"),
    "forward breaks, gathered": (Falls, {}, "forward"),
    "forward breaks, as used": (Falls, AS_USED, "forward"),
    "forward breaks, in step": (Falls, IN_STEP, "forward"),
    "forward breaks between layers, in step": (FallsInside, IN_STEP, "layer"),
    "forward breaks on both, in step": (FallsInside, IN_STEP, "both"),
    "forward breaks in a gather, in step": (FallsInGather, IN_STEP, "gather"),
    "forward breaks late, in step": (FallsLate, IN_STEP, "forward"),
    "forward breaks everywhere, in step": (Falls, IN_STEP, "forward everywhere"),
    "depth by data, in step": (DepthByData, {"batch_size": 1, **IN_STEP}, None),
}


def strategy_of(sizes, device="cpu"):
    if sizes is None:
        return "auto"
    return ModelParallelStrategy(*sizes, process_group_backend=backend_of(device), timeout=PATIENCE)


def train(name, folder, sizes=None, **trainer):
    folder.mkdir(parents=True, exist_ok=True)
    module, options, breaks = CASES[name]
    data = BoringData(noise=True, validation=breaks is None)
    data = short_batches(data) if name.startswith("snapshots") else data
    arguments = {"data": data, "module": module, "default_root_dir": folder, "logger": True, **trainer}
    monitors = [] if options is None else [monitor_of(**options)]
    callbacks = [*([] if breaks is None else [Break(breaks)]), *monitors]
    checkpoint, device = ModelCheckpoint(folder, "{epoch}", save_top_k=-1), trainer.get("accelerator", "cpu")
    callbacks += [Watch(folder, "fit"), checkpoint]
    run = fit(*callbacks, enable_checkpointing=True, **{**arguments, "strategy": strategy_of(sizes, device)})
    if name in ("gathered", "as used", "in step"):
        run.callbacks[:] = [Watch(folder, "test") if isinstance(callback, Watch) else callback for callback in run.callbacks]
        run.test(run.lightning_module, datamodule=data, verbose=False)
        arguments |= {"ckpt_path": folder / "epoch=0.ckpt", "max_epochs": 3}
        fit(monitor_of(**options), Watch(folder, "resumed"), **{**arguments, "strategy": strategy_of(sizes, device)})


class Streams(IterableDataset):
    """A stream that each process reads by itself."""

    def __iter__(self):
        yield from Points(8, seed=dist.get_rank())


def refuse(launched):
    """Fits with streams that differ where processes split single layers: a target of a copy or in step, the reference."""
    streams = DataLoader(Streams(), batch_size=4)

    def run(**options):
        arguments = {**launched.trainer(), "strategy": strategy_of((1, 2)), "max_epochs": 1}
        return fit(monitor_of(test_dataloaders={"mine": streams}, **options), module=Trained, **arguments)

    assert measured(run()) >= {"mine_loss/estimate"}  # each process measures what it reads
    with pytest.raises(MisconfigurationException, match="the mine set: expected the same samples on all processes that"):
        run(**IN_STEP)
    with pytest.raises(
        MisconfigurationException, match="the reference set: expected the same samples on all processes that"
    ):
        run(reference=streams)


class SquaredError(Trained):
    """Learns numbers; its outputs are zeros at first."""

    def __init__(self):
        super().__init__()
        self.loss = "mse_loss"
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)


class Numbers(IterableDataset):
    """A stream in which the second process reads numbers that a network of zeros knows, so that many losses agree."""

    def __iter__(self):
        for inputs, _ in Points(8, seed=dist.get_rank()):
            yield inputs, torch.full((3,), 0.5 if dist.get_rank() == 0 else 0.0)


def find_criterion(launched):
    """Fits with a reference that each process reads by itself: all take the criterion of the first one's batch."""
    streams = DataLoader(Numbers(), batch_size=4)
    options = {"reference": streams, "test_dataloaders": streams, "compare_with_labels": False, **IN_STEP}
    run = fit(
        monitor_of(**options),
        module=SquaredError,
        data=streams,
        strategy=strategy_of((2, 1)),
        max_epochs=1,
        **{name: value for name, value in launched.trainer().items() if name != "strategy"},
    )
    monitor = run.callbacks[0]
    launched.save(monitor._run.criterion.note)


def fail_first(launched):
    """Fails on one process in the first call of the sharded network, between its layers and after their last talk."""

    def run(module, *callbacks):
        arguments = {**launched.trainer(), "strategy": strategy_of((2, 1))}
        return fit(*callbacks, monitor_of(**IN_STEP), module=module, **arguments)

    said = "fell on one process" if os.environ["RANK"] == "1" else "it failed on another one"
    found = []
    for module, what in (FallsInside, "layer"), (FallsLate, "forward"):
        with pytest.raises(RuntimeError, match=said):
            run(module, Break(what, early=True))
        BREAKING[what] = False
        found.append(len(run(module).callbacks[0].records))
    launched.save(found)


def fall_anywhere(launched):
    """Saves whether the training is what it is without the monitor, and the epochs whose measurements succeeded."""
    sizes = tuple(map(int, launched.arguments))

    def run(*callbacks):
        arguments = {**launched.trainer(), "strategy": strategy_of(sizes), "max_epochs": 10}
        parameters = fit(*callbacks, module=FallsAnywhere, **arguments).lightning_module.parameters()
        return [(one.full_tensor() if isinstance(one, DTensor) else one).tolist() for one in parameters]

    monitor = monitor_of(on_failure="ignore", **IN_STEP)
    launched.save((run() == run(BreakAnywhere(), monitor), [record.epoch for record in monitor.records]))


def leave_waiting(launched):
    """Fails on one process while the other one waits for what this one cannot make up for."""
    *sizes, early, what = launched.arguments
    processes.PATIENCE = 4.0  # no other process comes, however long one looks
    waiting = launched.folder / "waiting.pid"
    if os.environ["RANK"] == "0":
        waiting.write_text(str(os.getpid()))
    arguments = {**launched.trainer(), "strategy": strategy_of(tuple(map(int, sizes)))}
    module = Talks if what == "forward" else FallsInGather
    with pytest.raises(LeftWaitingError, match="it failed on this one while the others wait for its layers") as caught:
        fit(Break(what, early == "first"), monitor_of(**IN_STEP), module=module, **arguments)
    assert str(caught.value.__cause__) == "fell on one process"
    launched.save(True)
    os.kill(int(waiting.read_text()), signal.SIGKILL)  # as a launcher does in the end


def train_all(launched):
    """Trains the cases that are named behind the device and the sizes of the mesh, or all."""
    device, *sizes = launched.arguments[:3]
    share_one_gpu(device)
    for name in launched.arguments[3:] or CASES:
        where = folder_of(name, launched.folder)
        train(name, where, tuple(map(int, sizes)), accelerator=device, **launched.trainer(where))

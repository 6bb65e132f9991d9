"""Strategies that wrap the module and call it themselves (FSDP1, DeepSpeed): what needs no GPU, and what does."""

import functools
import tempfile
import weakref
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from lightning_tansens.estimators import default_estimators
from lightning_tansens.monitor import sharding
from lightning_tansens.monitor.processes import Lockstep
from tests.boring import BoringData, BoringModule, Points, Recorder, fit, make_monitor, untimed
from tests.launched_wrapped import train, train_all
from tests.processes import launch, several_processes
from tests.test_monitor_training import assert_same
from tests.test_sharded import without_step


class Wrapper(nn.Module):
    """Calls the module; a call that does not come through it would find the wrong weights."""

    def __init__(self, module):
        super().__init__()
        self.module, self.modes = module, []

    def forward(self, *args, **kwargs):
        self.modes.append((self.training, self.module.network.training, torch.is_grad_enabled()))
        self.module.whole = True
        try:
            return self.module(*args, **kwargs)
        finally:
            self.module.whole = False


class WrapsStrategy(SingleDeviceStrategy):
    """Stands in for FSDP1 on one process, which says nothing about FSDP1 itself."""

    def setup(self, trainer):
        super().setup(trainer)
        self.model = Wrapper(self.lightning_module)

    def model_to_device(self):
        self.lightning_module.to(self.root_device)


class OnlyWhole(BoringModule):
    """Refuses calls past the wrapper."""

    whole = False

    def forward(self, inputs):
        assert self.whole
        return super().forward(inputs)


def monitor_of(**options):
    targets = {"test": Points(10, seed=4)}
    estimators = [one for one in default_estimators() if not one.measure_keys]
    return make_monitor(test_dataloaders=targets, compare_with_labels=True, estimators=estimators, **options)


def test_estimates_pass_through_the_wrapper_and_leave_the_training_alone(monkeypatch):
    monkeypatch.setattr(sharding, "FSDPStrategy", WrapsStrategy)
    monitor, alone, with_monitor, without = monitor_of(), monitor_of(), Recorder(), Recorder()
    strategy = WrapsStrategy("cpu")
    fit(monitor, with_monitor, module=OnlyWhole, strategy=strategy)
    fit(without, module=OnlyWhole, strategy=WrapsStrategy("cpu"))
    fit(alone)
    assert_same(with_monitor.epochs, without.epochs)
    assert [loss for loss, _ in with_monitor.losses] == [loss for loss, _ in without.losses]
    for row, other in zip(untimed(monitor.history), untimed(alone.history), strict=True):
        assert {"tansens/test_loss/estimate", "tansens/test_loss/actual"} <= row.keys()
        assert "tansens/empirical/test" not in row
        assert row == pytest.approx({key: other[key] for key in row}, rel=1e-6)
    assert set(strategy.model.modes) == {(True, True, True), (False, False, False)}
    (note,) = [note for note in monitor._run.notes() if "sensitivities are left out" in note]
    assert "derivatives have not been tried with WrapsStrategy" in note


def test_a_loss_that_is_no_cross_entropy_has_to_be_passed(monkeypatch):
    monkeypatch.setattr(sharding, "FSDPStrategy", WrapsStrategy)
    data = BoringData()
    monkeypatch.setattr(data, "train_dataloader", lambda: torch.utils.data.DataLoader(Points(labels="value"), batch_size=4))
    monitor = make_monitor(test_dataloaders=Points(4, labels=None), estimators=default_estimators())
    with pytest.raises(Exception, match=r"criterion: expected one, because BoringModule shows none: .* the strategy wraps"):
        fit(monitor, module=lambda: BoringModule(loss="mse_loss"), data=data, strategy=WrapsStrategy("cpu"))


# --------------------------------------------------------------------------------------- the strategies themselves


#: In single precision, of batches that are divided differently among the processes.
TOLERANCES = {"cpu": 1e-5, "gpu": 1e-4}


def test_one_process_waits_for_no_other_and_keeps_nothing_of_a_failed_call():
    made, held = {"lightning_module": nn.Identity(), "world_size": 1, "strategy.reduce_boolean_decision": bool}, []

    def fail():
        hidden = torch.zeros(3)
        held.append(weakref.ref(hidden))
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own") as caught, Lockstep(Mock(**made), (0, 1), speaks=True).calling():
        fail()
    assert caught.traceback
    assert held[0]() is None


@functools.cache
def alone(device):
    """One process with the whole network, on a device."""
    with tempfile.TemporaryDirectory() as folder:
        return train(None, device, Path(folder))


def check(name, device, folder, processes):
    """Values are those of one process, and the training is bitwise what it is without the monitor."""
    ways = {"processes": processes} if device == "cpu" else {"processes": 1, "nodes": processes}  # which share the GPU
    saved = [one[name] for one in launch(train_all, folder, device, name, limit=240, **ways)]
    assert len(saved) == processes
    for found in saved:
        for stage, rows in {"fit": 2, "resumed": 3}.items():
            expected, history = alone(device)[stage]["history"], found[stage]["history"]
            assert len(history) == rows
            assert history == saved[0][stage]["history"]
            for row, other in zip(history, expected, strict=True):
                known = {key: other[key] for key in row}
                close = pytest.approx(without_step(known), rel=TOLERANCES[device], abs=TOLERANCES[device], nan_ok=True)
                assert without_step(row) == close
                assert {"tansens/test_loss/estimate", "tansens/test_loss/actual"} <= row.keys()
                assert "tansens/empirical/test" not in row
        (note,) = [note for note in found["fit"]["notes"] if "sensitivities are left out" in note]
        assert "derivatives have not been tried with" in note
        assert len(set(found["with"]["losses"])) > 1
        assert found["with"]["losses"] == found["without"]["losses"]
        assert_same(found["with"]["states"], found["without"]["states"])


@several_processes
@pytest.mark.parametrize("processes", [1, 2])
def test_fsdp_on_a_cpu(processes, tmp_path):
    check("fsdp", "cpu", tmp_path, processes)


@several_processes
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed")
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_on_a_cpu(stage, processes, tmp_path):
    check(f"deepspeed {stage}", "cpu", tmp_path, processes)


@several_processes
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", ["fsdp", "deepspeed 2", "deepspeed 3"])
def test_strategies_on_a_gpu(name, processes, tmp_path):
    if name != "fsdp":
        pytest.importorskip("deepspeed")
    check(name, "gpu", tmp_path, processes)

"""Two processes give the values of one, under the same keys."""

import os
import socket
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy

from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    EmpiricalSensitivity,
    FisherRaoSensitivity,
    InputOutputSensitivity,
    LayerwiseNormSensitivity,
    RegionSensitivity,
    SpectralNormSensitivity,
)
from tests.boring import BoringData, BoringModule, Points, fit, make_monitor, measured, untimed

STOPS = "stopped by an estimate"
CASES = {
    "seven samples": ({"num_samples": 7}, {}),
    "shares of the layers": ({"num_samples": 7, "per_layer": True}, {}),
    "one sample": ({"num_samples": 1, "per_layer": True}, {}),
    "validation": ({"num_samples": 5, "reference": "val"}, {}),
    "several sets": ({"num_samples": 3, "test_dataloaders": {"near": Points(9, seed=4, noise=True), "far": Points(2)}}, {}),
    "more samples for the loss": ({"num_samples": 3, "num_loss_samples": 8}, {}),
    "small batches": ({"num_samples": 7, "batch_size": 1}, {}),
    "all measures": ({"num_samples": 5, "all_measures": True}, {}),
    STOPS: ({"num_samples": 7}, {"max_epochs": 9}),
}


def measure(name, **trainer):
    """The history of a run whose weights stay the same, and the keys that can be monitored."""
    arguments, options = CASES[name]
    arguments = {"compare_with_labels": True, **arguments}
    empirical = EmpiricalSensitivity(per_layer=arguments.pop("per_layer", False))
    measures = [empirical, LayerwiseNormSensitivity(), ActiveNodeSensitivity()]
    if arguments.pop("all_measures", False):
        measures += [InputOutputSensitivity(), FisherRaoSensitivity(), RegionSensitivity(), SpectralNormSensitivity()]
    monitor = make_monitor(measures=measures, **arguments)
    callbacks = [EarlyStopping("tansens/test_loss/empirical", patience=1)] if name == STOPS else []
    data = BoringData(noise=True, validation=name == "validation")
    run = fit(monitor, *callbacks, module=lambda: BoringModule(lr=0.0), data=data, **{**options, **trainer})
    return untimed(monitor.history), sorted(measured(run))


def work(rank, port, folder):
    """One of two processes: runs every case and saves what it has found."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    os.environ.update(address, LOCAL_RANK=str(rank))
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    found = {}
    for name in CASES:
        strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))
        found[name] = measure(name, devices=2, strategy=strategy)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    if not dist.is_gloo_available():
        pytest.skip("two processes on a CPU need gloo")
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_values_of_one(name, processes):
    expected, keys = measure(name)
    for rank in range(2):
        history, keys_of_rank = processes[rank][name]
        assert keys_of_rank == keys
        assert len(history) == len(expected) == 2
        for row, other in zip(history, expected):
            values, others = ({k: v for k, v in found.items() if k != "step"} for found in (row, other))
            assert values == pytest.approx(others, rel=1e-6, abs=1e-12)
    assert processes[0][name][0] == processes[1][name][0]

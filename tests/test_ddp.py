"""Two and three processes give the values of one, under the same keys."""

import functools
import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy

from lightning_tansens.estimators import default_peers
from lightning_tansens.estimators.calibration import Calibration
from lightning_tansens.metrics import (
    ActiveNodeSensitivity,
    ClassSensitivity,
    EmpiricalSensitivity,
    FisherRaoSensitivity,
    InputOutputSensitivity,
    LayerwiseNormSensitivity,
    OutputSensitivity,
    RegionSensitivity,
    SensitivityMovement,
    SpectralNormSensitivity,
)
from tests.boring import BoringData, BoringModule, Points, fit, make_monitor, measured, untimed

ROOT = Path(__file__).parents[1]

STOPS = "stopped by an estimate"
DOUBLE = "double precision"
TESTED = "tested after the fit"
CALIBRATION = Calibration((0.5, 1.0), (0.25,), (0.5,))

CASES = {
    "seven samples": ({"num_samples": 7}, {}),
    "shares of the layers": ({"num_samples": 7, "per_layer": True}, {}),
    "one sample": ({"num_samples": 1, "per_layer": True}, {}),
    "validation": ({"num_samples": 5, "reference": "val"}, {}),
    "several sets": ({"num_samples": 3, "test_dataloaders": {"near": Points(9, seed=4, noise=True), "far": Points(2)}}, {}),
    "more samples for the loss": ({"num_samples": 3, "num_loss_samples": 8}, {}),
    "small batches": ({"num_samples": 7, "batch_size": 1}, {}),
    "all measures": ({"num_samples": 5, "all_measures": True, "by_class": True, "correlate_with_gap": True}, {}),
    "input-space probes": ({"num_samples": 7, "method": "input_space"}, {}),
    "parameter-space probes": ({"num_samples": 7, "method": "parameter_space"}, {}),
    "peers": ({"num_samples": 3, "num_loss_samples": 9, "all_peers": True, "calibration": CALIBRATION}, {}),
    DOUBLE: ({"num_samples": 7, "num_loss_samples": 10}, {"precision": "64-true"}),
    TESTED: ({"num_samples": 7}, {}),
    STOPS: ({"num_samples": 7}, {"max_epochs": 9}),
}


def measure(name, *callbacks, **trainer):
    """The history of a run whose weights stay the same, and the keys that can be monitored."""
    arguments, options = CASES[name]
    arguments = {"compare_with_labels": True, **arguments}
    empirical = EmpiricalSensitivity(**{name: arguments.pop(name) for name in ("per_layer", "method") if name in arguments})
    measures = [empirical, LayerwiseNormSensitivity(), ActiveNodeSensitivity()]
    if arguments.pop("all_measures", False):
        measures += [InputOutputSensitivity(), FisherRaoSensitivity(), RegionSensitivity(), SpectralNormSensitivity()]
        measures += [OutputSensitivity(), ClassSensitivity(matrix=True), SensitivityMovement()]
    peers = default_peers() if arguments.pop("all_peers", False) else None
    monitor = make_monitor(measures=measures, peers=peers, **arguments)
    callbacks += (EarlyStopping("tansens/test_loss/empirical", patience=1),) if name == STOPS else ()
    data = BoringData(noise=True, validation=name == "validation")
    run = fit(monitor, *callbacks, module=lambda: BoringModule(lr=0.0), data=data, **{**options, **trainer})
    if name == TESTED:
        run.test(run.lightning_module, datamodule=data, verbose=False)
    return untimed(monitor.history), sorted(measured(run))


def work(rank, world_size, port, folder):
    """One of several processes: runs every case and saves what it has found."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size), "NODE_RANK": "0"}
    os.environ.update(address, LOCAL_RANK=str(rank))
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    found = {}
    for name in CASES:
        strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))
        found[name] = measure(name, devices=world_size, strategy=strategy)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def processes(request, tmp_path_factory):
    if not dist.is_gloo_available():
        pytest.skip("several processes on a CPU need gloo")
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(request.param, port, folder), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@functools.cache
def alone(name):
    return measure(name)


def assert_values(row, other, **tolerance):
    values, others = ({key: value for key, value in found.items() if key != "step"} for found in (row, other))
    assert values == pytest.approx(others, **tolerance)


@pytest.mark.parametrize("name", CASES)
def test_several_processes_give_the_values_of_one(name, processes):
    expected, keys = alone(name)
    assert len(expected) == (3 if name == TESTED else 2)
    for found in processes:
        history, keys_of_rank = found[name]
        assert keys_of_rank == keys
        assert len(history) == len(expected)
        for row, other in zip(history, expected):
            assert_values(row, other, rel=1e-6, abs=1e-12)
        assert history == processes[0][name][0]


def test_sums_agree_to_double_precision(processes):
    for row, other in zip(processes[0][DOUBLE][0], alone(DOUBLE)[0]):
        # what is kept for each sample, for quantiles and errors, is in single precision
        sums = [key for key in row if not any(word in key for word in ("stderr", "_q", "_max"))]
        assert len(sums) > 10
        assert_values({key: row[key] for key in sums}, {key: other[key] for key in sums}, rel=1e-12)


@pytest.mark.parametrize("way", ["torchrun", "ddp_spawn", "ddp"])
def test_launchers(way, tmp_path):
    result = tmp_path / "history.json"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"] if way == "torchrun" else []
    strategy = "ddp_spawn" if way == "ddp_spawn" else "ddp"
    command = [sys.executable, *torchrun, str(ROOT / "tests" / "launched.py"), strategy, str(result)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    history, (expected, _) = json.loads(result.read_text()), alone("seven samples")
    assert len(history) == 2
    for row, other in zip(history, expected):
        assert_values(row, other, rel=1e-6, abs=1e-12)

"""Trainings of one or several processes, each of which writes what it has found into a file of the folder."""

import json

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_tansens.estimators import Calibrated, default_estimators
from lightning_tansens.functional import Gaussian
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

STOPS = "stopped by an estimate"
DOUBLE = "double precision"
TESTED = "tested after the fit"
USED = "as it is used"
WITHIN = "snapshots within epochs"
COPIES = [Gaussian(0.2), Gaussian(0.5), Gaussian(1.0)]
#: As in a project: two target sets, one of them with fewer samples than there are processes, and everything on.
USUAL = {
    "num_samples": 3,
    "num_loss_samples": 9,
    "test_dataloaders": {"test": Points(9, seed=4, noise=True), "one": Points(1)},
    "all_estimators": True,
    "by_class": True,
}

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
    "estimators": ({"num_samples": 3, "num_loss_samples": 9, "all_estimators": True}, {}),
    WITHIN: ({"num_samples": 3, "num_loss_samples": 9, "all_estimators": True, "snapshots_per_epoch": 2}, {}),
    DOUBLE: ({"num_samples": 7, "num_loss_samples": 10}, {"precision": "64-true"}),
    TESTED: ({"num_samples": 7}, {}),
    STOPS: ({"num_samples": 7}, {"max_epochs": 9}),
    USED: (USUAL, {"enable_checkpointing": True}),
}


class Write(pl.Callback):
    """Writes the history and the keys that can be monitored, from each process: with ddp_spawn it ends with the stage."""

    def __init__(self, folder, stage):
        self.folder, self.stage = folder, stage

    def write(self, trainer):
        (monitor,) = [callback for callback in trainer.callbacks if hasattr(callback, "history")]
        found = {"history": untimed(monitor.history), "keys": sorted(measured(trainer)), "epoch": trainer.current_epoch}
        found["snapshots"] = snapshots(monitor)
        (self.folder / f"{self.stage}.{trainer.global_rank}.json").write_text(json.dumps(found))

    def on_train_end(self, trainer, pl_module):
        self.write(trainer)

    def on_test_end(self, trainer, pl_module):
        self.write(trainer)


def snapshots(monitor):
    """The predicted classes of the snapshots by set, shape (number of snapshots, number of samples)."""
    kept = monitor._run.remembered()["trajectories"] if monitor._run else {}
    return {name: state["predictions"].tolist() for name, state in kept.items()}


def short_batches(data):
    """Lets an epoch have several batches, also where processes share it."""
    data.loader_args["batch_size"] = 2
    return data


def monitor_of(name):
    arguments = {"compare_with_labels": True, **CASES[name][0]}
    empirical = EmpiricalSensitivity(**{name: arguments.pop(name) for name in ("per_layer", "method") if name in arguments})
    measures = [empirical, LayerwiseNormSensitivity(), ActiveNodeSensitivity()]
    if arguments.pop("all_measures", False):
        measures += [InputOutputSensitivity(), FisherRaoSensitivity(), RegionSensitivity(), SpectralNormSensitivity()]
        measures += [OutputSensitivity(), ClassSensitivity(matrix=True), SensitivityMovement()]
    estimators = [*default_estimators(), Calibrated(COPIES)] if arguments.pop("all_estimators", False) else []
    return make_monitor(measures=measures, estimators=estimators, **{"reference": "train", "verbose": True, **arguments})


def folder_of(name, folder):
    """Where the files of a case are."""
    return folder / name.replace(" ", "_")


def train_all(launched):
    """Trains the cases that are named, or all."""
    for name in launched.arguments or CASES:
        train(name, folder_of(name, launched.folder), launched.trainer)


def train(name, folder, way):
    """Trains with weights that stay the same, and writes what each process has found.

    Args:
        name: The case.
        folder: Where to.
        way: Returns arguments of the Trainer, for a folder.

    """
    folder.mkdir(parents=True, exist_ok=True)
    data = BoringData(noise=True, validation=name == "validation")
    data = short_batches(data) if name == WITHIN else data
    options = {"module": lambda: BoringModule(lr=0.0), "data": data, **CASES[name][1], **way(folder)}
    callbacks = []
    if name in (STOPS, USED):
        callbacks.append(EarlyStopping("tansens/test_loss/empirical", patience=1 if name == STOPS else 9))
    if name == USED:
        callbacks.append(ModelCheckpoint(folder, "{epoch}", monitor="tansens/test_loss/empirical", save_top_k=-1))
    monitor = monitor_of(name)
    run = fit(monitor, *callbacks, Write(folder, "fit"), **options)
    assert len(monitor.history) == 2  # also where the processes of the fit have ended
    if name in (TESTED, USED):
        run.callbacks[:] = [Write(folder, "test") if isinstance(callback, Write) else callback for callback in run.callbacks]
        run.test(run.lightning_module, datamodule=data, verbose=False)
    if name == USED:
        options |= {"ckpt_path": folder / "epoch=0.ckpt", "max_epochs": 3, **way(folder)}
        callbacks = [EarlyStopping("tansens/test_loss/empirical", patience=9), Write(folder, "resumed")]
        fit(monitor_of(name), *callbacks, **options)

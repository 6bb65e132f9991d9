"""A training is bitwise the same with the monitor and without, step by step, whatever kind of training it is.

Compared after every step and every epoch: weights and buffers, gradients, states of optimisers and schedulers, train or eval
mode, the random states of torch, NumPy and Python, PyTorch's settings, hooks, batches and losses, and what is logged.
"""

import random
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler, ModelPruning, StochasticWeightAveraging

from lightning_tansens import metrics
from lightning_tansens.estimators import TemporalEnsemble
from tests.boring import BoringData, Points, untimed
from tests.guarantees import models
from tests.guarantees.recording import Run, full_monitor, record
from tests.processes import launch, several_processes
from tests.test_monitor_training import RUNS, Noisy, Stream, assert_same
from tests.tiers import cases

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning advises for tiny trainings


def validated():
    return BoringData(noise=True, validation=True)


def stopping():
    return [EarlyStopping("val_loss", mode="max", patience=2, verbose=False)]


def averaging():
    return [StochasticWeightAveraging(0.02, swa_epoch_start=1, annealing_epochs=1)]


def stopped_early(trainer):
    return trainer.current_epoch < trainer.max_epochs


def unfrozen(trainer):
    return len(trainer.optimizers[0].param_groups) == 2


def in_workers(make, **kwargs):
    return models.from_loader(make, num_workers=2, **kwargs)


def pruning(function):
    return lambda: [ModelPruning(function, amount=0.3, use_global_unstructured=False, verbose=0)]


def masked(trainer):
    return (
        sum(int((module.weight == 0).sum()) for module in trainer.lightning_module.network if hasattr(module, "weight")) > 9
    )


def few_measures():
    return [metrics.EmpiricalSensitivity(method="parameter_space"), metrics.ActiveNodeSensitivity()]


def noisy_points():
    return Points(noise=True)


KINDS = {
    # dropout, BatchNorm and random augmentation are part of all that do not name a module
    "convolutions and a scheduler": Run(models.Convolutional),
    "spectral normalisation": Run(models.SpectrallyNormalised),
    "GAN": Run(models.Adversarial, validated, network="network"),
    "unfreezing": Run(models.PartlyTrained, callbacks=lambda: [models.Unfreezing()], happened=unfrozen),
    "augmentation in 2 workers": Run(data=in_workers(noisy_points, shuffle=True)),
    "persistent workers": Run(data=in_workers(noisy_points, shuffle=True, persistent_workers=True)),
    "stream with a state": Run(data=models.from_loader(models.Stateful)),
    "a data set that keeps what it drew first": Run(data=models.from_loader(models.Remembering, shuffle=True)),
    "a handle that is opened at the first access, in 2 workers": Run(data=in_workers(models.OpenedOnce, shuffle=True)),
    "cached samples that are augmented in place": Run(data=models.from_loader(models.AugmentedInPlace, shuffle=True)),
    "stream in 2 workers": Run(data=in_workers(Stream), options={"max_epochs": 1}),
    "accumulation on a schedule": Run(callbacks=lambda: [GradientAccumulationScheduler({0: 1, 1: 3})]),
    "gradients clipped by value": Run(options={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "stochastic weight averaging": Run(data=validated, callbacks=averaging, options={"max_epochs": 3}),
    "compiled, validated within the epoch": Run(models.Compiled, validated, options={"val_check_interval": 2}),
    "compiled as a whole": Run(lambda: torch.compile(Noisy(), backend="aot_eager")),
    "early stopping": Run(data=validated, callbacks=stopping, options={"max_epochs": 8}, happened=stopped_early),
    "limit_train_batches": Run(options={"limit_train_batches": 2}),
    "max_steps within an epoch": Run(options={"max_steps": 5, "max_epochs": -1}),
    "the datamodule splits at each setup, loaders reloaded": Run(
        data=models.Splitting, options={"reload_dataloaders_every_n_epochs": 1}
    ),
    "the datamodule splits at each setup, validated late": Run(
        data=models.Splitting, options={"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
    ),
    "the network has a generator of its own": Run(models.OwnNoise),
    "the batch transfer has a generator of its own": Run(models.TransferNoise),
    "the network logs in forward": Run(models.LoggingForward),
    "pruning": Run(callbacks=pruning("l1_unstructured"), measured_first=True, happened=masked, options={"max_epochs": 3}),
    "pruning at random, measured afterwards": Run(callbacks=pruning("random_unstructured"), happened=masked),
    "quantisation-aware training": Run(models.QuantisationAware, measures=few_measures),
    "weight norm and spectral norm by hooks": Run(models.Normalised),
    "weight norm, parametrised": Run(models.WeightNormalised),
    "lazy linear": Run(models.LazyLinear),
    "lazy convolution and batch norm": Run(models.LazyConvolutional, measures=few_measures),
    "an averaged model as an attribute": Run(models.Averaged, validated),
    "forward writes to what versions do not show": Run(models.Restless, measures=few_measures),
    "reloaded loaders": Run(data=models.Curriculum, options={"reload_dataloaders_every_n_epochs": 1, "max_epochs": 3}),
}
# from the shorter test, which has fewer measures and compares at epoch ends alone
AGAIN = (
    "dropout, BatchNorm, shuffling, augmentation",
    "accumulated gradients",
    "BatchNorm in eval mode",
    "validation within accumulation",
    "two optimizers",
    "stream",
    "bfloat16 autocast",
    "clipped gradients",
)
KINDS |= {name: Run(module, data, options=options) for name in AGAIN for module, data, options in [RUNS[name]]}

if hasattr(callbacks, "EMAWeightAveraging"):  # newer than the oldest Lightning that is supported
    KINDS["EMA"] = Run(data=validated, callbacks=lambda: [callbacks.EMAWeightAveraging(decay=0.8)])
    KINDS["averaged weights, not validated"] = Run(callbacks=lambda: [callbacks.WeightAveraging(use_buffers=False)])


BY_DEFAULT = (
    *("convolutions and a scheduler", "GAN", "augmentation in 2 workers", "stream with a state", "lazy linear", "pruning"),
    "the datamodule splits at each setup, validated late",
)


@pytest.mark.parametrize("run", cases(KINDS, *BY_DEFAULT))
def test_every_step_is_the_same_with_all_measures_on(run):
    snapshots = {"estimators": [TemporalEnsemble()], "snapshots_per_epoch": 3}
    monitor = full_monitor(network=run.network, measures=run.measures(), **snapshots)
    plain, watched = record(run), record(run, monitor)
    assert_same(plain, watched)
    assert plain["logged"]
    logged = {key.split("/")[1] for key in monitor.history[0] if "/" in key}
    assert logged >= {measure.key for measure in run.measures()} | {"test_loss", "class_loss"}


class Disturbance(pl.Callback):
    """Does at one epoch's end what a monitor must not do."""

    def __init__(self, what):
        self.what = what

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            self.what(trainer, pl_module)


DISTURBANCES = {
    "a number from torch": lambda trainer, module: torch.rand(1),
    "a number from NumPy": lambda trainer, module: np.random.rand(),
    "a number from Python": lambda trainer, module: random.random(),
    "a pass in train mode": lambda trainer, module: module(torch.ones(2, 4)),
    "eval mode": lambda trainer, module: module.network[1].eval(),
    "a gradient": lambda trainer, module: module(torch.ones(2, 4)).sum().backward(),
    "a weight's last bit": lambda trainer, module: module.network[0].bias.data[:1].mul_(1 + 2**-23),
    "a momentum": lambda trainer, module: next(iter(trainer.optimizers[0].state.values()))["momentum_buffer"].mul_(2),
    "a hook": lambda trainer, module: module.network[0].register_forward_hook(lambda *_: None),
    "an attribute": lambda trainer, module: setattr(module.network[0], "seen", True),
    "a setting": lambda trainer, module: torch.set_anomaly_enabled(True),
    "a logged value": lambda trainer, module: module.log("train_loss_again", 1.0),
    "a stop": lambda trainer, module: setattr(trainer, "should_stop", True),
}


@pytest.fixture(scope="module")
def undisturbed():
    return record(Run(callbacks=lambda: [Disturbance(lambda *_: None)]))


@pytest.mark.parametrize("what", DISTURBANCES.values(), ids=DISTURBANCES)
def test_the_comparison_sees(what, undisturbed):
    try:
        disturbed = record(Run(callbacks=lambda: [Disturbance(what)]))
    finally:
        torch.set_anomaly_enabled(False)
    with pytest.raises(AssertionError):
        assert_same(undisturbed, disturbed)


def test_the_comparison_sees_no_difference_where_there_is_none(undisturbed):
    assert_same(undisturbed, record(Run()))


def test_a_second_monitor_changes_nothing_either():
    few = full_monitor(prefix="tansens/second", every_n_epochs=2, seed=1, measures=few_measures())
    monitors = [full_monitor(), few]
    assert_same(record(Run(data=validated)), record(Run(data=validated), *monitors))
    assert [len(monitor.history) for monitor in monitors] == [2, 1]


# ------------------------------------------------------------------------------------- lazy modules on two processes


class Initialised:
    """A pass before the processes wrap it, as torch asks for."""

    def setup(self, stage):
        with torch.no_grad():
            self(torch.ones(2, 4))


class ReadyLinear(Initialised, models.LazyLinear):
    pass


class ReadyConvolutional(Initialised, models.LazyConvolutional):
    pass


LAZY = {
    "linear": (ReadyLinear, models.LazyLinear),
    "convolution and batch norm": (ReadyConvolutional, models.LazyConvolutional),
}


def lazy_on_processes(launched):
    launched.save({name: lazy_found(name, launched) for name in LAZY})


def lazy_found(name, launched):
    monitors = [full_monitor(measures=few_measures(), verbose=True) for _ in range(2)]
    ready, lazy = LAZY[name]
    run = Run(ready, options={**launched.trainer(), "max_epochs": 3})
    plain, watched = record(run), record(replace(run, options={**run.options, **launched.trainer()}), monitors[0])
    assert_same(plain, watched)
    said = []
    for monitor in ([], monitors[1:]):
        try:
            record(Run(lazy, options=launched.trainer()), *monitor)
        except RuntimeError as error:
            said.append(str(error))
    return monitors[0].history, plain["final"]["weights"], said


@pytest.fixture(scope="module")
def lazy_on_two(tmp_path_factory):
    return launch(lazy_on_processes, tmp_path_factory.mktemp("lazy"))


@several_processes
@pytest.mark.parametrize("name", LAZY)
def test_lazy_modules_on_two_processes(name, lazy_on_two):
    (history, weights, said), (other, others, _) = (found[name] for found in lazy_on_two)
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert untimed(history) == untimed(other)
    assert {"tansens/empirical/test", "tansens/active_nodes/test"} <= history[0].keys()
    trained = [key for key in weights if "running" not in key and "num_batches" not in key]
    assert_same({key: weights[key] for key in trained}, {key: others[key] for key in trained})
    # uninitialised ones are torch's to refuse, with the monitor and without
    assert len(said) == 2
    assert said[0] == said[1]
    assert "Run a dummy forward pass to correctly initialize the modules" in said[0]

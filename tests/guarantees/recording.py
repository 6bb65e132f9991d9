"""What records a training step by step, with and without a monitor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import isabstract
from typing import Any

import lightning.pytorch as pl
import torch
import torch.utils.checkpoint
from lightning.pytorch.loggers.logger import Logger
from torch import nn

from lightning_tansens import metrics
from lightning_tansens.functional import Gaussian
from tests.boring import BoringData, Recorder, fit, make_monitor, state_of
from tests.test_monitor_training import Noisy


def every_measure():
    """All measures of the package, some with options that have them do more."""
    options = {
        metrics.EmpiricalSensitivity: {"per_layer": True, "method": "stochastic"},
        metrics.ActiveNodeSensitivity: {"per_layer": True},
        metrics.ClassSensitivity: {"matrix": True},
        metrics.GradientDifference: {"perturbation": Gaussian(0.1)},
    }
    exported = [vars(metrics)[name] for name in metrics.__all__]
    measures = [kind for kind in exported if issubclass(kind, metrics.Measure) and not isabstract(kind)]
    return [kind(**options.get(kind, {})) for kind in measures]


def full_monitor(**kwargs):
    """A monitor that measures all there is, the labels included, and hides no failure."""
    options = {"measures": every_measure(), "compare_with_labels": True, "by_class": True, "on_failure": "raise"}
    return make_monitor(**{"num_samples": 4, "num_loss_samples": 6, **options, **kwargs})


@dataclass(frozen=True)
class Run:
    """How one training is made; the functions are called anew for each run, after the seeding."""

    module: Callable[[], pl.LightningModule] = Noisy
    data: Callable[[], Any] = lambda: BoringData(noise=True)
    callbacks: Callable[[], Sequence[pl.Callback]] = tuple
    options: dict[str, Any] = field(default_factory=dict)
    network: str | None = None
    # for networks that not every measure can take
    measures: Callable[[], list[metrics.Measure]] = lambda: every_measure()
    # whether what the callbacks do at an epoch's end comes after the measurement
    measured_first: bool = False
    # what must have happened in the training, so that the case is not empty
    happened: Callable[[pl.Trainer], bool] = lambda trainer: True


class Ledger(Logger):
    """A logger of the least that a logger must be; it keeps the values in memory, with their steps."""

    name, version = "ledger", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, params):
        pass

    def own_rows(self):
        """The rows of the module's own values, without the monitor's."""
        rows = [(step, without_monitor(metrics)) for step, metrics in self.rows]
        return [(step, metrics) for step, metrics in rows if set(metrics) - {"epoch"}]


def without_monitor(values):
    return {key: value for key, value in values.items() if not key.startswith("tansens/")}


def settings_of(module):
    """What a measurement switches for itself, and what it hangs on a module."""
    return {
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "numbers": (
            torch.get_default_dtype(),
            torch.is_autocast_enabled("cpu"),
            torch.are_deterministic_algorithms_enabled(),
        ),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "checkpoint": torch.utils.checkpoint.CheckpointFunction.__name__,
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in module.modules()],
        "hooks on all modules": (
            len(nn.modules.module._global_forward_hooks),
            len(nn.modules.module._global_forward_pre_hooks),
        ),
        "attributes": [sorted(vars(m)) for m in module.modules()],
        "trained": [parameter.requires_grad for parameter in module.parameters()],
    }


class EveryStep(Recorder):
    """Keeps the whole state of a training after each step, not only after each epoch, and the settings after both."""

    def __init__(self):
        super().__init__()
        self.settings = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.epochs.append(state_of(trainer))
        self.settings.append(settings_of(pl_module))

    def on_train_epoch_end(self, trainer, pl_module):
        super().on_train_epoch_end(trainer, pl_module)
        self.settings.append(settings_of(pl_module))

    def on_validation_epoch_end(self, trainer, pl_module):
        super().on_validation_epoch_end(trainer, pl_module)
        self.settings.append(settings_of(pl_module))


def record(run, *monitors, ckpt_path=None):
    """Trains and returns all that a measurement must not change."""
    steps, ledger = EveryStep(), Ledger()
    options = {"max_epochs": 2, "logger": ledger, "log_every_n_steps": 1, **run.options}
    callbacks = [*run.callbacks(), *monitors] if not run.measured_first else [*monitors, *run.callbacks()]
    trainer = fit(*callbacks, steps, module=run.module, data=run.data(), ckpt_path=ckpt_path, **options)
    assert steps.losses
    assert run.happened(trainer)
    return {
        "losses and batches": steps.losses,
        "states": steps.epochs,
        "settings": steps.settings,
        "final": state_of(trainer),
        "logged": ledger.own_rows(),
        "metrics": [without_monitor(row) for row in steps.metrics],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "epoch": trainer.current_epoch,
    }

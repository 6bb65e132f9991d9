"""Measures the weights of checkpoints, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from lightning_tansens.command_line.checkpoints import Checkpoint
from lightning_tansens.command_line.configuration import Configured
from lightning_tansens.command_line.errors import MeasurementError, UsageError
from lightning_tansens.monitor.callback import TangentSensitivityMonitor
from lightning_tansens.monitor.failures import Failures
from lightning_tansens.monitor.sets import measure_weights
from lightning_tansens.monitor.trainer_data import find_network
from lightning_tansens.show.keys import Keys

#: The hooks of the module that an evaluation calls; {} is the stage.
_HOOKS = (
    "{}_step",
    "on_{}_start",
    "on_{}_end",
    "on_{}_epoch_start",
    "on_{}_epoch_end",
    "on_{}_batch_start",
    "on_{}_batch_end",
)


class _LoadWeights(pl.Callback):
    """Loads weights once the Trainer has set the module up, as layers may be made only then."""

    def __init__(self) -> None:
        self.path = Path()
        self.checkpoint: dict[str, Any] = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loads them in ``Trainer.test``."""
        pl_module.on_load_checkpoint(self.checkpoint)
        try:
            pl_module.load_state_dict(self.checkpoint["state_dict"], strict=pl_module.strict_loading)
        except RuntimeError as error:
            raise UsageError(f"{self.path}: expected the weights of {type(pl_module).__name__}: {error}") from error

    on_validation_start = on_test_start


def measure_checkpoints(configured: Configured, checkpoints: Sequence[Checkpoint]) -> Iterator[dict[str, float]]:
    """Yields a row for each checkpoint: what the monitors log on its weights, with its epoch and step.

    What a run compares with the measurement before is compared with the checkpoint before, and is left out of the first row.
    What it compares with its start is taken from the checkpoint.

    Args:
        configured: The model, the data and the monitors.
        checkpoints: The checkpoints in the order of the run.

    Raises:
        UsageError: If a checkpoint does not fit the model, or lacks what a measure compares with.
        MeasurementError: If a checkpoint cannot be measured.

    """
    loading = _LoadWeights()
    configured.trainer.callbacks = [loading, *configured.monitors]  # type: ignore[attr-defined]
    weights_before: dict[int, Any] = {}
    previous: dict[str, Any] = {}
    for checkpoint in checkpoints:
        loading.path, loading.checkpoint = checkpoint.path, checkpoint.read()
        for number, monitor in enumerate(configured.monitors):
            memories = _memories(monitor, checkpoint.path, loading.checkpoint, previous)
            state = {"history": monitor.history, "weights_before": weights_before.get(number, {}), "memories": memories}
            monitor.load_state_dict({**state, "measured_step": None})
            monitor._failures, monitor.verbose = Failures("raise"), False
        try:
            _evaluate(configured)
        except UsageError:
            raise
        except Exception as error:
            raise MeasurementError(f"{checkpoint.path}: the measurement failed: {type(error).__name__}: {error}") from error
        row: dict[str, float] = {}
        for number, monitor in enumerate(configured.monitors):
            row |= monitor.history[-1]
            if number not in weights_before:
                row = _without_comparisons(row, monitor)
            network = find_network(configured.model, monitor.network)
            weights_before[number] = measure_weights(monitor.measures, network)
        previous = loading.checkpoint
        yield {**row, "epoch": checkpoint.epoch, "step": checkpoint.step}


def _evaluate(configured: Configured) -> None:
    """Runs an evaluation loop in which the module itself has nothing to do."""
    for hook in _HOOKS:
        setattr(configured.model, hook.format(configured.stage), _nothing)
    run = configured.trainer.test if configured.stage == "test" else configured.trainer.validate
    run(configured.model, datamodule=configured.data, verbose=False)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """A hook that is not needed to measure, and that may need labels or all the batches."""


def _memories(
    monitor: TangentSensitivityMonitor, path: Path, contents: dict[str, Any], previous: dict[str, Any]
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """What the measures remembered, by set and measure; the last measurement is that of the checkpoint before."""
    own, before = (_state(monitor, checkpoint).get("memories", {}) for checkpoint in (contents, previous))
    remembering = [measure.key for measure in monitor.measures if measure.remembers]
    if remembering and not own:
        raise UsageError(
            f"{path}: expected the state of the monitor that logs under {monitor.prefix!r}, because {remembering} compare "
            "with the start of the run, but the checkpoint has none; take these measures out of the configuration"
        )
    memories: dict[str, dict[str, dict[str, Tensor]]] = {}
    for name, measures in own.items():
        memories[name] = {}
        for key, memory in measures.items():
            last = before.get(name, {}).get(key, {}).get("last")
            memories[name][key] = {part: value for part, value in {**memory, "last": last}.items() if value is not None}
    return memories


def _state(monitor: TangentSensitivityMonitor, contents: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = contents.get("callbacks", {}).get(monitor.state_key, {})
    return state


def _without_comparisons(row: dict[str, float], monitor: TangentSensitivityMonitor) -> dict[str, float]:
    """The row of a first measurement, without the estimates by measures that compare with an earlier one."""
    keys = Keys(monitor.prefix)
    undefined = {
        keys.estimate(target, quantity, measure.key)
        for target in keys.targets(row)
        for quantity in ("loss", "accuracy")
        for measure in monitor.measures
        if not measure.needs_data
    }
    undefined |= {suffixed(key) for key in undefined for suffixed in (keys.stderr, keys.trusted)}
    return {key: value for key, value in row.items() if key not in undefined}

"""Measures checkpoints one after the other, so that a folder of checkpoints is a trajectory."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_tansens.command_line.checkpoints import Checkpoint, read_checkpoint
from lightning_tansens.command_line.configuration import Configured
from lightning_tansens.command_line.errors import UsageError
from lightning_tansens.monitor.callback import TangentSensitivityMonitor
from lightning_tansens.record import Record


class _LoadWeights(pl.Callback):
    """Loads a checkpoint's weights once the Trainer has set the module up, as layers may be made only then."""

    def __init__(self) -> None:
        self.contents: dict[str, Any] = {}
        self._constructed: dict[str, Any] | None = None

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loads them in ``Trainer.test``."""
        pl_module.on_load_checkpoint(self.contents)
        weights = self.contents["state_dict"]
        if not pl_module.strict_loading:  # what a checkpoint leaves out must not stay from the one before
            if self._constructed is None:
                self._constructed = {name: value.clone() for name, value in pl_module.state_dict().items()}
            weights = {**self._constructed, **weights}
        try:
            pl_module.load_state_dict(weights, strict=pl_module.strict_loading)
        except RuntimeError as error:
            raise UsageError(f"expected the weights of {type(pl_module).__name__}: {error}") from error

    on_validation_start = on_test_start


def measure_checkpoints(
    configured: Configured, checkpoints: Sequence[Checkpoint], complain: Callable[[Exception], object]
) -> Iterator[tuple[Checkpoint, list[Record]]]:
    """Yields each checkpoint with a record of each monitor, which measure in an evaluation on the checkpoint's weights.

    Each checkpoint is compared with the one before. What a run compares with its start is taken from the first checkpoint.
    ``complain`` gets the error of a checkpoint that cannot be used (UsageError) or measured; the next one follows. Raises
    UsageError if the configuration fits no checkpoint.
    """
    loading, monitors, trainer = _LoadWeights(), configured.monitors, configured.trainer
    trainer.callbacks = [loading, *monitors]  # type: ignore[attr-defined]
    run = trainer.test if configured.stage == "test" else trainer.validate
    for checkpoint in checkpoints:
        before = [len(monitor.records) for monitor in monitors]
        try:
            loading.contents = read_checkpoint(checkpoint.path)
            for monitor in monitors:
                if not monitor.records:
                    _begin(monitor, loading.contents)
            run(configured.model, datamodule=configured.data, verbose=False)
        except UsageError as error:
            complain(UsageError(f"{checkpoint.path}: {error}"))
        except Exception as error:  # whatever the user's code raises
            if isinstance(error, MisconfigurationException) and checkpoint is checkpoints[0]:  # it fits none of them
                raise UsageError(f"expected a configuration that can be measured: {error}") from error
            frame = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
            complain(RuntimeError(f"{checkpoint.path}: the measurement failed: {said}"))
        if all(len(monitor.records) > count for monitor, count in zip(monitors, before, strict=True)):
            last = [monitor.records[-1] for monitor in monitors]
            yield checkpoint, [replace(record, epoch=checkpoint.epoch, step=checkpoint.step) for record in last]


def _begin(monitor: TangentSensitivityMonitor, contents: Mapping[str, Any]) -> None:
    """Lets the monitor follow the evaluations, from what the run's own monitor has kept of the run's start."""
    comparing = [measure.key for measure in monitor.measures if measure.remembers]
    callbacks = contents.get("callbacks")
    state = callbacks.get(monitor.state_key) if comparing and isinstance(callbacks, Mapping) else None
    if comparing and not (isinstance(state, Mapping) and state.get("memories")):
        raise UsageError(
            f"expected the state of the monitor that logs under {monitor.options.prefix!r}, because {comparing} compare "
            "with the start of the run, but the checkpoint has none; take these measures out of the configuration"
        )
    try:
        monitor.follow_evaluations(state)
    except ValueError as error:
        raise UsageError(str(error)) from error

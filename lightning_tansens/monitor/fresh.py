"""Lightning's callbacks that watch a value, extended to tell a fresh value from an old one."""

from __future__ import annotations

from difflib import get_close_matches

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from lightning_tansens.checks import check_text
from lightning_tansens.monitor.callback import TangentSensitivityMonitor
from lightning_tansens.monitor.namespaces import OtherCallback, OtherCheckpoint


class FreshEarlyStopping(EarlyStopping, OtherCallback):
    """Early stopping on a value of the monitor that waits for the next measurement instead of counting an old one twice.

    Lightning keeps the last value of every key, so that after an epoch without a measurement (``every_n_epochs``, a failed
    one, an undefined estimate) its own :class:`~lightning.pytorch.callbacks.EarlyStopping` sees no improvement and loses
    patience. Patience here counts measurements. It takes the parent's arguments.

    Raises:
        MisconfigurationException: If no monitor of the Trainer logs such a key.

    Example:
        >>> stop = FreshEarlyStopping("tansens/test_loss/empirical", patience=3)
        >>> monitor = TangentSensitivityMonitor(every_n_epochs=5)
        >>> trainer = pl.Trainer(callbacks=[monitor, stop], logger=False, enable_checkpointing=False, accelerator="cpu")

    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finds out when to check, as the parent does."""
        _expect_monitor(trainer, self, self.monitor)
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks a fresh value."""
        if _is_fresh(trainer, self.monitor):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks a fresh value."""
        if _is_fresh(trainer, self.monitor):
            super().on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warns if it has waited in vain."""
        super().on_train_end(trainer, pl_module)
        _warn_if_never_logged(trainer, self, self.monitor)


class FreshModelCheckpoint(ModelCheckpoint, OtherCheckpoint):
    """Checkpoints chosen by a value of the monitor, only of weights on which it was measured.

    After an epoch without a measurement Lightning's own :class:`~lightning.pytorch.callbacks.ModelCheckpoint` would rank the
    new weights by the old value; here nothing is saved then. It takes the parent's arguments; without ``monitor`` it
    does what the parent does.

    Raises:
        MisconfigurationException: If no monitor of the Trainer logs such a key.

    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Resolves the folder, as the parent does."""
        if self.monitor is not None:
            _expect_monitor(trainer, self, self.monitor)
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the weights that were measured."""
        if self.monitor is None or _is_fresh(trainer, self.monitor):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the weights that were measured."""
        if self.monitor is None or _is_fresh(trainer, self.monitor):
            super().on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warns if it has waited in vain."""
        super().on_train_end(trainer, pl_module)
        if self.monitor is not None:
            _warn_if_never_logged(trainer, self, self.monitor)


def _monitors(trainer: pl.Trainer, key: str) -> list[TangentSensitivityMonitor]:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    monitors = [callback for callback in callbacks if isinstance(callback, TangentSensitivityMonitor)]
    return [monitor for monitor in monitors if key.startswith(f"{monitor.options.prefix}/")]


def _is_fresh(trainer: pl.Trainer, key: str) -> bool:
    return any(monitor.is_fresh(trainer, key) for monitor in _monitors(trainer, key))


def _expect_monitor(trainer: pl.Trainer, callback: pl.Callback, key: str) -> None:
    check_text("monitor", key)
    if not _monitors(trainer, key):
        own = type(callback).__bases__[0].__name__
        raise MisconfigurationException(
            f"{type(callback).__name__}: expected a key of a TangentSensitivityMonitor among the Trainer's callbacks, but "
            f"got {key!r}; add the monitor, or use Lightning's own {own} for other keys"
        )


def _warn_if_never_logged(trainer: pl.Trainer, callback: pl.Callback, key: str) -> None:
    logged = dict.fromkeys(name for monitor in _monitors(trainer, key) for row in monitor.history for name in row)
    if logged and key not in logged:
        near = get_close_matches(key, logged, cutoff=0.5) or list(logged)
        rank_zero_warn(
            f"{type(callback).__name__} has done nothing, because no measurement had a value of {key!r}; there are values "
            f"of {', '.join(near)}"
        )

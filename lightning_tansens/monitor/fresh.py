"""Lightning's callbacks that watch a value, extended to tell a fresh value from an old one."""

from difflib import get_close_matches
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from lightning_tansens.checks import check_text
from lightning_tansens.monitor.callback import TangentSensitivityMonitor
from lightning_tansens.monitor.namespaces import OtherCallback, OtherCheckpoint


class _Fresh(pl.Callback):
    """What both have in common: they watch ``monitor``, and wait where there is none of its values for these weights."""

    monitor: Any

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Looks for the monitor that logs the key."""
        saves = isinstance(self, ModelCheckpoint)
        if self.monitor is not None or not saves:
            check_text("monitor", self.monitor)
            if not self._monitors(trainer):
                raise MisconfigurationException(
                    f"{type(self).__name__}: expected a key of a TangentSensitivityMonitor among the Trainer's callbacks, "
                    f"but got {self.monitor!r}; add the monitor, or use Lightning's own "
                    f"{'ModelCheckpoint' if saves else 'EarlyStopping'} for other keys"
                )
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Acts on a fresh value."""
        if self._is_fresh(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Acts on a fresh value."""
        if self._is_fresh(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warns if it has waited in vain."""
        super().on_train_end(trainer, pl_module)
        if self.monitor is None:
            return
        logged = dict.fromkeys(name for monitor in self._monitors(trainer) for row in monitor.history for name in row)
        if logged and self.monitor not in logged:
            near = get_close_matches(self.monitor, logged, cutoff=0.5) or list(logged)
            rank_zero_warn(
                f"{type(self).__name__} has done nothing, because no measurement had a value of {self.monitor!r}; there are "
                f"values of {', '.join(near)}"
            )

    def _monitors(self, trainer: pl.Trainer) -> list[TangentSensitivityMonitor]:
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        monitors = [callback for callback in callbacks if isinstance(callback, TangentSensitivityMonitor)]
        return [monitor for monitor in monitors if str(self.monitor).startswith(f"{monitor.options.prefix}/")]

    def _is_fresh(self, trainer: pl.Trainer) -> bool:
        key = self.monitor
        return key is None or any(monitor.is_fresh(trainer, key) for monitor in self._monitors(trainer))


class FreshEarlyStopping(_Fresh, EarlyStopping, OtherCallback):
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


class FreshModelCheckpoint(_Fresh, ModelCheckpoint, OtherCheckpoint):
    """Checkpoints chosen by a value of the monitor, only of weights on which it was measured.

    After an epoch without a measurement Lightning's own :class:`~lightning.pytorch.callbacks.ModelCheckpoint` would rank the
    new weights by the old value; here nothing is saved then. It takes the parent's arguments; without ``monitor`` it
    does what the parent does.

    Raises:
        MisconfigurationException: If no monitor of the Trainer logs such a key.
    """

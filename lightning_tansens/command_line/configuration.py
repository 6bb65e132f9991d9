"""The model, the data and the monitors that a LightningCLI configuration describes, without running it."""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_tansens.command_line.errors import UsageError
from lightning_tansens.monitor.callback import TangentSensitivityMonitor

#: One process that measures and does nothing else; what the user sets comes behind and wins.
MEASURE_ALONE = (
    "--trainer.devices=1",
    "--trainer.num_nodes=1",
    "--trainer.strategy=auto",
    "--trainer.logger=false",
    "--trainer.profiler=null",
    "--trainer.barebones=false",
    "--trainer.fast_dev_run=false",
    "--trainer.overfit_batches=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--ckpt_path=null",
)

Stage = Literal["test", "validation"]

_LOADERS: dict[Stage, str] = {"test": "test_dataloader", "validation": "val_dataloader"}


@dataclass(frozen=True)
class Configured:
    """What a configuration describes.

    Attributes:
        model: The LightningModule, with the weights of its construction.
        data: The datamodule, if there is one.
        trainer: The Trainer; its callbacks are the monitors alone.
        monitors: The monitors.
        stage: The evaluation loop that there is data for.

    """

    model: pl.LightningModule
    data: pl.LightningDataModule | None
    trainer: pl.Trainer
    monitors: list[TangentSensitivityMonitor]
    stage: Stage


class _Reader(LightningCLI):
    """A command line of the user's whose ``fit`` does nothing."""

    before_fit = after_fit = None

    def fit(self, **kwargs: Any) -> None:
        """Stands in for ``Trainer.fit``."""


def configure(config: Path, model: str | None, data: str | None, cli: str | None, overrides: Sequence[str]) -> Configured:
    """Builds what a YAML file of LightningCLI describes.

    Args:
        config: What the run was started with, with or without a level ``fit``, or the ``config.yaml`` that it saved.
        model: Import path of the LightningModule, if the file names none by ``class_path``.
        data: Import path of the datamodule, likewise.
        cli: Import path of the run's subclass of LightningCLI; None for LightningCLI itself.
        overrides: Further arguments of LightningCLI, such as ``--trainer.accelerator=cpu``.

    Raises:
        UsageError: If the file cannot be read or does not fit the classes, or there is no monitor or no data.

    """
    if importlib.util.find_spec("jsonargparse") is None:
        raise UsageError(
            "expected jsonargparse, with which LightningCLI reads its files; pip install 'lightning-tansens[cli]'"
        )
    written = _read(config)
    section = written["fit"] if isinstance(written.get("fit"), dict) else written
    classes = {
        "model": _imported(model, "model", pl.LightningModule),
        "data": _imported(data, "data", pl.LightningDataModule),
    }
    named = {name: isinstance(section.get(name), dict) and "class_path" in section[name] for name in classes}
    for name, found in classes.items():
        if found is None and not named[name] and (name == "model" or section.get(name)):
            raise UsageError(
                f"{config}: expected {name}.class_path, because no class is passed, but got {section.get(name)!r}; pass the "
                f"class of the run: --{name} module.Class"
            )
    base: Any = _imported(cli, "cli", LightningCLI) or LightningCLI
    command = ["--config", str(config), "fit"] if section is not written else ["fit", "--config", str(config)]
    strict = {"exit_on_error": False}
    reader: Any = type(base.__name__, (_Reader, base), {})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        try:
            built = reader(
                classes["model"],
                classes["data"],
                subclass_mode_model=named["model"],
                subclass_mode_data=named["data"],
                args=[*command, *MEASURE_ALONE, *overrides],
                parser_kwargs={**strict, "fit": strict},
                save_config_callback=None,
            )
        except argparse.ArgumentError as error:
            hint = "" if cli else "; arguments of the run's own subclass of LightningCLI need --cli module.Class"
            raise UsageError(f"{config}: {error}{hint}") from error
        except (ValueError, MisconfigurationException) as error:
            raise UsageError(f"{config}: {error}") from error
    trainer = built.trainer
    monitors = [callback for callback in trainer.callbacks if isinstance(callback, TangentSensitivityMonitor)]
    if not monitors:
        raise UsageError(
            f"{config}: expected a TangentSensitivityMonitor among trainer.callbacks, but there is none; add it there, or "
            "pass --trainer.callbacks+=lightning_tansens.TangentSensitivityMonitor"
        )
    trainer.callbacks = [*monitors]
    trainer.limit_val_batches = trainer.limit_test_batches = 1  # an argument "1" may be read as 1.0, all of them
    owners = [owner for owner in (built.datamodule, built.model) if owner is not None]
    for stage, loader in _LOADERS.items():
        if any(is_overridden(loader, owner) for owner in owners):
            return Configured(built.model, built.datamodule, trainer, monitors, stage)
    raise UsageError(
        f"{config}: expected a datamodule or a model with one of {list(_LOADERS.values())}, but got "
        f"{[type(owner).__name__ for owner in owners]} without; add the data of the run, or pass "
        "its class: --data module.Class"
    )


def _read(path: Path) -> dict[str, Any]:
    """The file as plain data, to see how it is built; its values are parsed by LightningCLI."""
    try:
        contents = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: expected a YAML file, but it cannot be read: {error}") from error
    if not isinstance(contents, dict):
        raise UsageError(f"{path}: expected a configuration of LightningCLI, but got {type(contents).__name__}")
    return contents


def _imported(path: str | None, option: str, base: type) -> type | None:
    if path is None:
        return None
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--{option} {path}: expected the import path of a class (module.Class): {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(f"--{option} {path}: expected a subclass of {base.__name__}, but got {found!r}")
    return found

"""The model, the data and the monitors that a LightningCLI configuration describes, without running it."""

import argparse
import importlib.util
import pkgutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import LightningCLI

from lightning_tansens.command_line.errors import UsageError, useful_part
from lightning_tansens.monitor.callback import TangentSensitivityMonitor
from lightning_tansens.monitor.module import defines

#: One process that measures and does nothing else; what the user sets comes behind and wins.
MEASURE_ALONE = {
    **{"devices": "1", "num_nodes": "1", "strategy": "auto", "overfit_batches": "0", "logger": "false", "profiler": "null"},
    **dict.fromkeys(("barebones", "fast_dev_run", "enable_progress_bar", "enable_model_summary"), "false"),
}

Stage = Literal["test", "validation"]

_LOADERS: dict[Stage, str] = {"test": "test_dataloader", "validation": "val_dataloader"}


class Configured(NamedTuple):
    """What a configuration describes; the Trainer has no callbacks but the monitors, and a loop to run on one batch."""

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


def configure(
    config: Path,
    model: str | None = None,
    data: str | None = None,
    cli: str | None = None,
    stage: Stage | None = None,
    overrides: Sequence[str] = (),
) -> Configured:
    """Builds what a YAML file of LightningCLI describes.

    The file is what the run was started with, with or without a level ``fit``, or the ``config.yaml`` that it saved. The
    stage None stands for the first loop with data that the module has a step for, the test's first.

    Raises:
        UsageError: If the file cannot be read or does not fit the classes, or there is no monitor or no data.
    """
    if importlib.util.find_spec("jsonargparse") is None:
        raise UsageError(
            "expected jsonargparse, with which LightningCLI reads its files; pip install 'lightning-tansens[cli]'"
        )
    written = _read(config)
    section = written["fit"] if isinstance(written.get("fit"), dict) else written
    classes = _classes(config, section, model, data)
    base: Any = _imported(cli, "cli", LightningCLI) or LightningCLI
    command = ["--config", str(config), "fit"] if section is not written else ["fit", "--config", str(config)]
    alone = ["--ckpt_path=null", *(f"--trainer.{name}={value}" for name, value in MEASURE_ALONE.items())]
    strict = {"exit_on_error": False}
    reader: Any = type(base.__name__, (_Reader, base), {})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        try:
            built = reader(
                **classes,
                args=[*command, *alone, *overrides],
                parser_kwargs={**strict, "fit": strict},
                save_config_callback=None,
            )
        except (argparse.ArgumentError, ValueError) as error:
            own = not cli and "does not accept" in str(error)
            hint = "; arguments of the run's own subclass of LightningCLI need --cli module.Class" if own else ""
            raise UsageError(f"{config}: {useful_part(str(error))}{hint}") from error
        except Exception as error:  # whatever the user's constructors raise
            raise UsageError(f"{config}: {type(error).__name__}: {error}") from error
    trainer = built.trainer
    monitors = [callback for callback in trainer.callbacks if isinstance(callback, TangentSensitivityMonitor)]
    if not monitors:
        raise UsageError(
            f"{config}: expected a TangentSensitivityMonitor among trainer.callbacks, but there is none; add it there, or "
            "pass --trainer.callbacks+=lightning_tansens.TangentSensitivityMonitor"
        )
    trainer.callbacks = [*monitors]
    trainer.limit_val_batches = trainer.limit_test_batches = 1  # an argument "1" may be read as 1.0, all of them
    return Configured(built.model, built.datamodule, trainer, monitors, _stage(config, built.model, built.datamodule, stage))


def _classes(config: Path, section: dict[str, Any], model: str | None, data: str | None) -> dict[str, Any]:
    """Returns the arguments of LightningCLI that say of which class the model and the data are."""
    classes: dict[str, Any] = {}
    for name, path, kind in (("model", model, pl.LightningModule), ("data", data, pl.LightningDataModule)):
        part = section.get(name)
        classes["model_class" if name == "model" else "datamodule_class"] = found = _imported(path, name, kind)
        classes[f"subclass_mode_{name}"] = named = isinstance(part, dict) and "class_path" in part
        if found is None and not named and (name == "model" or part):
            raise UsageError(
                f"{config}: expected {name}.class_path, because no class is passed, but got {part!r}; pass the class of the "
                f"run: --{name} module.Class"
            )
    return classes


def _stage(config: Path, model: pl.LightningModule, data: pl.LightningDataModule | None, wanted: Stage | None) -> Stage:
    """Returns the loop to run; a model without its step gets one that does nothing, as no loop runs without."""
    owners = [owner for owner in (data, model) if owner is not None]
    loaders = {name: loader for name, loader in _LOADERS.items() if wanted in (None, name)}
    stages = [name for name, loader in loaders.items() if any(defines(owner, loader) for owner in owners)]
    if not stages:
        raise UsageError(
            f"{config}: expected a datamodule or a model with one of {list(loaders.values())}, but got "
            f"{[type(owner).__name__ for owner in owners]} without; add the data of the run, or pass "
            "its class: --data module.Class"
        )
    chosen = next((name for name in stages if defines(model, f"{name}_step")), stages[0])
    if not defines(model, f"{chosen}_step"):
        setattr(model, f"{chosen}_step", lambda *args, **kwargs: None)
    return chosen


def _read(path: Path) -> dict[str, Any]:
    """The file as plain data, to see how it is built; its values are parsed by LightningCLI."""
    try:
        contents = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: expected a YAML file, but it cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(contents, dict):
        raise UsageError(f"{path}: expected a configuration of LightningCLI, but got {type(contents).__name__}")
    return contents


def _imported(path: str | None, option: str, base: type) -> type | None:
    if path is None:
        return None
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--{option} {path}: expected the import path of a class (module.Class): {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(f"--{option} {path}: expected a subclass of {base.__name__}, but got {found!r}")
    return found

"""Checkpoints of a run, read without executing anything that is in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from lightning_tansens.command_line.errors import UsageError


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint is, and when it was taken.

    Attributes:
        path: The file.
        epoch: The epoch after which it was taken, from 0.
        step: The number of optimizer steps until then.

    """

    path: Path
    epoch: int
    step: int

    def read(self) -> dict[str, Any]:
        """Returns its contents, the tensors on the CPU and read from the file when they are used.

        Raises:
            UsageError: If the file is no checkpoint of Lightning, or holds more than tensors and builtins.

        """
        return _read(self.path)


def find_checkpoints(path: Path) -> list[Checkpoint]:
    """Returns a checkpoint, or those of a folder by epoch and step; of copies of the same weights the first by name.

    Args:
        path: A file, or a folder of ``*.ckpt`` files.

    Raises:
        UsageError: If there is none, or one of them cannot be read.

    """
    if not path.exists():
        raise UsageError(f"{path}: expected a checkpoint or a folder of checkpoints, but there is no such file")
    files = sorted(path.glob("*.ckpt")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path}: expected a folder with *.ckpt files, but it has none; pass the folder that holds them")
    found = sorted((_header(file) for file in files), key=lambda checkpoint: (checkpoint.epoch, checkpoint.step))
    kept: list[Checkpoint] = []
    for checkpoint in found:
        if not any(_same_weights(checkpoint, other) for other in kept):
            kept.append(checkpoint)
    return kept


def _header(path: Path) -> Checkpoint:
    contents = _read(path)
    return Checkpoint(path, contents["epoch"], contents["global_step"])


def _same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    if (one.epoch, one.step) != (other.epoch, other.step):
        return False
    first, second = one.read()["state_dict"], other.read()["state_dict"]
    return first.keys() == second.keys() and all(_equal(first[name], second[name]) for name in first)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return bool(type(one) is type(other) and one == other)


def _read(path: Path) -> dict[str, Any]:
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path}: expected a checkpoint of tensors and builtin types, but it needs {_unsafe(path) or error}, which only "
            "unpickling could make and which might run code; leave that out of the checkpoint, for example with "
            "save_hyperparameters(ignore=[...])"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise UsageError(
            f"{path}: expected a checkpoint that torch.save wrote, but it cannot be read: {_first_line(error)}"
        ) from error
    missing = [name for name in ("state_dict", "epoch", "global_step") if not _has(contents, name)]
    if missing:
        raise UsageError(
            f"{path}: expected a checkpoint of Lightning, but {missing} is missing from it; pass what "
            "Trainer.save_checkpoint or ModelCheckpoint wrote"
        )
    return dict(contents)


def _has(contents: object, name: str) -> bool:
    return isinstance(contents, Mapping) and name in contents


def _unsafe(path: Path) -> str:
    try:
        return ", ".join(sorted(get_unsafe_globals_in_checkpoint(path)))
    except Exception:  # a file that is no archive of torch's has no list of them
        return ""


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__

"""Checkpoints of a run, read without executing anything that is in them."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from lightning_tansens.command_line.errors import UsageError

#: The keys by which a checkpoint of Lightning is known.
_FIELDS: dict[str, type] = {"state_dict": Mapping, "epoch": int, "global_step": int}


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint is, the epoch after which it was taken, from 0, and the number of optimizer steps until then."""

    path: Path
    epoch: int
    step: int


def find_checkpoints(path: Path) -> tuple[list[Checkpoint], list[UsageError]]:
    """Returns one checkpoint, or all of a folder by epoch and step, and the error of each file that cannot be read.

    Of copies of the same weights (``last.ckpt``) the first by name is returned.

    Raises:
        UsageError: If there is no file.
    """
    if not path.exists():
        raise UsageError(f"{path}: expected a checkpoint or a folder of checkpoints, but there is no such file")
    files = sorted(path.glob("*.ckpt")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path}: expected a folder with *.ckpt files, but it has none; pass the folder that holds them")
    found, errors = [], []
    for file in files:
        try:
            contents = read_checkpoint(file)
            found.append(Checkpoint(file, contents["epoch"], contents["global_step"]))
        except UsageError as error:
            errors.append(UsageError(f"{file}: {error}"))
    kept: list[Checkpoint] = []
    for checkpoint in sorted(found, key=lambda one: (one.epoch, one.step)):
        if not any(_same_weights(checkpoint, other) for other in kept):
            kept.append(checkpoint)
    return kept, errors


def _same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    if (one.epoch, one.step) != (other.epoch, other.step):
        return False
    first, second = (read_checkpoint(checkpoint.path)["state_dict"] for checkpoint in (one, other))
    return first.keys() == second.keys() and all(_equal(value, second[name]) for name, value in first.items())


def _equal(one: Any, other: Any) -> bool:
    tensors = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return torch.equal(one, other) if tensors else bool(type(one) is type(other) and one == other)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns what a checkpoint holds; the tensors are on the CPU and are read from the file when they are used.

    Raises UsageError if the file is no checkpoint of Lightning, or holds more than tensors and builtins.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"expected a checkpoint of tensors and builtin types, but it needs {_unsafe(path) or error}, which only "
            "unpickling could make and which might run code; leave that out of the checkpoint, for example with "
            "save_hyperparameters(ignore=[...])"
        ) from error
    except Exception as error:  # a broken file makes torch raise errors of many types
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UsageError(f"expected a checkpoint that torch.save wrote, but it cannot be read: {reason}") from error
    held = contents if isinstance(contents, Mapping) else {}
    missing = [name for name, kind in _FIELDS.items() if not isinstance(held.get(name), kind)]
    if missing:
        raise UsageError(
            f"expected a checkpoint of Lightning, but {missing} is missing from it; pass what "
            "Trainer.save_checkpoint or ModelCheckpoint wrote"
        )
    return dict(held)


def _unsafe(path: Path) -> str:
    try:
        return ", ".join(sorted(get_unsafe_globals_in_checkpoint(path)))
    except Exception:  # a file that is no archive of torch's has no list of them
        return ""

"""What a data set and its copy share: large arrays, files that are open, and what classes and modules keep.

A measurement may read all of it and change nothing.
"""

from __future__ import annotations

import copy
import fcntl
import gc
import os
import stat
import sys
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_tansens.monitor.data.copying import is_of_library
from lightning_tansens.tangent.isolation.randomness import GENERATORS, put_state, state_of

#: Where the operating system lists the files that the process has open.
_LISTS = ("/proc/self/fd", "/dev/fd")
_NUMBERS = (bool, int, float, complex, str, bytes)
_CONTAINERS = (dict, OrderedDict, defaultdict, Counter, list, set, bytearray, deque)
#: How many elements of a longer container are compared.
_COMPARED = 1000
#: How deep the attributes of a data set are followed: a set within a set, and its transforms.
_DEPTH = 4


class SharedWriteError(RuntimeError):
    """A data set writes into an array that its copy shares with it."""


class _NoWriting(TorchDispatchMode):
    def __init__(self, shared: list[tuple[int, int]]) -> None:
        super().__init__()
        self._shared = shared

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[place] if place < len(args) else kwargs.get(argument.name)
                for tensor in written if isinstance(written, (list, tuple)) else [written]:
                    address = tensor.data_ptr() if isinstance(tensor, Tensor) else -1
                    if any(first <= address < last for first, last in self._shared):
                        raise SharedWriteError(f"{func} writes into a tensor that a data set and its copy share")
        return func(*args, **kwargs)


@contextmanager
def unwritten(shared: list[tuple[int, int]]) -> Iterator[None]:
    """Lets a block read shared memory, but not write to it.

    Raises:
        SharedWriteError: Before the block writes.
    """
    if not shared:
        yield
        return
    try:
        with _NoWriting(shared), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            yield
    except ValueError as error:
        if "read-only" not in str(error):  # NumPy's words for an array that is not writable
            raise
        raise SharedWriteError(f"{error}: a data set and its copy share that array") from error


@contextmanager
def no_file_left_open(among_workers: bool) -> Iterator[None]:
    """Refuses data that keep a file open after their copy is gone: in a module, or in the cache of a function.

    Args:
        among_workers: Whether workers will read the data; without them nobody shares the file.

    Raises:
        ValueError: If the block leaves a file open for reading.
    """
    before = _open_files() if among_workers else {}
    yield
    if not among_workers or _open_files().keys() <= before.keys():
        return
    gc.collect()  # objects that refer to themselves are closed only now
    left = [path for file, path in _open_files().items() if file not in before]
    if left:
        raise ValueError(
            f"expected data that keep their open files themselves, but reading a sample left {left[0]} open elsewhere (in a "
            "module, a class or the cache of a function), where the workers would share it; keep the file in an attribute "
            "of the data set, or pass the monitor a Dataset of its own for this set (reference=..., test_dataloaders=...)"
        )


def _open_files() -> dict[tuple[int, int, int], str]:
    """Returns the regular files that are open for reading, by number and identity; none if the system lists none."""
    found = {}
    folder = next((folder for folder in _LISTS if os.path.isdir(folder)), None)
    for name in os.listdir(folder) if folder else ():
        try:
            number = int(name)
            status = os.fstat(number)
            reads = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            path = os.readlink(f"{folder}/{name}") if folder == _LISTS[0] else f"file {name}"
        except OSError:  # the folder itself, which was open while it was listed
            continue
        if stat.S_ISREG(status.st_mode) and reads:
            found[number, status.st_dev, status.st_ino] = path
    return found


@contextmanager
def nothing_shared_changes(parts: Sequence[Any]) -> Iterator[SharedState]:
    """Refuses data that count, cache or draw in their class or their module, which their copy would change too.

    Yields the state. Put it back after following a sampler or a stream, and renew it after the first sample is read; samples
    that are read from then on must change nothing.

    Args:
        parts: The data set, the collate function, the sampler; nothing for data that the training does not read.

    Raises:
        ValueError: If they change something; it is put back.
    """
    state = SharedState(parts)
    yield state
    changed = state.changed()
    if changed:
        state.restore()
        raise ValueError(
            "expected data that keep what they count, cache or draw in themselves, but reading a sample changed "
            f"{changed[0]}, which the training's data and the monitor's copy share; keep it in an attribute of the data "
            "set, or pass the monitor a Dataset of another class for this set (reference=..., test_dataloaders=...)"
        )


class SharedState:
    """The state in the classes and modules of a data set, its collate function and its sampler, and of what these hold.

    It compares only what can count or grow: numbers, containers, random generators. It leaves out installed packages, names
    that are set for the first time (a tokenizer that is loaded at the first access) and caches of functions.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._owners: dict[int, type | ModuleType] = {}
        self._seen: dict[int, Any] = {}
        for part in parts:
            self._visit(part, 0)
        self._at_first = [(owner, name, value, look, _state(value)) for owner, name, value, look in self._compared()]
        self.renew()

    def renew(self) -> None:
        """Compares with the present state from now on."""
        self._looks = {(id(owner), name): look for owner, name, _, look in self._compared()}

    def changed(self) -> list[str]:
        """Returns the names of what has changed."""
        return [
            f"{owner.__name__}.{name}"
            for owner, name, _, look in self._compared()
            if (before := self._looks.get((id(owner), name), look)) != look and not (before is False and look is True)
        ]

    def put_back(self) -> None:
        """Restores the first state, and compares with it from now on."""
        self.restore()
        self.renew()

    def restore(self) -> None:
        """Restores the first state."""
        for owner, name, value, look, state in self._at_first:
            if vars(owner).get(name) is not value:
                setattr(owner, name, value)
            if _look(value) != look:
                _put(value, state)

    def _compared(self) -> Iterator[tuple[type | ModuleType, str, Any, Any]]:
        """Yields owners, names, values and what is compared of them."""
        for owner in self._owners.values():
            for name, value in list(vars(owner).items()):
                look = None if name.startswith("__") else _look(value)
                if look is not None:
                    yield owner, name, value, look

    def _visit(self, value: Any, depth: int) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, MethodType):
            self._visit(value.__self__, depth)
        elif isinstance(value, FunctionType):
            self._add(value)
        elif isinstance(value, (list, tuple)):
            for item in value[:10] if depth < _DEPTH else ():
                self._visit(item, depth + 1)
        elif not isinstance(value, (type, ModuleType, *_NUMBERS, torch.Tensor, np.ndarray, dict)) and value is not None:
            for cls in type(value).__mro__:
                self._add(cls)
            for held in list(getattr(value, "__dict__", {}).values()) if depth < _DEPTH else ():
                self._visit(held, depth + 1)

    def _add(self, owner: Any) -> None:
        module = sys.modules.get(getattr(owner, "__module__", None) or "")
        if module is not None and not is_of_library(owner) and _is_of_a_project(module):
            self._owners[id(module)] = module
            if isinstance(owner, type):
                self._owners[id(owner)] = owner


def _is_of_a_project(module: ModuleType) -> bool:
    """Whether a module belongs to the user: what an installed package counts is its own affair."""
    installed = {"site-packages", "dist-packages"} & set(Path(getattr(module, "__file__", None) or ".").parts)
    return not installed and module.__name__.split(".")[0] not in {*sys.stdlib_module_names, "lightning_tansens"}


def _look(value: Any) -> Any:
    """Returns what is compared of a value; None if nothing is."""
    if type(value) in _CONTAINERS:
        items = islice(value.items() if isinstance(value, dict) else value, _COMPARED)
        return len(value), list(map(_item, items))
    if issubclass(type(value), (int, str, bytes)):  # a proxy may not be asked for its class
        return value
    state = _state(value)
    return None if state is None else repr(state.tolist() if isinstance(state, Tensor) else state)  # a tensor's is short


def _state(value: Any) -> Any:
    """Returns what a value can be restored from; None for other kinds of values."""
    if issubclass(type(value), _NUMBERS):
        return value
    if type(value) in _CONTAINERS:
        return copy.copy(value)
    return state_of(value) if issubclass(type(value), GENERATORS) else None


def _put(value: Any, state: Any) -> None:
    if type(value) in _CONTAINERS:
        value.clear()
        getattr(value, "update" if isinstance(value, (dict, set)) else "extend")(state)
    else:
        put_state(value, state)


def _item(item: Any) -> Any:
    if isinstance(item, tuple):
        return tuple(map(_item, item))
    return repr(item) if isinstance(item, _NUMBERS) else id(item)

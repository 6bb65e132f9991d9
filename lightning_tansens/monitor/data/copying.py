"""Copies data sets, so that a measurement never touches the objects of the training."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.managers import BaseProxy
from multiprocessing.shared_memory import SharedMemory
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from lightning_tansens.tangent.isolation.randomness import GENERATORS

#: Up to this size in total, the arrays that a data set holds are copied; beyond it they are shared, and writing is refused.
COPIED_BYTES = 64 * 2**20

_ATOMS = frozenset(
    [type(None), bool, int, float, complex, str, bytes, range, slice, type, type(...), type(NotImplemented), ModuleType]
    + [CodeType, property, ref, torch.dtype, torch.device, torch.Size]
)
_CONTAINERS = (list, tuple, dict, set)
_MUTABLE = (dict, list, set, bytearray, *GENERATORS)
_LRU_CACHE = type(functools.lru_cache(len))
_LOCKS = {type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock}
#: Their classes and functions keep no state that belongs to a data set.
_LIBRARIES = frozenset(
    ["builtins", "collections", "functools", "io", "numpy", "torch", "torchvision", "lightning", "pytorch_lightning"]
)
_SHARED_CLASSES = frozenset(["Trainer", "LightningModule", "Logger"])


class CopyError(ValueError):
    """A data set holds something that cannot be copied."""


class Copier:
    """Copies objects with all that they hold, like ``copy.deepcopy``, and more of it.

    Beyond ``deepcopy`` it copies what functions close over, containers and caches of methods that a class holds, locks and
    files that are open for reading. Strings, bytes, the Trainer and LightningModules are shared, and so are large arrays if
    ``share`` says so.

    Example:
        >>> import random
        >>> held = {"cache": {}, "generator": random.Random(0)}
        >>> copied = Copier().copy(held)
        >>> copied["cache"]["a"] = copied["generator"].random()
        >>> held["cache"]
        {}
    """

    def __init__(self, share: bool = True) -> None:
        self._left = float(COPIED_BYTES) if share else float("inf")
        self._memo: dict[int, Any] = {}
        self._alive: list[Any] = []  # ids stay valid as long as their objects live
        self._path: list[str] = []
        #: The copies of random generators.
        self.generators: list[Any] = []
        #: Addresses of the memory that is shared, from and to.
        self.shared: list[tuple[int, int]] = []

    def copy(self, value: Any) -> Any:
        """Returns the copy.

        Raises:
            CopyError: If it holds something that cannot be copied.
        """
        if type(value) in _ATOMS or isinstance(value, type):
            return value
        if id(value) in self._memo:
            return self._memo[id(value)]
        for kinds, handler in self._handlers:
            if isinstance(value, kinds):
                made = handler(self, value)
                break
        self._memo[id(value)] = made
        self._alive.append(value)
        if isinstance(made, GENERATORS):
            self.generators.append(made)
        return made

    def _container(self, value: Any) -> Any:
        kind: Any = type(value)
        if kind not in _CONTAINERS:
            return self._rebuild(value)
        items = value.values() if kind is dict else value
        if all(type(item) in _ATOMS or (type(item) is tuple and all(type(i) in _ATOMS for i in item)) for item in items):
            return value if kind is tuple else value.copy()  # keys are hashable
        if kind is tuple:
            return tuple(map(self.copy, value))
        made = self._memo[id(value)] = kind()
        if kind is list:
            made.extend(map(self.copy, value))
        elif kind is set:
            made.update(map(self.copy, value))
        else:
            for key, item in value.items():
                made[self.copy(key)] = self._named(str(key), item)
        return made

    def _own_way(self, value: Any) -> Any:
        try:
            return value.__deepcopy__(self._memo)
        except Exception as error:  # what a class of the user's raises there
            raise self._refusal(value, str(error)) from error

    def _named(self, name: str, value: Any) -> Any:
        self._path.append(name)
        made = self.copy(value)
        self._path.pop()
        return made

    def _tensor(self, value: Tensor) -> Tensor:
        size = value.numel() * value.element_size()
        if type(value) is not Tensor or value.layout != torch.strided or value.requires_grad:
            return self._own_way(value)  # type: ignore[no-any-return]
        if size <= self._left:
            self._left -= size
            return value.clone()
        storage = value.untyped_storage()
        self.shared.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes()))
        return value.detach()

    def _array(self, value: np.ndarray[Any, Any]) -> Any:
        if value.dtype.hasobject:
            made = value.copy()
            for place, held in enumerate(value.flat):
                made.flat[place] = self.copy(held)
            return made
        if value.nbytes <= self._left and not isinstance(value, np.memmap):
            self._left -= value.nbytes
            return value.copy()
        first = value.__array_interface__["data"][0]
        self.shared.append((first, first + sum((n - 1) * s for n, s in zip(value.shape, value.strides)) + value.itemsize))
        view = value.view()
        view.flags.writeable = False
        return view

    def _function(self, value: FunctionType) -> FunctionType:
        if is_of_library(value) or not (value.__closure__ or value.__defaults__ or value.__kwdefaults__):
            return value
        closure = value.__closure__ or ()
        new = [cell for cell in closure if id(cell) not in self._memo]
        self._memo |= {id(cell): CellType() for cell in new}
        cells = tuple(self._memo[id(cell)] for cell in closure)
        made = FunctionType(value.__code__, value.__globals__, value.__name__, None, cells)
        self._memo[id(value)] = made  # before what it closes over, which may be the function itself
        self._alive += new
        for cell in new:
            with suppress(ValueError):  # the cell is empty
                self._memo[id(cell)].cell_contents = self.copy(cell.cell_contents)
        made.__defaults__, made.__kwdefaults__ = self.copy(value.__defaults__), self.copy(value.__kwdefaults__)
        made.__dict__.update(self.copy(vars(value)))
        made.__qualname__, made.__module__ = value.__qualname__, value.__module__
        return made

    def _builtin(self, value: BuiltinFunctionType) -> Any:
        owner = value.__self__
        return value if isinstance(owner, (type, ModuleType, type(None))) else getattr(self.copy(owner), value.__name__)

    def _local(self, value: threading.local) -> threading.local:
        made = type(value)()
        vars(made).update(self.copy(vars(value)))
        return made

    def _file(self, value: Any) -> Any:
        if value.closed:
            return value
        try:
            same = not value.writable() and os.path.samestat(os.stat(value.name), os.fstat(value.fileno()))
            place = value.tell() if same else 0
        except (OSError, TypeError, ValueError):
            same = False
        if not same:
            raise self._refusal(value, "it is no file that can be opened again for reading")
        if isinstance(value, io.TextIOWrapper):
            made: Any = open(value.name, encoding=value.encoding, errors=value.errors)  # noqa: SIM115  (closed with its owner)
        else:
            made = open(value.name, "rb", buffering=0 if isinstance(value, io.FileIO) else -1)  # noqa: SIM115
        made.seek(place)
        return made

    def _one_for_all(self, value: Any) -> Any:
        raise self._refusal(value, "processes share it")

    def _rebuild(self, value: Any) -> Any:
        if hasattr(value, "__deepcopy__"):
            return self._own_way(value)
        if any(cls.__name__ in _SHARED_CLASSES and is_of_library(cls) for cls in type(value).__mro__):
            return value
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:  # what a class of the user's raises there
            raise self._refusal(value, str(error)) from error
        if isinstance(reduced, str):
            return value
        make, args = reduced[:2]
        state, items, pairs = (*reduced[2:5], None, None, None)[:3]
        made = make(*self.copy(tuple(args)))
        self._memo[id(value)] = made
        for item in items or ():
            made.append(self.copy(item))
        for key, item in pairs or ():
            made[self.copy(key)] = self.copy(item)
        if state is not None:
            self._set_state(value, made, state)
        if isinstance(getattr(made, "__dict__", None), dict):
            self._shadow(made)
        return made

    def _set_state(self, value: Any, made: Any, state: Any) -> None:
        def copied(held: Any) -> Any:
            if not isinstance(held, dict):
                return self.copy(held)
            return {name: self._named(f"{type(value).__name__}.{name}", one) for name, one in held.items()}

        if hasattr(made, "__setstate__"):
            made.__setstate__(copied(state))
            return
        own, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
        if own:
            vars(made).update(copied(own))
        for name, held in copied(slots or {}).items():
            setattr(made, name, held)

    def _shadow(self, made: Any) -> None:
        """Gives a copy containers and caches of its own in place of those that its class holds for all instances."""
        own = vars(made)
        for cls in type(made).__mro__:
            if is_of_library(cls):
                continue
            for name, held in vars(cls).items():
                function = held.__func__ if isinstance(held, (staticmethod, classmethod)) else held
                if name in own or name.startswith("__") or not isinstance(function, (*_MUTABLE, _LRU_CACHE)):
                    continue
                copied = self.copy(function)
                if isinstance(held, classmethod):
                    copied = MethodType(copied, type(made))
                elif held is function and isinstance(function, _LRU_CACHE):
                    copied = MethodType(copied, made)
                own[name] = copied

    def _refusal(self, value: Any, reason: str) -> CopyError:
        place = next((name for name in reversed(self._path) if "." in name), "")
        return CopyError(
            f"expected data that can be copied, because the training's own are never read, but {place or 'it'} holds a "
            f"{type(value).__name__} ({reason}); pass the monitor a Dataset of its own for this set (reference=..., "
            "test_dataloaders=...), or open files in the first __getitem__"
        )

    _handlers: Iterable[tuple[Any, Callable[[Copier, Any], Any]]] = (
        (_CONTAINERS, _container),
        (Tensor, _tensor),
        (np.ndarray, _array),
        (FunctionType, _function),
        (MethodType, lambda self, value: MethodType(self.copy(value.__func__), self.copy(value.__self__))),
        (BuiltinFunctionType, _builtin),
        (_LRU_CACHE, lambda self, value: functools.lru_cache(**value.cache_parameters())(self.copy(value.__wrapped__))),
        (torch.Generator, lambda self, value: torch.Generator(value.device).set_state(value.get_state())),
        (tuple(_LOCKS), lambda self, value: _LOCKS[type(value)]()),
        (threading.local, _local),
        ((io.BufferedReader, io.FileIO, io.TextIOWrapper), _file),
        ((BaseProxy, SharedMemory), _one_for_all),
        (object, _rebuild),
    )


def is_of_library(owner: Any) -> bool:
    """Whether a class or a function comes from a library whose classes keep no state that belongs to a data set."""
    return (getattr(owner, "__module__", None) or "").split(".")[0] in _LIBRARIES

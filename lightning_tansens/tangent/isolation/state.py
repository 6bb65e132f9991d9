"""Saves and puts back what a forward pass may leave behind in a network.

That is: parameters and buffers, whatever wrote them, and the objects that stand under their names; plain attributes of
modules (the masked weight of a pruned layer, normalised weights, counters, lists and dicts that caches keep), and those of
objects whose classes come from the same package as a module of the network; tensors and arrays in all of these; modules
that are held in a plain list; ``requires_grad`` and ``.grad``; and the state of lazy modules, which the first training batch
is to initialise as if nobody had called them before. What lies elsewhere, in globals and closures, nobody can find.
"""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import is_
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from lightning_tansens.tangent.isolation.hooks import HOOKS
from lightning_tansens.tangent.isolation.memory import Memory, plain_parts

#: Attributes of modules that the surroundings of a measurement switch and put back themselves.
_SWITCHED = frozenset({"training", "log", *HOOKS})
_ELSEWHERE = _SWITCHED | {"_parameters", "_buffers", "_modules"}
_SIMPLE = frozenset({str, bytes, int, float, bool, type(None), type})
_CONTAINERS = frozenset({dict, OrderedDict, defaultdict, Counter, list, set, deque})
#: Longer containers are put back, but not searched for tensors.
_LONGEST = 1000
_DEPTH = 4
_FOREIGN = frozenset({"torch", "lightning", "pytorch_lightning", "torchmetrics", "builtins"})


class State:
    """All that belongs to the state of a network and of the modules in it."""

    def __init__(self, root: nn.Module) -> None:
        #: All modules, also those that are held in plain lists.
        self.modules: list[nn.Module] = []
        self._seen: dict[int, object] = {}  # kept, so that no other object gets its number
        self._restores: list[Callable[[], None]] = []
        self._lazy: list[Callable[[], None]] = []
        self._empty: list[Any] = []
        self._tensors: list[tuple[str, Tensor]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        modules = list(root.named_modules())
        self._packages = {_package(module) for _, module in modules} - _FOREIGN
        for path, module in modules:
            self._visit_module(path, module)
        #: The types of the devices on which there is a tensor.
        self.devices = {tensor.device.type for tensor in (*root.parameters(), *root.buffers())} - {"meta"}
        self._guarded = {id(module) for module in self.modules}
        self._views = [(name, _View(tensor)) for name, tensor in self._tensors]
        self._memory = Memory(self._tensors)

    def guards(self, model: nn.Module) -> bool:
        """Says whether all modules of a model are among those whose state this is."""
        return all(id(module) in self._guarded for module in model.modules())

    @contextmanager
    def without_gradients(self) -> Iterator[None]:
        """Takes ``.grad`` away for a block, so that nothing can add to it."""
        gradients = [(tensor, tensor.grad) for _, tensor in self._tensors if tensor.is_leaf]
        try:
            for tensor, gradient in gradients:
                if gradient is not None:
                    tensor.grad = None
            yield
        finally:
            for tensor, gradient in gradients:
                if tensor.grad is not gradient:
                    tensor.grad = gradient

    def restore(self, last: bool) -> list[str]:
        """Puts everything back and returns the names of what cannot be.

        Before the ``last`` time, lazy modules stay as they are, and :class:`Memory` may overlook what no version counts.
        """
        for restore in [*self._restores, *(self._lazy if last else [])]:
            restore()
        for container in self._empty:
            if container:
                container.clear()
        failed = [name for name, view in self._views if not view.restore()]
        for array, copy in self._arrays:
            if array.tobytes() != copy.tobytes():
                array[...] = copy
        return failed + self._memory.restore(last)

    # ---------------------------------------------------------------------------------------------- what is saved

    def _visit_module(self, path: str, module: nn.Module) -> None:
        if id(module) in self._seen:
            return
        self._seen[id(module)] = module
        self.modules.append(module)
        lazy = isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()  # type: ignore[misc]
        restores = self._lazy if lazy else self._restores
        restores.append(_attributes_restored(module))
        for held in (module._parameters, module._buffers, module._modules):  # of a scripted module they are no dicts
            self._save_contents(held, restores)
        for name, value in {**module._parameters, **module._buffers, **vars(module)}.items():
            if name not in _ELSEWHERE:
                self._visit(f"{path}.{name}".lstrip("."), value, restores, 0)

    def _save_contents(self, container: Any, restores: list[Callable[[], None]]) -> None:
        # most are empty, and to empty them takes less time; what a lazy module adds when it is initialised stays for a while
        if type(container) in _CONTAINERS and not container and restores is not self._lazy:
            self._empty.append(container)
        else:
            restores.append(_contents_restored(container))

    def _visit(self, path: str, value: Any, restores: list[Callable[[], None]], depth: int) -> None:
        if type(value) in _SIMPLE or id(value) in self._seen:
            return
        if isinstance(value, nn.Module):
            for name, module in value.named_modules():
                self._visit_module(f"{path}.{name}".rstrip("."), module)
            return
        self._seen[id(value)] = value
        if isinstance(value, Tensor):
            if is_lazy(value):
                restores.append(partial(_restore_laziness, value, type(value), value.data))
            else:
                self._tensors.append((path, value))
        elif isinstance(value, np.ndarray):
            if value.dtype != object:
                self._arrays.append((value, value.copy()))
        elif isinstance(value, tuple) or type(value) in _CONTAINERS:
            self._save_contents(value, restores)
            if depth < _DEPTH and len(value) <= _LONGEST:
                items = value.items() if isinstance(value, dict) else enumerate(value)
                for name, item in list(items):
                    self._visit(f"{path}.{name}".lstrip("."), item, restores, depth + 1)
        elif depth < _DEPTH and hasattr(value, "__dict__") and self._is_own(value):
            restores.append(_attributes_restored(value))
            for name, item in vars(value).items():
                self._visit(f"{path}.{name}", item, restores, depth + 1)

    def _is_own(self, value: object) -> bool:
        return _package(value) in self._packages and not callable(value) and not isinstance(value, Dataset)


class _View:
    """Where a tensor lies, which an assignment to ``.data`` and a resize change."""

    __slots__ = ("_alias", "_place", "_tensor", "_trained")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._trained = tensor.requires_grad
        plain = next(plain_parts(tensor), None) is tensor
        self._alias = tensor.detach() if plain else None
        self._place = _place(tensor) if plain else None

    def restore(self) -> bool:
        tensor = self._tensor
        if tensor.is_leaf and tensor.requires_grad != self._trained:
            tensor.requires_grad_(self._trained)
        if self._alias is None or self._place is None:
            return True
        if tensor.untyped_storage()._cdata != self._alias.untyped_storage()._cdata or _place(tensor) != self._place:
            try:
                tensor.data = self._alias
            except RuntimeError:
                return False
        return True


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset()


def _restore_attributes(owner: object, kind: type, now: dict[str, Any], names: set[str], saved: dict[str, Any]) -> None:
    if type(owner) is not kind:
        owner.__class__ = kind
    if now.keys() == names and all(map(is_, map(now.get, saved), saved.values())):
        return
    for name in [name for name in now if name not in saved and name not in _SWITCHED]:
        del now[name]
    now.update(saved)


def _restore_contents(container: Any, saved: Any) -> None:
    if saved is None or not (container or saved) or _same(container, saved):
        return
    container.clear()
    (container.extend if isinstance(container, (list, deque)) else container.update)(saved)


def _same(now: Any, saved: Any) -> bool:
    if len(now) != len(saved) or isinstance(now, set):
        return len(now) == len(saved) and now == saved  # type: ignore[no-any-return]
    return all(map(is_, now, saved)) and (not isinstance(now, dict) or all(map(is_, now.values(), saved.values())))


def _restore_laziness(tensor: Tensor, kind: type, empty: Tensor) -> None:
    if type(tensor) is not kind:
        tensor.data = empty
        tensor.__class__ = kind


# few objects for each module: what Python's collector has to look through takes as long as small networks do


def _attributes_restored(owner: object) -> Callable[[], None]:
    now = vars(owner)
    saved = {name: value for name, value in now.items() if name not in _SWITCHED}
    return partial(_restore_attributes, owner, type(owner), now, {*now}, saved)


def _contents_restored(container: Any) -> Callable[[], None]:
    return partial(_restore_contents, container, container.copy() if type(container) in _CONTAINERS else None)


def _package(value: object) -> str:
    return (type(value).__module__ or "").partition(".")[0]

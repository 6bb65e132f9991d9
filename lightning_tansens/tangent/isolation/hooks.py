"""The user's hooks are silent in a measurement; hooks by which a library computes the network are not.

Silent are all backward hooks, hooks of parameters, hooks on all modules, and those forward hooks that only watch. A forward
hook is part of the network, and runs, if it comes from a library that computes with it (:data:`LIBRARIES`: pruning, weight
norm, spectral norm, lazy modules, the observers of quantisation), or if it is a function whose body returns something other
than None, for torch takes that for the module's input or output. Of a lambda nobody can tell; it is silent.
"""

import dis
import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as all_modules

#: Where the classes and functions of hooks are defined without which a network computes something else.
LIBRARIES = ("torch.nn.utils", "torch.nn.modules.lazy", "torch.ao", "torch.distributed", "torchao", "timm", "peft")

_FORWARD = ("_forward_hooks", "_forward_pre_hooks")
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")
#: The names under which a module keeps its hooks.
HOOKS = (
    *_FORWARD,
    *_BACKWARD,
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)
_ON_ALL = {name: vars(all_modules)["_global" + name] for name in HOOKS if "_global" + name in vars(all_modules)}


@contextmanager
def silent_hooks(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Takes the hooks of modules and of their parameters away for a block; what the block hangs up itself is dropped.

    The dictionaries stay the same objects, because the handles by which hooks are removed know them.
    """
    saved: list[tuple[dict[int, Any], dict[int, Any], set[int]]] = []
    empty: list[dict[int, Any]] = []
    for own in [*map(vars, modules), _ON_ALL]:
        held = [own[name] for name in HOOKS if name in own]
        empty += [hooks for hooks in held if not hooks]
        found = [hooks for hooks in held if hooks]
        if found:
            kept = {
                key for name in _FORWARD for key, hook in own.get(name, {}).items() if own is not _ON_ALL and _computes(hook)
            }
            saved += [(hooks, hooks.copy(), kept) for hooks in found]
    for module in modules:
        for parameter in module._parameters.values():
            saved += [(hooks, hooks.copy(), set()) for hooks in _hooks_of(parameter)]
    try:
        for hooks, copy, kept in saved:
            for key in copy.keys() - kept:
                del hooks[key]
        yield
    finally:
        for hooks in empty:
            hooks.clear()
        for hooks, copy, _ in saved:
            hooks.clear()
            hooks.update(copy)


def _hooks_of(parameter: Tensor | None) -> list[dict[int, Any]]:
    if parameter is None or nn.parameter.is_lazy(parameter):
        return []
    found = (parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None))
    return [hooks for hooks in found if hooks]


def _computes(hook: Any) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    hook = getattr(hook, "__func__", hook)  # of a method
    called = hook if hasattr(hook, "__code__") else vars(type(hook)).get("__call__")
    kinds = [hook] if called is hook else type(hook).__mro__
    if any(f"{kind.__module__}.".startswith(tuple(f"{name}." for name in LIBRARIES)) for kind in kinds):
        return True
    code = getattr(called, "__code__", None)
    return code is not None and code.co_name != "<lambda>" and _returns_something(code)


def _returns_something(code: CodeType) -> bool:
    before = None
    for now in dis.get_instructions(code):
        if now.opname == "RETURN_VALUE" and not (before and before.opname == "LOAD_CONST" and before.argval is None):
            return True
        if now.opname == "RETURN_CONST" and now.argval is not None:  # Python 3.12 and 3.13
            return True
        before = now
    return False

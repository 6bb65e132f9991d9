"""Watching the calls of a forward pass, however the network is written."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, resolve_name

from lightning_tansens.checks import check_model


class CallTracer(TorchFunctionMode):
    """Sees every torch function that a forward pass of a model calls, together with the module in which it happens.

    Functions are seen at the level of ``torch.nn.functional``: ``nn.ReLU``, ``F.relu`` and ``Tensor.relu`` all arrive here,
    so a network may mix modules and functional calls. Subclasses override :meth:`on_call`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_model(model)
        self._model = model
        self._stack: list[nn.Module] = []

    def on_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Is called instead of ``func(*args, **kwargs)`` and returns what the network shall see."""
        return func(*args, **kwargs)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Hands every call to :meth:`on_call`; the mode is off while it runs."""
        return self.on_call(func, args, kwargs or {})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Traces the block; the hooks that follow the module stack are global and removed on exit."""
        enter = register_module_forward_pre_hook(lambda module, args: self._stack.append(module))
        leave = register_module_forward_hook(lambda module, args, output: self._pop(module))
        try:
            with self:
                yield
        finally:
            enter.remove()
            leave.remove()
            self._stack.clear()

    def _pop(self, module: nn.Module) -> None:
        # a forward that raised inside and was caught by the model leaves its modules on the stack
        while self._stack and self._stack.pop() is not module:
            pass

    def place(self, func: Callable[..., Any] | None = None) -> str:
        """Says where the trace is, e.g. ``gelu called in module 'net.3' (GELU)``."""
        module = self._stack[-1] if self._stack else None
        where = f"module '{self.module_name}' ({type(module).__name__})" if module is not None else "the model"
        return where if func is None else f"{resolve_name(func) or getattr(func, '__name__', repr(func))} called in {where}"

    @property
    def module_name(self) -> str:
        """The dotted name of the module that is running, for the names of layers."""
        module = self._stack[-1] if self._stack else None
        return self._names.get(module, type(module).__name__) if module is not None else ""

    @cached_property
    def _names(self) -> dict[nn.Module, str]:
        return {module: name or type(module).__name__ for name, module in self._model.named_modules()}


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yields the tensors among the arguments or results of a call."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, Mapping):
        yield from tensors_in(list(values.values()))


def bytes_in(values: Any) -> int:
    """Returns the size of these tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(values))

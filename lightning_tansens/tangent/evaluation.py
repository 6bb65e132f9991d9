"""The surroundings in which a network is measured, and their exact restoration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from lightning_tansens.checks import check_model


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Runs a block with every module in eval mode and leaves the model bitwise as it was.

    Inside the block autograd is available (also when the caller is in ``no_grad`` or ``inference_mode``), autocast is
    off, compiled modules run eagerly, checkpoints call their function directly and the fused inference path of attention
    is not taken, because none of these can be differentiated twice. On exit, also after an exception, each module's own
    mode and each buffer is restored.

    The modes are written directly instead of through ``model.eval()``: overridden ``train``/``eval`` methods (frozen
    BatchNorm, merged adapters) may do more than set the flag, and a blanket ``train()`` would un-freeze modules.

    Args:
        model: The network that is measured.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
        >>> with evaluation(net):
        ...     [m.training for m in net]
        [False, False]
        >>> [m.training for m in net]
        [True, False]

    """
    check_model(model)
    modules = list(model.modules())
    modes = [module.training for module in modules]
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_no_attention_fast_path())
        stack.enter_context(_no_checkpointing())
        for device in devices - {"meta"}:
            stack.enter_context(torch.autocast(device, enabled=False))
        buffers = _copy_buffers(modules)
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes):
                module.training = mode
            _restore_buffers(buffers)


@contextmanager
def _no_attention_fast_path() -> Iterator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


class _DirectCheckpoint:
    """Stands in for the autograd function of reentrant checkpoints."""

    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        return function(*args)


def _direct_generator(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Stands in for what surrounds the function of other checkpoints."""
    yield


#: Both kinds of checkpoints look these names up when they are called.
_CHECKPOINTING = {
    "CheckpointFunction": _DirectCheckpoint,
    "_checkpoint_without_reentrant_generator": _direct_generator,
    "_checkpoint_without_reentrant_generator_impl": _direct_generator,
}


@contextmanager
def _no_checkpointing() -> Iterator[None]:
    """Lets ``torch.utils.checkpoint`` call its function and nothing else.

    Reentrant checkpoints have no forward mode and refuse ``torch.autograd.grad``; the other kind repeats the forward pass
    in the backward pass, out of a tracer's sight.
    """
    scope = vars(torch.utils.checkpoint)
    saved = {name: scope[name] for name in _CHECKPOINTING if name in scope}
    scope.update((name, _CHECKPOINTING[name]) for name in saved)
    try:
        yield
    finally:
        scope.update(saved)


_SavedBuffer = tuple[nn.Module, str, Tensor | None, Tensor | None, int]


def _copy_buffers(modules: list[nn.Module]) -> list[_SavedBuffer]:
    return [
        (module, name, buffer, None if buffer is None else buffer.clone(), 0 if buffer is None else buffer._version)
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is None or not buffer.is_inference()
    ]


def _restore_buffers(saved: list[_SavedBuffer]) -> None:
    for module, name, buffer, copy, version in saved:
        if buffer is not None and copy is not None and buffer._version != version:
            with torch.no_grad():
                buffer.copy_(copy)
        module._buffers[name] = buffer


def ordinary(tensor: Tensor) -> Tensor:
    """Returns a tensor that autograd can record: a clone of an inference tensor, a detached view of any other."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()

"""PyTorch's settings in which a network is measured."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn


@contextmanager
def surroundings(devices: Iterable[str]) -> Iterator[None]:
    """Lets autograd differentiate a network on devices of these types twice, whatever mode the caller is in."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(_no_checkpointing())
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def modes(training: Mapping[nn.Module, bool]) -> Iterator[None]:
    """Puts modules into train or eval mode for a block.

    The modes are written directly instead of through ``train()``: overridden methods (frozen BatchNorm, merged adapters) may
    do more than set the flag.
    """
    before = {module: module.training for module in training}
    try:
        _set_modes(training)
        yield
    finally:
        _set_modes(before)


def _set_modes(training: Mapping[nn.Module, bool]) -> None:
    for module, mode in training.items():
        if module.training != mode:  # setting an attribute of a module takes microseconds
            module.training = mode


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


def ordinary(tensor: Tensor) -> Tensor:
    """Returns a tensor that autograd can record: a clone of an inference tensor, a detached view of any other."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()

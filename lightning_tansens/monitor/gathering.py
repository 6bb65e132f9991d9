"""A plain copy of a module whose parameters are sharded over the processes."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset

from lightning_tansens.tangent.isolation.hooks import HOOKS
from lightning_tansens.tangent.tracing import bytes_in

AnyModule = TypeVar("AnyModule", bound=nn.Module)

#: What a copy shares with its module: the Trainer, the processes and the data.
_SHARED_NAMES = ("_trainer", "_fabric", "_device_mesh")
#: How the names begin under which torch keeps how a module is sharded.
_SHARDING = "__composable_api_state_key"


def is_sharded(module: nn.Module) -> bool:
    """Says whether some parameter of a module is spread over processes, or was before its last call."""
    # the outermost module of fully_shard keeps whole parameters after a forward pass
    parts = (*module.modules(), *module.parameters())
    return any(isinstance(part, (FSDPModule, DTensor)) for part in parts)


def whole(tensor: Tensor) -> Tensor:
    """Gathers a distributed tensor and returns it as a plain one; all processes must call it."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def gathered_size(module: nn.Module) -> int:
    """Returns the bytes of all parameters and buffers, once they are gathered."""
    return bytes_in([*{*module.parameters(), *module.buffers()}])


@torch.no_grad()
def gathered(module: AnyModule, together: Callable[[], AbstractContextManager[None]]) -> AnyModule:
    """Returns a copy with whole parameters, which needs no other process; all of them must call this.

    The copy is without what shards the module: the hooks and the classes of ``fully_shard`` and ``parallelize_module``.
    ``together`` is :func:`~lightning_tansens.monitor.processes.together`.
    """
    distributed = distributed_tensors(module)
    with together():  # memory that is missing on one process is noticed before they talk to each other
        full = [torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.to_local().device) for tensor in distributed]
    for empty, tensor in zip(full, distributed):
        empty.copy_(tensor.full_tensor())
    with together():
        return copied_with(module, dict(zip(distributed, full)))


def copied_with(module: AnyModule, stand_ins: Mapping[DTensor, Tensor]) -> AnyModule:
    """Returns a copy in which other tensors take the place of the distributed ones."""
    memo: dict[int, Any] = {id(value): value for name, value in vars(module).items() if name in _SHARED_NAMES}
    for tensor, other in stand_ins.items():
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(other, requires_grad=tensor.requires_grad) if is_parameter else other
    sharded = [part for part in module.modules() if is_sharded(part)]
    for part in sharded:  # modules of fully_shard, which gave them another class, refuse to be copied as a whole
        plain = next(kind for kind in type(part).__mro__ if not issubclass(kind, FSDPModule))
        memo[id(part)] = object.__new__(plain)
    for part in sharded:
        hooks = {name: vars(part)[name] for name in HOOKS if name in vars(part)}
        dropped = {key for held in hooks.values() for key, hook in held.items() if _shards(hook)}
        attributes = vars(memo[id(part)])
        for name, value in vars(part).items():
            if name in hooks:
                kept = {key: hook for key, hook in value.items() if key not in dropped}
                attributes[name] = _attribute(type(value)(kept), memo)
            elif not name.startswith(_SHARDING):
                attributes[name] = _attribute(value, memo)
    found: AnyModule = memo.get(id(module)) or copy.deepcopy(module, memo)
    return found


def distributed_tensors(module: nn.Module) -> list[DTensor]:
    """Returns the parameters and buffers that are spread over processes."""
    return [tensor for tensor in (*module.parameters(), *module.buffers()) if isinstance(tensor, DTensor)]


def _attribute(value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, (Dataset, DataLoader)):
        return value
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # a handle, a process group: the copy uses the module's
        return value


def _shards(hook: Any) -> bool:
    hook = getattr(hook, "__func__", hook)
    return f"{getattr(hook, '__module__', '')}.".startswith(("torch.distributed.", f"{__package__}."))

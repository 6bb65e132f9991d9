"""Keeps the other processes company in a call of a sharded network that has failed on this one.

Layers talk to the other processes: ``fully_shard`` gathers a part's weights where its forward pass begins, and processes
that split single layers add up or gather what these return. Each process tells in torch's store what it says to the others,
before it says it, so that one that fails knows what they wait for, in the first call too.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_tansens.monitor.gathering import distributed_tensors

_c10d: Any = dist.distributed_c10d

#: The calls to other processes of layers that are split, in which a process can take part that knows nothing but a shape.
_TALKS = ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor", "broadcast")


class _Talk(NamedTuple):
    """What a process says to others: a function's name and arguments, or the number of the weights that are gathered."""

    what: str | int
    args: Sequence[Any] = ()


class Company:
    """What this process says to others in one call of a network after another.

    Args:
        module: The module.
        key: The key in torch's store, the same on all processes.
    """

    def __init__(self, module: nn.Module, key: str) -> None:
        self._gathered = [(group, ranks) for group in gathered_groups(module) if len(ranks := _holders(group)) > 1]
        meshes = {tensor.device_mesh for tensor in distributed_tensors(module)}
        spoken = [
            dist.get_process_group_ranks(group) for mesh in meshes for group in mesh.get_all_groups() if group.size() > 1
        ]
        self._splits = any(ranks not in (one for _, one in self._gathered) for ranks in spoken)
        self._others = sorted({rank for ranks in spoken for rank in ranks} - {dist.get_rank()}) if spoken else []
        self._key, self._call, self._ended = key, 0, 0
        self._begun: list[_Talk] = []
        #: What others have told of this call.
        self._heard: dict[int, list[_Talk]] = {}

    @contextmanager
    def told(self, call: int) -> Iterator[None]:
        """Tells the other processes what this one says in a block, which is the call of that number."""
        self._call, self._ended, self._begun, self._heard = call, 0, [], {}
        with ExitStack() as stack:
            for number, (group, _) in enumerate(self._gathered):
                group.unshard = partial(self._unshard, group, group.unshard, _Talk(number))
                stack.callback(delattr, group, "unshard")
            # older versions of torch refuse some operators, such as flexible attention, where anything listens
            if self._splits and hasattr(TorchDispatchMode, "supports_higher_order_operators"):
                stack.enter_context(_Listening(self._say))
            yield

    def _unshard(self, group: Any, unshard: Callable[[bool], None], talk: _Talk, async_op: bool = False) -> None:
        if group.is_unsharded or group._all_gather_result is not None:  # it talks to nobody
            unshard(async_op)
        else:
            self._say(talk, partial(unshard, async_op))

    def _say(self, talk: _Talk, say: Callable[[], Any]) -> Any:
        store().set(f"{self._key}/{dist.get_rank()}/{len(self._begun)}", json.dumps([self._call, *talk]))
        self._begun.append(talk)
        said = say()
        self._ended += 1
        return said

    def leave(self) -> None:
        """Brings all weights back to their shards after a call that failed, which older versions of torch do not."""
        for group, _ in self._gathered:
            group._training_state, group._all_gather_result = type(group._training_state).IDLE, None
            group.reshard()

    def keep(self) -> bool:
        """Takes part in what others wait for next; False if they wait for nothing now."""
        if self._ended == len(self._begun):
            self._begun += self._next_of_others()
        if self._ended == len(self._begun):
            return False
        what, args = self._begun[self._ended]  # what failed before it talked to the others is done again
        if isinstance(what, int):
            group, _ = self._gathered[what]
            group.unshard()
            group.wait_for_unshard()
            group.reshard()
        else:
            (shape, dtype, device), *rest = args
            sent = torch.zeros(shape, dtype=getattr(torch, dtype), device=device)
            torch.ops._c10d_functional.wait_tensor(getattr(torch.ops._c10d_functional, what)(sent, *rest))
        self._ended += 1
        return True

    def _next_of_others(self) -> list[_Talk]:
        """Returns what some other process has said to this one and waits for; nothing if none does."""
        found = []
        for other in self._others:
            theirs = [(place, talk) for place, talk in enumerate(self._told_by(other)) if other in self._ranks(talk)]
            own = [talk.what for talk in self._begun if other in self._ranks(talk)]
            if own == [talk.what for _, talk in theirs[: len(own)]]:
                found += theirs[len(own) : len(own) + 1]
        return [min(found, key=itemgetter(0))[1]] if found else []

    def _told_by(self, rank: int) -> list[_Talk]:
        heard = self._heard.setdefault(rank, [])
        while store().check([key := f"{self._key}/{rank}/{len(heard)}"]):
            call, *talk = json.loads(store().get(key))
            if call != self._call:  # left from an earlier call
                break
            heard.append(_Talk(*talk))
        return heard

    def _ranks(self, talk: _Talk) -> Sequence[int]:
        """Returns to which processes something is said that this one would say; none if it is not one of them."""
        if isinstance(talk.what, int):
            return self._gathered[talk.what][1]
        try:
            return dist.get_process_group_ranks(_c10d._resolve_process_group(talk.args[-1]))
        except Exception:  # it knows no such group
            return ()


class _Listening(TorchDispatchMode):
    """Hears what split layers say to other processes; ``say`` is called with it, and with a function that says it."""

    supports_higher_order_operators = True

    def __init__(self, say: Callable[[_Talk, Callable[[], Any]], Any]) -> None:
        super().__init__()
        self._say = say

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does on its shards comes here again
        call = partial(func, *args, **(kwargs or {}))
        namespace, _, name = str(func).partition(".")
        what = name.partition(".")[0]
        if namespace != "_c10d_functional" or what not in _TALKS or not isinstance(args[-1], str):
            return call()
        sent: Tensor = args[0]
        described = [list(sent.shape), str(sent.dtype).removeprefix("torch."), sent.device.type]
        return self._say(_Talk(what, [described, *args[1:]]), call)


def store() -> Any:
    """Returns torch's store, through which processes speak without a collective call."""
    return _c10d._get_default_store()


def gathered_groups(module: nn.Module) -> list[Any]:
    """Returns the groups of parameters that ``fully_shard`` gathers at once."""
    states: list[Any] = [part._get_fsdp_state() for part in module.modules() if isinstance(part, FSDPModule)]
    # older versions of torch have one group a module, or None
    found = [getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group] for state in dict.fromkeys(states)]
    return [group for groups in found for group in groups if group is not None]


def _holders(group: Any) -> list[int]:
    """Returns the ranks that hold shards of a group; none where its weights are whole."""
    shards = getattr(group.mesh_info, "shard_process_group", None)
    return [] if shards is None else dist.get_process_group_ranks(shards)

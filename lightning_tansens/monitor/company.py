"""Keeps the other processes company in a call of a sharded network that has failed on this one.

``fully_shard`` gathers the weights of a part where its forward pass begins, and all processes that hold shards of it have to
take part. Each process tells in torch's store which gathers it begins, so that one that fails knows what the others want,
in the first call too, and where the order depends on the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule


class Company:
    """The gathers that this process begins in one call after another.

    Args:
        module: The module. Nothing is told of one whose parts are sharded over different processes, or none by
            ``fully_shard``, and a process that fails in it keeps no company.
        key: The key in torch's store, the same on all processes; each adds its rank.

    """

    def __init__(self, module: nn.Module, key: str) -> None:
        states: list[Any] = [part._get_fsdp_state() for part in module.modules() if isinstance(part, FSDPModule)]
        groups = [group for state in dict.fromkeys(states) for group in _groups_of(state)]
        holders = {_holders(group) for group in groups}
        self._ranks = holders.pop() if len(holders) == 1 else ()
        self._groups = groups if len(self._ranks) > 1 else []
        self._key = key
        self._call, self._ended = 0, 0
        #: The numbers of the groups whose gathers have begun in this call.
        self._begun: list[int] = []

    @contextmanager
    def told(self, call: int) -> Iterator[None]:
        """Tells the other processes which gathers begin in a block.

        Args:
            call: The number of the call.

        """
        self._call, self._ended, self._begun = call, 0, []
        for number, group in enumerate(self._groups):
            group.unshard = partial(self._unshard, number, group, group.unshard)
        try:
            yield
        finally:
            for group in self._groups:
                del group.unshard

    def _unshard(self, number: int, group: Any, unshard: Any, async_op: bool = False) -> None:
        if group.is_unsharded or group._all_gather_result is not None:  # it talks to nobody
            return unshard(async_op)
        self._begun.append(number)
        _store().set(f"{self._key}/{dist.get_rank()}", f"{self._call}:{' '.join(map(str, self._begun))}")
        unshard(async_op)
        self._ended += 1

    def leave(self) -> None:
        """Brings all parts back to their shards after a call that failed."""
        for group in self._groups:
            group._training_state, group._all_gather_result = type(group._training_state).IDLE, None
            group.reshard()

    def keep(self) -> bool:
        """Takes part in the next gather for which others wait; False if they wait for none now."""
        if self._ended == len(self._begun):
            self._begun += self._next_of_others()
        if self._ended == len(self._begun):
            return False
        group = self._groups[self._begun[self._ended]]  # one that failed before it talked to the others is done again
        group.unshard()
        group.wait_for_unshard()
        group.reshard()
        self._ended += 1
        return True

    def _next_of_others(self) -> list[int]:
        store, known = _store(), len(self._begun)
        for key in (f"{self._key}/{rank}" for rank in self._ranks if rank != dist.get_rank()):
            call, _, told = store.get(key).decode().partition(":") if store.check([key]) else ("", "", "")
            begun = [int(number) for number in told.split()] if call == str(self._call) else []
            if begun[:known] == self._begun and len(begun) > known:
                return [begun[known]]
        return []


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _groups_of(state: Any) -> list[Any]:
    """Returns the groups of parameters that are gathered at once; older versions of torch have one a module."""
    found = getattr(state, "_fsdp_param_groups", None)
    return [group for group in ([state._fsdp_param_group] if found is None else found) if group is not None]


def _holders(group: Any) -> tuple[int, ...]:
    """Returns the ranks that hold shards of a group; none where its weights are whole."""
    shards = getattr(group.mesh_info, "shard_process_group", None)
    return () if shards is None else tuple(dist.get_process_group_ranks(shards))

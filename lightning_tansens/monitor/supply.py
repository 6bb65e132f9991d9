"""Weights of a sharded network that are gathered one by one, when they are used: no process holds all of them at once.

Each weight of a copy is a :class:`Remote`, which has a shape and no values. Whatever needs the values gathers the whole
weight, and all processes have to take part in that. They need not use the same weights at the same time, nor equally often:
one that needs a weight calls a round, in which each says what it needs, and one that needs nothing more takes part in the
rounds until all are done (:meth:`Supply.finish`). So measures run on each process as if it were alone, and one that fails on
a process leaves no other waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map_only

View = Callable[[Tensor], Tensor]

#: What a process asks for once it needs nothing more.
_NOTHING = -1


class Supply:
    """Gathers distributed tensors one by one, together with the other processes.

    Args:
        budget: The bytes of gathered tensors that a process keeps for their next use; the one in use may be larger.
        ask: Tells all processes the number of the tensor that this one needs, and returns what each of them needs.
    """

    def __init__(self, budget: int, ask: Callable[[int], list[int]]) -> None:
        self.budget = budget
        self._ask = ask
        self._tensors: list[DTensor] = []
        self._kept: OrderedDict[int, Tensor] = OrderedDict()

    def remote(self, tensor: DTensor) -> Remote:
        """Returns a stand-in for a tensor; all processes must call it for the same tensors in the same order."""
        held = cast(DTensor, tensor.detach())
        self._tensors.append(held)
        return Remote(self, len(self._tensors) - 1, held.to_local(), held)

    def whole(self, number: int) -> Tensor:
        """Returns a whole tensor, once all processes need one or are done."""
        if number not in self._kept:
            found = self._round(number)[number]
            while self._kept and self._size() + found.nbytes > self.budget:
                self._kept.popitem(last=False)
            if found.nbytes > self.budget:
                return found
            self._kept[number] = found
        self._kept.move_to_end(number)
        return self._kept[number]

    def finish(self) -> None:
        """Takes part in the rounds until all processes are done; call it before anything else is sent to them."""
        while self._round(_NOTHING):
            pass

    def _size(self) -> int:
        return sum(tensor.nbytes for tensor in self._kept.values())

    def _round(self, number: int) -> dict[int, Tensor]:
        """Gathers what the processes need, and returns what this one needs; None if that is nothing."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            asked = sorted({*self._ask(number)} - {_NOTHING})
            found = {}
            for one in asked:
                tensor = self._tensors[one].full_tensor()
                found[one] = tensor.clone() if one == number else tensor[:0]
        return found


class Remote(Tensor):
    """Stands for a whole tensor, or a view of it, which is gathered when its values are needed.

    Args:
        supply: Gathers the tensor.
        number: The tensor's number there.
        shard: What this process holds of it.
        like: A tensor of its shape and type.
        views: The steps from the whole tensor to the view.
    """

    #: The bytes of the gradients that a process may hold at once.
    gradient_bytes: int
    _supply: Supply
    _number: int
    _shard: Tensor
    _views: tuple[View, ...]

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, supply: Supply, number: int, shard: Tensor, like: Tensor, views: tuple[View, ...] = ()) -> Remote:
        """Makes a tensor without values."""
        made: Remote = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, like.shape, strides=like.stride(), dtype=shard.dtype, device=shard.device
        )
        made._supply, made._number, made._shard, made._views = supply, number, shard, views
        made.gradient_bytes = supply.budget
        return made

    def __init__(self, *args: Any) -> None:
        pass

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """Returns the name of what the process holds: the isolation looks after it, and finds what is not finite there."""
        return ["_shard"], None

    @staticmethod
    def __tensor_unflatten__(*args: Any) -> Any:
        """Has to exist next to the other one; nothing calls it."""
        raise NotImplementedError

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Runs an operation on whole tensors; a view is taken when it is needed."""
        kwargs = kwargs or {}
        spec = func._schema
        for argument, value in zip(spec.arguments, args):
            if isinstance(value, cls) and argument.alias_info is not None and argument.alias_info.is_write:
                raise RuntimeError(f"{func}: expected a forward pass that does not write to sharded weights; take it away")
        first = args[0] if args else None
        if isinstance(first, cls) and func.is_view and len(spec.returns) == 1 and "[]" not in str(spec.returns[0].type):
            return first._viewed(lambda whole: func(whole, *args[1:], **kwargs))  # type: ignore[no-any-return]
        args, kwargs = tree_map_only(cls, cls._gathered, (args, kwargs))
        return func(*args, **kwargs)

    def _viewed(self, view: View) -> Remote:
        like = view(torch.empty_strided(self.shape, self.stride(), dtype=self.dtype, device="meta"))
        return Remote(self._supply, self._number, self._shard, like, (*self._views, view))

    def _gathered(self) -> Tensor:
        whole = self._supply.whole(self._number)
        for view in self._views:
            whole = view(whole)
        return whole

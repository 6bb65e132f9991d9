"""Recognising a piecewise-linear chain in the forward pass of a network.

The forward pass runs once, watched by a tracer that follows everything computed from the input. Each known call becomes
a link. An unknown call poisons its result, and a network whose output is poisoned is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.closed_form.links import READ_THE_INPUT, Link, Parameters
from lightning_tansens.tangent.operators.registry import operator_of
from lightning_tansens.tangent.tracing import CallTracer, tensors_in


@dataclass(frozen=True)
class Chain:
    """A traced network: its links from the input to the output, for one batch."""

    links: tuple[Link, ...]
    width: int  # D, the number of input coordinates of a sample
    output: Tensor  # shape (N, C)
    biases: frozenset[str] = frozenset()  # the trainable parameters that are only added, whose block of S is zero

    @property
    def signature(self) -> tuple[tuple[str, str | None], ...]:
        """What the chain consists of, whatever the batch; equal for two passes along the same path."""
        return tuple((type(link).__name__, link.parameter) for link in self.links)


def trace_chain(model: nn.Module, inputs: Tensor, forward: Callable[[Tensor], Any] | None = None) -> Chain:
    """Runs the model, in eval mode, on inputs (N, ...) and returns the chain that leads from the input to the output.

    ``forward`` runs the model on x and returns the outputs; None stands for the model itself.

    Raises:
        UnsupportedNetworkError: If a call on the way is not piecewise-linear, joins two branches, mixes samples or
            uses a weight that is not a parameter; the message names the module.
    """
    tracer = _ChainTracer(model, inputs)
    # with autograd on, what is computed from a parameter can be told from a constant
    with torch.enable_grad(), tracer.running():
        output = (forward or model)(tracer.start)
    return tracer.chain_to(output)


@dataclass(frozen=True)
class _Node:
    """A tensor that was computed from the input."""

    tensor: Tensor
    parent: _Node | None = None
    link: Link | None = None
    unsupported: str | None = None
    version: int = 0


class _ChainTracer(CallTracer):
    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        super().__init__(model)
        self.start = inputs.clone()  # the network may begin with an in-place call
        self._parameters = Parameters(model, inputs)
        self._nodes: dict[int, _Node] = {}
        self._remember(self.start, _Node(self.start))

    def on_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known = [node for node in map(self._find, tensors_in((args, kwargs))) if node]
        if not known:
            return func(*args, **kwargs)
        parent, build = known[0], operator_of(func).link
        value = parent.tensor.clone() if build in READ_THE_INPUT else parent.tensor
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            # several results, or none: then one of the arguments was changed
            for tensor in tensors_in(args if result is None else result):
                self._poison(tensor, parent, func)
        elif reason := next((node.unsupported for node in known if node.unsupported), None):
            self._remember(result, _Node(result, parent, unsupported=reason))
        elif len(known) > 1:
            self._poison(result, parent, func, "it joins two branches, so the network is no chain")
        elif build is None:
            self._poison(result, parent, func)
        else:
            try:
                others = {name: argument for name, argument in kwargs.items() if name != "input"}
                link = build(self._parameters, func, value, result, *self._without_input(args, kwargs), **others)
            except UnsupportedNetworkError as error:
                self._poison(result, parent, func, str(error))
            else:
                self._remember(result, _Node(result, parent, link))
        return result

    def _without_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The positional arguments without the one that depends on the input, which must be the first."""
        if not args and "input" in kwargs:
            return ()
        if args and isinstance(args[0], Tensor) and id(args[0]) in self._nodes:
            return args[1:]
        raise UnsupportedNetworkError("its input is expected as the first argument")

    def chain_to(self, output: Any) -> Chain:
        """Walks back from the output to the input."""
        node = self._find(output) if isinstance(output, Tensor) else None
        if node is None:
            raise UnsupportedNetworkError(
                "expected the network to return one tensor computed from its input by torch functions, but got "
                f"{type(output).__name__} that could not be followed back to the input{_ADVICE}"
            )
        if node.unsupported:
            raise UnsupportedNetworkError(node.unsupported)
        if len(output) != len(self.start):
            raise UnsupportedNetworkError(f"expected one output for each sample, but got {len(output)}{_ADVICE}")
        links = []
        while node.parent is not None:
            if node.link is not None:
                links.append(node.link)
            node = node.parent
        shared = [name for name, count in Counter(link.parameter for link in links).items() if name and count > 1]
        if shared:
            raise UnsupportedNetworkError(
                f"parameter '{shared[0]}' is used by several layers, whose blocks add before the norm is taken{_ADVICE}"
            )
        flat = self._parameters.wide(output).reshape(len(output), -1)
        return Chain(tuple(reversed(links)), self.start[0].numel(), flat, frozenset(self._parameters.biases))

    def _find(self, tensor: Tensor) -> _Node | None:
        node = self._nodes.get(id(tensor))
        if node and node.version != tensor._version and not node.unsupported:
            return _Node(tensor, node, unsupported=f"a tensor was changed in place in {self.place()} and used again")
        return node

    def _remember(self, tensor: Tensor, node: _Node) -> None:
        # the node keeps the tensor alive, so its id stays its own
        self._nodes[id(tensor)] = replace(node, version=tensor._version)

    def _poison(self, tensor: Tensor, parent: _Node, func: Any, reason: str = "it has no closed form") -> None:
        unsupported = parent.unsupported or f"{self.place(func)} cannot be measured exactly: {reason}{_ADVICE}"
        self._remember(tensor, _Node(tensor, parent, unsupported=unsupported))


_ADVICE = (
    "; the closed form is for chains of Linear, ReLU and its piecewise-linear relatives, Flatten, Dropout, Identity and "
    "BatchNorm1d"
)

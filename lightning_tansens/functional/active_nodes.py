"""Active nodes: which hidden units of a network are switched on for a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.evaluation import evaluation, ordinary
from lightning_tansens.tangent.network import batch_length, call_model, map_tensors
from lightning_tansens.tangent.operators.registry import operator_of
from lightning_tansens.tangent.tracing import CallTracer

_Collected = TypeVar("_Collected")


def active_nodes(model: nn.Module, inputs: Any) -> Tensor:
    """Counts the active hidden units of each sample, layer by layer: n_i(x), with T(x) = Σ_i n_i(x) of Theorem 2.

    A unit of an activation function is active where its preactivation is positive; for smooth activations (GELU, SiLU)
    this is a convention. Calls of activations are found whether they are modules, functional or in-place, in the order
    of the forward pass (Daróczy 2022, the quantities of Eqs. 2 and 7).

    Args:
        model: The network; it is evaluated in eval mode and left as it was.
        inputs: A batch of shape (N, ...), or a tuple or dict of arguments.

    Returns:
        Numbers of active units, int64, shape (N, L) for L calls of activations.

    Raises:
        UnsupportedNetworkError: If the forward pass calls no activation function, or one whose units do not have the
            samples on their first axis.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> _ = torch.nn.init.ones_(net[0].weight), torch.nn.init.zeros_(net[0].bias)
        >>> active_nodes(net, torch.tensor([[1.0], [-1.0]])).tolist()
        [[2], [0]]

    """
    return torch.stack(collect_from_activations(model, inputs, lambda h: (h > 0).flatten(1).sum(1)), 1)


def preactivations(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Collects what goes into each activation function, in the order of the forward pass.

    The arguments and errors are those of :func:`active_nodes`.

    Returns:
        h_1, …, h_L, each of shape (N, ...).

    """
    return collect_from_activations(model, inputs, Tensor.clone)


def collect_from_activations(model: nn.Module, inputs: Any, collect: Callable[[Tensor], _Collected]) -> list[_Collected]:
    """Collects what a function makes of each preactivation, so that the preactivations need not be kept.

    The arguments and errors are those of :func:`active_nodes`.

    Args:
        model: The network.
        inputs: A batch.
        collect: Is called on h_i, of shape (N, ...), before the activation changes it.

    Returns:
        The function's results, in the order of the forward pass.

    """
    tracer: _ActivationTracer[_Collected] = _ActivationTracer(model, batch_length(inputs), collect)
    with evaluation(model), torch.no_grad(), tracer.running():
        # the network may begin with an in-place call
        call_model(model, map_tensors(lambda tensor: ordinary(tensor).clone(), inputs))
    if not tracer.collected:
        raise UnsupportedNetworkError(
            f"expected a network with activation functions, but {type(model).__name__} calls none that is known; "
            "leave ActiveNodeSensitivity out of the measures for this network"
        )
    return tracer.collected


class _ActivationTracer(CallTracer, Generic[_Collected]):
    def __init__(self, model: nn.Module, samples: int, collect: Callable[[Tensor], _Collected]) -> None:
        super().__init__(model)
        self._samples = samples
        self._collect = collect
        self.collected: list[_Collected] = []

    def on_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if operator_of(func).is_activation:
            hidden = args[0] if args else kwargs["input"]
            if hidden.dim() > 1 and len(hidden) % max(1, self._samples) == 0:
                # windows of an image are consecutive entries of the batch
                by_sample = hidden.reshape(self._samples, -1) if len(hidden) > self._samples else hidden
                self.collected.append(self._collect(by_sample))
            elif hidden.dim() > 1 and hidden.numel() > self._samples and not isinstance(hidden, nn.Parameter):
                raise UnsupportedNetworkError(
                    f"expected activations of shape (N, ...) with N = {self._samples} samples, but got "
                    f"{tuple(hidden.shape)} in {self.place(func)}; use batch_first=True there, or leave "
                    "ActiveNodeSensitivity out of the measures"
                )
        return func(*args, **kwargs)

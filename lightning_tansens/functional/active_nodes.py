"""Active nodes: which hidden units of a network are switched on for a sample."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.batches import batch_length, map_tensors
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import call_on_copies
from lightning_tansens.tangent.operators.registry import operator_of
from lightning_tansens.tangent.probes.batch_axis import BatchAxis
from lightning_tansens.tangent.tracing import CallTracer

_Collected = TypeVar("_Collected")


def active_nodes(model: nn.Module, inputs: Any) -> Tensor:
    """Counts the active hidden units of each sample, layer by layer: n_i(x), with T(x) = Σ_i n_i(x) of Theorem 2.

    A unit of an activation function is active where its preactivation is positive; for smooth activations (GELU, SiLU)
    this is a convention. Calls of activations are found whether they are modules, functional or in-place, in the order
    of the forward pass, and with the samples on any axis, such as (T, N, D) (Daróczy 2022, the quantities of Eqs. 2 and 7).

    Args:
        model: The network; it is evaluated in eval mode and left as it was.
        inputs: A batch of shape (N, ...), or a tuple or dict of arguments.

    Returns:
        Numbers of active units, int64, shape (N, L) for L calls of activations.

    Raises:
        UnsupportedNetworkError: If the forward pass calls no activation function.

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

    It takes the arguments, and raises the errors, of :func:`active_nodes`.

    Returns:
        h_1, …, h_L, each of shape (N, ...).
    """
    return collect_from_activations(model, inputs, Tensor.clone)


def collect_from_activations(model: nn.Module, inputs: Any, collect: Callable[[Tensor], _Collected]) -> list[_Collected]:
    """Collects what ``collect`` makes of each preactivation, shape (N, ...), before the activation changes it.

    The results are in the order of the forward pass; the preactivations need not be kept. Raises UnsupportedNetworkError if
    the forward pass calls no activation function.
    """
    samples = batch_length(inputs)
    try:
        collected = _collect(model, inputs, lambda call, hidden: _axis_of(hidden, samples), collect)
    except _AmbiguousError:
        axes = dict(enumerate(_axes(model, inputs)))
        collected = _collect(model, inputs, lambda call, hidden: axes.get(call), collect)
    if not collected:
        raise UnsupportedNetworkError(
            f"expected a network with activation functions, but {type(model).__name__} calls none that is known (ReLU, "
            "GELU, tanh, …); leave the measures of active units out for this network"
        )
    return collected


class _AmbiguousError(Exception):
    """Raised where a shape does not tell which axis holds the samples."""


class _ActivationTracer(CallTracer):
    def __init__(self, model: nn.Module, visit: Callable[[int, Tensor], None]) -> None:
        super().__init__(model)
        self._visit = visit
        self._calls = 0

    def on_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if operator_of(func).is_activation:
            self._visit(self._calls, args[0] if args else kwargs["input"])
            self._calls += 1
        return func(*args, **kwargs)


def _visit_activations(model: nn.Module, inputs: Any, visit: Callable[[int, Tensor], None]) -> None:
    """Calls a function on the number and the preactivation of each call of an activation in a forward pass."""
    with evaluation(model), torch.no_grad(), _ActivationTracer(model, visit).running():
        call_on_copies(model, inputs)


def _collect(
    model: nn.Module,
    inputs: Any,
    axis_of: Callable[[int, Tensor], BatchAxis | None],
    collect: Callable[[Tensor], _Collected],
) -> list[_Collected]:
    samples, collected = batch_length(inputs), []

    def visit(call: int, hidden: Tensor) -> None:
        axis = axis_of(call, hidden)
        if axis is not None:
            collected.append(collect(axis.split(hidden, samples)))

    _visit_activations(model, inputs, visit)
    return collected


def _axis_of(hidden: Tensor, samples: int) -> BatchAxis | None:
    """Where the samples are in a preactivation, as far as its shape tells; None where it holds none."""
    if hidden.dim() < 2 or isinstance(hidden, nn.Parameter):
        return None
    if len(hidden) == samples and (hidden.dim() == 2 or hidden.shape[1] != samples):
        return BatchAxis()
    if not samples:
        return BatchAxis(hidden.shape.index(0)) if 0 in hidden.shape else None
    raise _AmbiguousError


def _axes(model: nn.Module, inputs: Any) -> list[BatchAxis | None]:
    """Finds the axis of the samples in each activation's tensor by its shapes for two and for three samples."""
    samples, shapes = batch_length(inputs), {2: list[torch.Size](), 3: list[torch.Size]()}
    for count, found in shapes.items():

        def repeated(tensor: Tensor, count: int = count) -> Tensor:
            return tensor[[0] * count] if tensor.dim() and len(tensor) == samples else tensor

        def visit(call: int, hidden: Tensor, found: list[torch.Size] = found) -> None:
            found.append(hidden.shape)

        _visit_activations(model, map_tensors(repeated, inputs), visit)
    return [_grown_axis(*pair) for pair in zip(*shapes.values())]


def _grown_axis(two: torch.Size, three: torch.Size) -> BatchAxis | None:
    """The axis of a tensor with these shapes for two and for three samples; None where it does not hold samples."""
    grown = [axis for axis, (small, large) in enumerate(zip(two, three)) if small != large]
    if len(two) < 2 or len(two) != len(three) or len(grown) != 1 or 3 * two[grown[0]] != 2 * three[grown[0]]:
        return None
    (axis,) = grown
    if two[axis] == 2:
        return BatchAxis(axis)
    # windows of an image are consecutive entries of the batch
    return BatchAxis(0, "major") if axis == 0 else None

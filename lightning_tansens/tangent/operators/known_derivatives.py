"""Functions with derivatives of our own, where torch's take more passes over the data than they must."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_Map = Callable[[Tensor], Tensor]


class Known(torch.autograd.Function):
    """A function of tensors, whose derivative in forward mode is ``push`` and in reverse mode ``pull``.

    ``forward`` takes the context: with a ``setup_context`` torch looks at the signature at each call, which takes a sixth of
    a small network's probe.
    """

    @staticmethod
    def forward(ctx: Any, value: Callable[..., Tensor], push: Any, pull: Any, *inputs: Tensor) -> Tensor:
        ctx.push, ctx.pull = push, pull
        result = value(*inputs)
        # a view would forbid the network to change it in place; the base of a fresh one is nobody else's
        if result._is_view() and not any(result._base is i or result._base is i._base for i in inputs):
            return torch.ops.aten._unsafe_view(result, result.shape)  # type: ignore[no-any-return]
        return result

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return ctx.push(*tangents[3:])  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return None, None, None, *ctx.pull(gradient)


def apply_known(
    value: Callable[..., Tensor], push: Callable[..., Tensor], pull: Callable[[Tensor], tuple[Tensor, ...]], *inputs: Tensor
) -> Tensor:
    """Returns value(inputs), a function with known derivatives; the inputs may be dual tensors.

    ``push`` takes the inputs' derivatives and returns the value's. ``pull`` takes the gradient with respect to the value and
    returns the inputs'; it must not hold the value that is returned, whose graph holds it.
    """
    return Known.apply(value, push, pull, *inputs)  # type: ignore[no-any-return]


def apply_linear(x: Tensor, affine: _Map, linear: _Map, transpose: _Map) -> Tensor:
    """Returns affine(x) = A x + b with constant weights, differentiable in both modes by x ↦ A x and y ↦ Aᵀ y.

    torch's own forward mode also multiplies by the weights' derivative, which is zero here: a third product after those for
    the value and its derivative.
    """
    return apply_known(affine, linear, lambda gradient: (apply_linear(gradient, transpose, transpose, linear),), x)


def apply_scale(x: Tensor, factor: Tensor | float, shift: Tensor | None = None) -> Tensor:
    """Returns factor · x + shift with a constant factor and shift that broadcast to x.

    In a plain product torch carries a zero along as the constant's derivative, and takes half a millisecond to find its
    shape.
    """

    def scale(values: Tensor) -> Tensor:
        return values * factor

    return apply_linear(x, scale if shift is None else lambda values: values * factor + shift, scale, scale)


def apply_gate(x: Tensor, value: Tensor, gate: _Map) -> Tensor:
    """Returns ``value``, a piecewise-linear function of each entry of x, whose constant slopes ``gate`` multiplies by.

    The gate must not hold the value, whose graph holds it.
    """
    return apply_linear(x, lambda _: value, gate, gate)


def tangent_of(tensor: Tensor) -> Tensor | None:
    """Returns a dual tensor's derivative; None for any other tensor."""
    return forward_ad.unpack_dual(tensor).tangent if forward_ad._current_level >= 0 else None


def value_of(tensor: Tensor) -> Tensor:
    """Returns a tensor's value, without its derivatives of either mode."""
    return tensor.detach() if tangent_of(tensor) is None else forward_ad.unpack_dual(tensor).primal.detach()


def split_dual(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a tensor's value and derivative; zeros where it has none."""
    value, tangent = value_of(tensor), tangent_of(tensor)
    return value, torch.zeros_like(value) if tangent is None else tangent.detach()

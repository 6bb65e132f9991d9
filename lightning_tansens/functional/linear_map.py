"""Linear maps with constant weights, whose derivatives cost no more than they must.

torch's own forward mode also multiplies by the weights' derivative, which is zero here: a third product beside the value's
and the derivative's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_Map = Callable[[Tensor], Tensor]


class _LinearMap(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, affine: _Map, linear: _Map, transpose: _Map) -> Tensor:
        return affine(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, ctx.linear, ctx.transpose = inputs

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:  # type: ignore[override]
        return ctx.linear(tangent)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return _LinearMap.apply(gradient, ctx.transpose, ctx.transpose, ctx.linear), None, None, None


def apply_linear(x: Tensor, affine: _Map, linear: _Map, transpose: _Map) -> Tensor:
    """Returns affine(x), differentiable in both modes.

    Args:
        x: The input, possibly a dual tensor.
        affine: x ↦ A x + b.
        linear: x ↦ A x.
        transpose: y ↦ Aᵀ y.

    """
    return _LinearMap.apply(x, affine, linear, transpose)  # type: ignore[no-any-return]

"""The operators that have layer rules: what each returns, and how its parameters enter.

An operator takes the arguments of a torch function and returns its
:class:`~lightning_tansens.tangent.operators.layer_rules.Result`, or None where its rule does not apply. To cover another
torch function, write its operator and enter it in :data:`OPERATORS`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.tangent.operators import norm_layers as norms
from lightning_tansens.tangent.operators.convolutions import convolution, transposed_convolution
from lightning_tansens.tangent.operators.known_derivatives import apply_linear
from lightning_tansens.tangent.operators.layer_rules import (
    BroadcastRule,
    EmbeddingRule,
    LinearRule,
    Result,
    channels_shape,
    is_computed,
)

_T = Tensor


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Result | None:
    if weight.dim() != 2:
        return None
    matrix, offset = weight.detach(), None if bias is None else bias.detach()
    if input.requires_grad and not is_computed(weight):
        result = apply_linear(
            input, lambda x: F.linear(x, matrix, offset), lambda x: F.linear(x, matrix), lambda y: y @ matrix
        )
    else:  # a constant input, and the result depends on the parameters alone; or a weight that depends on others
        result = F.linear(input, weight, bias)
    return Result(result, input, [(weight, LinearRule()), (bias, BroadcastRule(weight.shape[:1], False))])


def _matmul(input: Tensor, other: Tensor) -> Result | None:
    if other.dim() != 2 or input.dim() < 2:
        return None
    if not input.requires_grad:
        return Result(torch.matmul(input, other), input, [(other, LinearRule(transposed=True))])
    matrix = other.detach()
    result = apply_linear(input, lambda x: x @ matrix, lambda x: x @ matrix, lambda y: F.linear(y, matrix))
    return Result(result, input, [(other, LinearRule(transposed=True))])


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Result | None:
    if max_norm is not None or scale_grad_by_freq:
        return None  # these change the table or its gradient by what else is in the batch
    result = F.embedding(input, weight)
    skip = None if padding_idx is None else padding_idx % len(weight)
    return Result(result, result, [(weight, EmbeddingRule(input, skip))])


def _prelu(input: Tensor, weight: Tensor) -> Result:
    shape = torch.Size([1]) if weight.numel() == 1 else channels_shape(input)
    return Result(F.prelu(input, weight), input.clamp(max=0), [(weight, BroadcastRule(shape, True))])


def _add(input: Tensor, other: Any, *, alpha: float = 1) -> Result | None:
    if alpha != 1 or not isinstance(input, Tensor) or not isinstance(other, Tensor):
        return None
    rules = [(p, BroadcastRule(p.shape, False)) for p in (input, other)]
    for x, p in ((input, other), (other, input)):
        if x.requires_grad and not x.is_leaf and p.is_leaf and torch.broadcast_shapes(x.shape, p.shape) == x.shape:
            return Result(apply_linear(x, p.detach().add, torch.clone, torch.clone), input, rules)
    return Result(torch.add(input, other), input, rules)


def _add_in_place(input: Tensor, other: Any, *, alpha: float = 1) -> Result | None:
    if alpha != 1 or not isinstance(other, Tensor):
        return None
    return Result(input.add_(other), other, [(other, BroadcastRule(other.shape, False))])


def _mul(input: Tensor, other: Any) -> Result | None:
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        return None
    # the one that is no leaf is the data; a product of two parameters has no sample axis and finds no layout
    features, parameter = (other, input) if input.is_leaf and input.requires_grad else (input, other)
    return Result(input * other, features, [(parameter, BroadcastRule(parameter.shape, True))])


def _expand(input: Tensor, *sizes: Any) -> Result:
    result = input.expand(*sizes)
    return Result(result, result, [(input, BroadcastRule(input.shape, False))])


OPERATORS: dict[Callable[..., Any], Callable[..., Result | None]] = {
    F.linear: _linear,
    torch.matmul: _matmul,
    _T.matmul: _matmul,
    _T.__matmul__: _matmul,
    F.conv1d: convolution,
    F.conv2d: convolution,
    F.conv3d: convolution,
    F.conv_transpose1d: transposed_convolution,
    F.conv_transpose2d: transposed_convolution,
    F.conv_transpose3d: transposed_convolution,
    F.embedding: _embedding,
    F.batch_norm: norms.batch_norm,
    F.layer_norm: norms.layer_norm,
    F.group_norm: norms.group_norm,
    F.instance_norm: norms.instance_norm,
    F.rms_norm: norms.rms_norm,
    F.prelu: _prelu,
    torch.prelu: _prelu,
    _T.prelu: _prelu,
    torch.add: _add,
    _T.add: _add,
    _T.__add__: _add,
    _T.__radd__: _add,
    _T.add_: _add_in_place,
    _T.__iadd__: _add_in_place,
    torch.mul: _mul,
    _T.mul: _mul,
    _T.__mul__: _mul,
    _T.__rmul__: _mul,
    _T.expand: _expand,
}


def _in_projection_packed(q: Tensor, k: Tensor, v: Tensor, w: Tensor, b: Tensor | None = None) -> Sequence[Tensor]:
    """Splits in a way whose reverse is one concatenation, where torch's own pads each part with zeros."""
    if q is k is v:
        return [part.contiguous() for part in F.linear(q, w, b).chunk(3, -1)]
    return F._in_projection_packed(q, k, v, w, b)  # type: ignore[attr-defined,no-any-return]


#: Functions that use parameters in further functions, which have operators, and what they shall find in their module.
_COMPOSITE = {F.multi_head_attention_forward: {"_in_projection_packed": _in_projection_packed}}


@lru_cache
def opened(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """Returns a composite torch function in a form whose inner calls can be traced, or None for any other function.

    Such functions hand themselves over to a tracer as a whole. The form returned here runs the same code with that
    switched off.
    """
    if func not in _COMPOSITE or not isinstance(func, types.FunctionType):
        return None
    scope = {**func.__globals__, "has_torch_function": lambda arguments: False, **_COMPOSITE[func]}
    copy = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy

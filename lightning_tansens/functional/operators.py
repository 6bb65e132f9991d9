"""The operators that have layer rules: what each returns, and how its parameters enter.

An operator takes the arguments of a torch function and returns its :class:`Result`, or None where its rule does not
apply. To cover another torch function, write its operator and enter it in :data:`OPERATORS`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.functional.layer_rules import (
    BroadcastRule,
    ConvolutionRule,
    EmbeddingRule,
    LinearRule,
    Rule,
    convolution_rule,
    repeat,
)
from lightning_tansens.functional.linear_map import apply_linear

_T = Tensor


@dataclass(frozen=True)
class Result:
    """What an operator returns.

    Attributes:
        result: The same tensor as the torch function's.
        features: The input a that the rules speak of.
        rules: Tensors that may be parameters, each with the rule by which it enters.

    """

    result: Tensor
    features: Tensor
    rules: Sequence[tuple[Tensor | None, Rule]]


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Result | None:
    if weight.dim() != 2:
        return None
    matrix, offset = weight.detach(), None if bias is None else bias.detach()
    if input.requires_grad and not _computed(weight):
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


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Result | None:
    if input.dim() != weight.dim():
        return None
    rule = convolution_rule(weight, stride, padding, dilation, groups, transposed=False)
    if any(before != behind for before, behind in rule.padding):
        input = F.pad(input, [p for pair in reversed(rule.padding) for p in pair])
        rule = replace(rule, padding=((0, 0),) * len(rule.padding))
    padding = [before for before, _ in rule.padding]
    geometry = [rule.stride, padding, rule.dilation]
    return _convolve(input, weight, bias, geometry, [0] * len(padding), groups, rule)


def _transposed_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Result | None:
    if input.dim() != weight.dim():
        return None
    rule = convolution_rule(weight, stride, padding, dilation, groups, transposed=True)
    geometry = [rule.stride, [before for before, _ in rule.padding], rule.dilation]
    return _convolve(input, weight, bias, geometry, repeat(output_padding, weight.dim() - 2), groups, rule)


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: list[Any],
    output_padding: Sequence[int],
    groups: int,
    rule: ConvolutionRule,
) -> Result:
    kernel, offset = weight.detach(), None if bias is None else bias.detach()
    arguments = (*geometry, rule.transposed, output_padding, groups)

    def convolve(x: Tensor, constant: Tensor | None = None) -> Tensor:
        return torch.convolution(x, kernel, constant, *arguments)

    def transpose(y: Tensor) -> Tensor:
        like = y.new_empty(1).expand(len(y), *input.shape[1:])  # only its shape is read
        gradient, _, _ = torch.ops.aten.convolution_backward(y, like, kernel, None, *arguments, [True, False, False])
        return cast(Tensor, gradient)

    if input.requires_grad and not _computed(weight):
        result = apply_linear(input, lambda x: convolve(x, offset), convolve, transpose)
    else:
        result = torch.convolution(input, weight, bias, *arguments)
    return Result(result, input, [(weight, rule), (bias, BroadcastRule(_channels_shape(result), False))])


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


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Result | None:
    if training or running_mean is None or running_var is None:
        return None
    mean, scale = _channels(running_mean, input), _channels((running_var + eps).rsqrt(), input)
    return _affine((input - mean) * scale, weight, bias, _channels_shape(input))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Result:
    normalised = F.layer_norm(input, normalized_shape, None, None, eps)
    return _affine(normalised, weight, bias, torch.Size(normalized_shape))


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Result:
    return _affine(F.group_norm(input, num_groups, None, None, eps), weight, bias, _channels_shape(input))


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Result:
    normalised = F.instance_norm(input, running_mean, running_var, None, None, use_input_stats, momentum, eps)
    return _affine(normalised, weight, bias, _channels_shape(input))


def _rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Result:
    return _affine(F.rms_norm(input, normalized_shape, None, eps), weight, None, torch.Size(normalized_shape))


def _prelu(input: Tensor, weight: Tensor) -> Result:
    shape = torch.Size([1]) if weight.numel() == 1 else _channels_shape(input)
    return Result(F.prelu(input, weight), input.clamp(max=0), [(weight, BroadcastRule(shape, True))])


def _add(input: Tensor, other: Any, *, alpha: float = 1) -> Result | None:
    if alpha != 1 or not isinstance(input, Tensor) or not isinstance(other, Tensor):
        return None
    rules = [(p, BroadcastRule(p.shape, False)) for p in (input, other)]
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


def _affine(normalised: Tensor, weight: Tensor | None, bias: Tensor | None, shape: torch.Size) -> Result:
    result = normalised
    if weight is not None:
        result = result * weight.reshape(shape)
    if bias is not None:
        result = result + bias.reshape(shape)
    return Result(result, normalised, [(weight, BroadcastRule(shape, True)), (bias, BroadcastRule(shape, False))])


def _computed(weight: Tensor) -> bool:
    """Whether a weight is computed from the input or from parameters, so that derivatives must flow through it."""
    return weight.requires_grad and not weight.is_leaf


def _channels_shape(tensor: Tensor) -> torch.Size:
    """The shape in which a vector over channels takes part: (C, 1, …) behind the batch axis."""
    return torch.Size([tensor.shape[1], *[1] * (tensor.dim() - 2)])


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.reshape(_channels_shape(like))


OPERATORS: dict[Callable[..., Any], Callable[..., Result | None]] = {
    F.linear: _linear,
    torch.matmul: _matmul,
    _T.matmul: _matmul,
    _T.__matmul__: _matmul,
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    F.conv_transpose1d: _transposed_convolution,
    F.conv_transpose2d: _transposed_convolution,
    F.conv_transpose3d: _transposed_convolution,
    F.embedding: _embedding,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
    F.rms_norm: _rms_norm,
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

#: Functions that use parameters in further functions, which have operators.
_COMPOSITE = {F.multi_head_attention_forward}


@lru_cache
def opened(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """Returns a composite torch function in a form whose inner calls can be traced, or None for any other function.

    Such functions hand themselves over to a tracer as a whole. The form returned here runs the same code with that
    switched off.
    """
    if func not in _COMPOSITE or not isinstance(func, types.FunctionType):
        return None
    scope = {**func.__globals__, "has_torch_function": lambda arguments: False}
    copy = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy

"""The records of torch's own functions, and the layer rules of the small ones.

A rule takes the arguments of a torch function and returns its
:class:`~lightning_tansens.tangent.operators.layer_rules.Result`, or None where it does not apply.
"""

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.tangent.closed_form import links
from lightning_tansens.tangent.operators import norm_layers as norms
from lightning_tansens.tangent.operators import substitutes
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
from lightning_tansens.tangent.operators.registry import Operator, register_operator

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
    # the one that is no leaf is the data; a product of two parameters has no sample axis and finds no axis
    features, parameter = (other, input) if input.is_leaf and input.requires_grad else (input, other)
    return Result(input * other, features, [(parameter, BroadcastRule(parameter.shape, True))])


def _expand(input: Tensor, *sizes: Any) -> Result:
    result = input.expand(*sizes)
    return Result(result, result, [(input, BroadcastRule(input.shape, False))])


def _in_projection_packed(q: Tensor, k: Tensor, v: Tensor, w: Tensor, b: Tensor | None = None) -> Sequence[Tensor]:
    """Splits in a way whose reverse is one concatenation, where torch's own pads each part with zeros."""
    if q is k is v:
        return [part.contiguous() for part in F.linear(q, w, b).chunk(3, -1)]
    return F._in_projection_packed(q, k, v, w, b)  # type: ignore[attr-defined,no-any-return]


def _opened(func: types.FunctionType, **replaced: Any) -> Callable[..., Any]:
    """Returns a composite torch function in a form whose inner calls can be traced.

    Such functions hand themselves over to a tracer as a whole. The form returned here runs the same code with that switched
    off, and finds ``replaced`` in its module.
    """
    scope = {**func.__globals__, "has_torch_function": lambda arguments: False, **replaced}
    copy = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


for _operator in (
    # layers with parameters
    Operator((F.linear,), rule=_linear, link=links.linear, is_weight_layer=True),
    Operator((torch.matmul, _T.matmul, _T.__matmul__), rule=_matmul),
    Operator((F.conv1d, F.conv2d, F.conv3d), rule=convolution, is_weight_layer=True),
    Operator((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), rule=transposed_convolution),
    Operator((F.embedding,), rule=_embedding),
    Operator(
        (F.multi_head_attention_forward,),
        opened=_opened(F.multi_head_attention_forward, _in_projection_packed=_in_projection_packed),  # type: ignore[arg-type]
    ),
    Operator((F.scaled_dot_product_attention,), substitute=substitutes.attention),
    Operator((torch._weight_norm,), thrice=substitutes.weight_norm),
    # normalisation
    Operator((F.batch_norm,), rule=norms.batch_norm, link=links.batch_norm),
    Operator((F.layer_norm,), rule=norms.layer_norm, thrice=substitutes.layer_norm),
    Operator((torch.layer_norm,), thrice=substitutes.layer_norm),
    Operator((F.group_norm,), rule=norms.group_norm, substitute=substitutes.group_norm),
    Operator((F.instance_norm,), rule=norms.instance_norm, thrice=substitutes.instance_norm),
    Operator((F.rms_norm,), rule=norms.rms_norm),
    # activations
    Operator((F.prelu, torch.prelu, _T.prelu), rule=_prelu, link=links.prelu, is_activation=True),
    Operator((F.relu, torch.relu, _T.relu), substitute=substitutes.relu, link=links.piecewise, is_activation=True),
    Operator((F.relu_, torch.relu_, _T.relu_), link=links.piecewise, is_activation=True),
    Operator((F.relu6,), substitute=substitutes.relu6, link=links.piecewise, is_activation=True),
    Operator((F.hardtanh,), substitute=substitutes.hardtanh, link=links.piecewise, is_activation=True),
    Operator((F.leaky_relu,), substitute=substitutes.leaky_relu, link=links.piecewise, is_activation=True),
    Operator((F.hardtanh_, F.leaky_relu_, F.threshold, torch.threshold_), link=links.piecewise, is_activation=True),
    Operator((F.rrelu, F.rrelu_), link=links.randomised, is_activation=True),
    Operator((F.gelu,), substitute=substitutes.gelu, is_activation=True),
    Operator((F.hardsigmoid,), substitute=substitutes.hardsigmoid, is_activation=True),
    Operator((F.hardswish,), substitute=substitutes.hardswish, is_activation=True),
    Operator((F.silu,), substitute=substitutes.silu, is_activation=True),
    Operator((F.mish,), substitute=substitutes.mish, is_activation=True),
    Operator((F.glu,), substitute=substitutes.glu),
    Operator((F.elu, F.elu_, F.selu, F.celu, F.softplus), is_activation=True),
    Operator((F.tanh, torch.tanh, _T.tanh, F.sigmoid, torch.sigmoid, _T.sigmoid), is_activation=True),
    Operator((F.max_pool2d, torch.max_pool2d), substitute=substitutes.max_pool2d),
    # what acts on each unit by itself
    Operator((F.hardshrink, F.softshrink, torch.abs, _T.abs), link=links.piecewise),
    Operator((torch.clamp, torch.clamp_min, _T.clamp, _T.clamp_, _T.clamp_min, _T.clamp_min_), link=links.piecewise),
    Operator((torch.add, _T.add, _T.__add__, _T.__radd__), rule=_add, link=links.shift),
    Operator((_T.add_, _T.__iadd__), rule=_add_in_place, link=links.shift),
    Operator((torch.sub, _T.sub, _T.sub_, _T.__sub__, _T.__isub__), link=links.shift),
    Operator((torch.mul, _T.mul, _T.__mul__, _T.__rmul__), rule=_mul, link=links.scale),
    Operator((_T.mul_, _T.__imul__, torch.div, _T.div, _T.div_, _T.__truediv__, _T.__itruediv__), link=links.scale),
    Operator((torch.neg, _T.neg, _T.__neg__, torch.rsub, _T.__rsub__), link=links.scale),
    # shapes and precision
    Operator((_T.expand,), rule=_expand),
    Operator((torch.flatten, _T.flatten, _T.view, torch.reshape, _T.reshape, _T.contiguous), link=links.reshape),
    Operator((torch.squeeze, _T.squeeze, torch.unsqueeze, _T.unsqueeze), link=links.reshape),
    Operator((torch.unflatten, _T.unflatten, torch.clone, _T.clone), link=links.reshape),
    Operator((_T.to, _T.float, _T.double, _T.half, _T.bfloat16, _T.type_as), link=links.reshape),
    Operator(
        (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout), link=links.dropout
    ),
):
    register_operator(_operator)

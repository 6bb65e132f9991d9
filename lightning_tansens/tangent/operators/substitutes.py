"""Forward passes that can be differentiated twice: substitutes for operators that cannot."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lightning_tansens.tangent.operators import smooth_layers
from lightning_tansens.tangent.operators.known_derivatives import apply_gate, apply_linear, tangent_of, value_of
from lightning_tansens.tangent.operators.registry import operator_of


def _elementwise(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Returns a substitute that keeps the meaning of ``inplace``: the network may go on with the input."""

    def substitute(input: Tensor, inplace: bool = False) -> Tensor:
        return input.copy_(function(input.clone())) if inplace else function(input)

    return substitute


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """ReLU, with a backward that reads no output."""
    # torch's own backward reads its output, whose derivative would be carried along for nothing
    active = F.relu(value_of(input))

    def gate(values: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(values, active, 0.0)  # type: ignore[no-any-return]

    # the gate keeps what nobody else can change, and not the result, whose graph keeps the gate
    if inplace:
        result = apply_gate(input, active.detach(), gate)
        # what is overwritten has no gradient, where torch would send zeros back
        return (input if input._is_view() or input.is_leaf else input.detach_()).copy_(result)
    return apply_gate(input, active.clone(), gate)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Hardtanh, by a choice between the input and constants."""

    def clamp(h: Tensor) -> Tensor:
        return torch.where((h > min_val) & (h < max_val), h, h.detach().clamp(min_val, max_val))

    return _elementwise(clamp)(input, inplace)


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,  # never true: with indices, torch calls another function
) -> Tensor:
    """Max pooling, a choice among its inputs, of which torch would carry zeros along as the second derivative."""
    geometry = [[n, n] if isinstance(n, int) else n for n in (kernel_size, stride or kernel_size, padding, dilation)]
    shape, (value, indices) = input.shape, torch.ops.aten.max_pool2d_with_indices(value_of(input), *geometry, ceil_mode)

    def choose(values: Tensor) -> Tensor:
        return values.flatten(-2).gather(-1, indices.flatten(-2)).reshape(indices.shape)

    def scatter(values: Tensor) -> Tensor:
        like = values.new_empty(1).expand(shape)  # only its shape is read
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        return backward(values, like, *geometry, ceil_mode, indices)  # type: ignore[no-any-return]

    return apply_linear(input, lambda _: value, choose, scatter)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """GELU, by hand where a probe is carried along."""
    by_hand = tangent_of(input) is not None and approximate == "none"
    return smooth_layers.gelu(input) if by_hand else F.gelu(input, approximate=approximate)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention, by hand where a probe is carried along and nothing is masked."""
    masked = attn_mask is not None or dropout_p or is_causal
    alike = query.dim() > 2 and query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    if masked or not alike or all(tangent_of(tensor) is None for tensor in (query, key, value)):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    return smooth_layers.attention(query, key, value, 1 / math.sqrt(query.shape[-1]) if scale is None else scale)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """Leaky ReLU, by a choice between two slopes."""
    return _elementwise(lambda h: torch.where(h > 0, h, h * negative_slope))(input, inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """ReLU6, as a Hardtanh."""
    return hardtanh(input, 0.0, 6.0, inplace)


hardsigmoid = _elementwise(lambda h: relu6(h + 3) / 6)
hardswish = _elementwise(lambda h: h * hardsigmoid(h))
silu = _elementwise(lambda h: h * torch.sigmoid(h))
mish = _elementwise(lambda h: h * torch.tanh(F.softplus(h)))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """GLU, by the sigmoid."""
    values, gates = input.chunk(2, dim)
    return values * torch.sigmoid(gates)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Group normalisation, whose own operator lacks a forward mode over its reverse mode."""
    groups = input.reshape(len(input), num_groups, -1)
    variance, mean = torch.var_mean(groups, -1, correction=0, keepdim=True)
    result = ((groups - mean) * (variance + eps).rsqrt()).reshape(input.shape)
    channels = [-1, *[1] * (input.dim() - 2)]
    result = result if weight is None else result * weight.reshape(channels)
    return result if bias is None else result + bias.reshape(channels)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """Layer normalisation, whose own operator holds the deviation for a constant in the third derivative."""
    variance, mean = torch.var_mean(input, list(range(-len(normalized_shape), 0)), correction=0, keepdim=True)
    result = (input - mean) * (variance + eps).rsqrt()
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Instance normalisation, whose own operator has no third derivative."""
    if use_input_stats:
        return group_norm(input, input.shape[1], weight, bias, eps)
    return F.instance_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Weight normalisation, whose own operator holds the norm for a constant in the third derivative."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


class _Substitution(TorchFunctionMode):
    def __init__(self, thrice: bool) -> None:
        super().__init__()
        self._thrice = thrice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = operator_of(func)
        found = (self._thrice and operator.thrice) or operator.substitute or func
        return found(*args, **(kwargs or {}))


@contextmanager
def twice_differentiable(model: nn.Module, thrice: bool = False) -> Iterator[None]:
    """Runs a block in which forward passes take kernels that have second derivatives, or with ``thrice`` third ones too.

    Attention takes its plain form instead of the fused kernels, recurrent layers the native implementation instead of
    oneDNN's or cuDNN's, and single operators the substitutes in their records.
    """
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(_Substitution(thrice))
        yield

"""The operators of normalising layers, whose parameters scale and shift what is normalised."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.tangent.operators import smooth_layers, substitutes
from lightning_tansens.tangent.operators.known_derivatives import apply_linear, apply_scale, tangent_of
from lightning_tansens.tangent.operators.layer_rules import (
    BroadcastRule,
    Contribution,
    Direct,
    Result,
    channels_shape,
    is_computed,
)
from lightning_tansens.tangent.probes.batch_axis import BatchAxis


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Result | None:
    """Normalises by running statistics; the arguments are torch's."""
    if training or running_mean is None or running_var is None:
        return None
    shape = channels_shape(input)
    scale = (running_var + eps).rsqrt().to(input.dtype).reshape(shape)
    if not input.requires_grad or any(p is not None and is_computed(p) for p in (weight, bias)):
        normalised = F.batch_norm(input, running_mean, running_var, None, None, False, 0.0, eps)
        return _affine(normalised, weight, bias, shape)
    factor, offset = [None if p is None else p.detach() for p in (weight, bias)]
    slope = scale if factor is None else scale * factor.reshape(shape)
    result = apply_linear(
        input,
        lambda x: F.batch_norm(x, running_mean, running_var, factor, offset, False, 0.0, eps),
        lambda x: x * slope,
        lambda y: y * slope,
    )
    centre = running_mean.reshape(shape)
    return Result(result, input, [(weight, _ScaleRule(shape, centre, scale)), (bias, BroadcastRule(shape, False))])


class _ScaleRule(BroadcastRule):
    """y = p · (x − centre) · scale with the input x as features, so that what p multiplies need not be kept."""

    def __init__(self, shape: torch.Size, centre: Tensor, scale: Tensor) -> None:
        super().__init__(shape, multiplies=True)
        self._centre, self._scale = centre, scale

    def __call__(self, features: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        return self.along(features - self._centre, delta, axis, samples)

    def along(self, features_dot: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        return Direct(super().__call__(features_dot, delta, axis, samples).written_out() * self._scale.flatten())


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Result:
    """Normalises each sample over the last axes; the arguments are torch's."""
    if tangent_of(input) is not None and input.requires_grad:
        normalised = smooth_layers.layer_norm(input, normalized_shape, eps)
    else:
        normalised = F.layer_norm(input, normalized_shape, None, None, eps)
    return _affine(normalised, weight, bias, torch.Size(normalized_shape))


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Result:
    """Normalises each sample over groups of channels; the arguments are torch's."""
    return _affine(substitutes.group_norm(input, num_groups, eps=eps), weight, bias, channels_shape(input))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Result:
    """Normalises each channel of a sample; the arguments are torch's."""
    normalised = F.instance_norm(input, running_mean, running_var, None, None, use_input_stats, momentum, eps)
    return _affine(normalised, weight, bias, channels_shape(input))


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Result:
    """Divides by the root mean square over the last axes; the arguments are torch's."""
    return _affine(F.rms_norm(input, normalized_shape, None, eps), weight, None, torch.Size(normalized_shape))


def _affine(normalised: Tensor, weight: Tensor | None, bias: Tensor | None, shape: torch.Size) -> Result:
    parameters = [None if parameter is None else parameter.reshape(shape) for parameter in (weight, bias)]
    if normalised.requires_grad and not any(p is not None and is_computed(p) for p in (weight, bias)):
        factor, shift = [None if p is None else p.detach() for p in parameters]
        result = apply_scale(normalised, 1.0 if factor is None else factor, shift)
    else:
        factor, shift = parameters
        result = normalised if factor is None else normalised * factor
        result = result if shift is None else result + shift
    return Result(result, normalised, [(weight, BroadcastRule(shape, True)), (bias, BroadcastRule(shape, False))])

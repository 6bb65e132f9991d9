"""Convolutions: their operators, and their rule, in which a kernel's gradient sums over all positions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.tangent.operators.known_derivatives import apply_linear
from lightning_tansens.tangent.operators.layer_rules import (
    BroadcastRule,
    Outer,
    OuterSum,
    Result,
    Rule,
    by_group,
    channels_shape,
    is_computed,
)
from lightning_tansens.tangent.probes.batch_axis import BatchAxis


@dataclass(frozen=True)
class ConvolutionRule(Rule):
    """y = W ⋆ a: δ ⊗ the patches of a, summed over positions."""

    kernel: tuple[int, ...]  #: The kernel's extent, of 1 to 3 dimensions.
    stride: tuple[int, ...]  #: The steps between patches.
    padding: tuple[tuple[int, int], ...]  #: Zeros before and behind, in every dimension.
    dilation: tuple[int, ...]  #: The steps inside of a patch.
    groups: int  #: The number of groups of channels.
    transposed: bool = False  #: Whether a and y change places.

    def __call__(self, features: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> OuterSum:
        large, small = (delta, features) if self.transposed else (features, delta)
        return Correlation(small, large, self, axis, samples)


@dataclass(frozen=True)
class Correlation(OuterSum):
    """The gradient Σ_t s_t ⊗ (the patch of l at t) of a convolution's weight."""

    small: Tensor  # s, shape (images, G · O, …): δ, or the input of a transposed convolution
    large: Tensor  # l, shape (images, G · I, …): the input, or δ of a transposed convolution
    rule: ConvolutionRule
    axis: BatchAxis  # where the samples are among the images
    samples: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        images, channels = self.small.shape[:2]
        positions = self.small[0, 0].numel() * (images // self.samples)
        return self.rule.groups, positions, channels // self.rule.groups

    def outer(self) -> Outer:
        """Writes out the patches."""
        groups = self.rule.groups
        patches = self._patches().reshape(len(self.large), groups, -1, self._positions_of_an_image()).transpose(2, 3)
        small = self.small.reshape(len(self.small), groups, -1, self._positions_of_an_image()).transpose(2, 3)
        return Outer(self._by_sample(small), self._by_sample(patches))

    def projected(self, signs: Tensor) -> Tensor:
        """Combines the rows of each group with signs (N, R, G · O), shape (N, G, R, I · kernel).

        A combination of the rows is one image r·s; the gradients of all samples are one of a convolution in N · G groups.
        """
        rule, groups = self.rule, self.rule.groups
        if max(rule.kernel) == 1 or self.axis != BatchAxis() or not self._fills():
            return self.outer().projected(signs)
        combined = by_group(signs, groups) @ self.small.reshape(self.samples, groups, -1, self._positions_of_an_image())
        small = combined.reshape(1, -1, *self.small.shape[2:])
        large = self.large.reshape(1, -1, *self.large.shape[2:])
        shape = (small.shape[1], self.large.shape[1] // groups, *rule.kernel)
        like = small.new_empty(1).expand(shape)  # only its shape is read
        padding, none = [before for before, _ in rule.padding], [0] * len(rule.kernel)
        geometry = (rule.stride, padding, rule.dilation, False, none, self.samples * groups)
        _, gradient, _ = torch.ops.aten.convolution_backward(small, large, like, None, *geometry, [False, True, False])
        return cast(Tensor, gradient).reshape(*combined.shape[:3], -1)

    def _fills(self) -> bool:
        """Whether a convolution of l would have the positions of s, and no more."""
        rule = self.rule
        reach = [2 * before - d * (k - 1) - 1 for (before, _), d, k in zip(rule.padding, rule.dilation, rule.kernel)]
        sizes = zip(self.large.shape[2:], reach, rule.stride)
        return self.small.shape[2:] == tuple((size + more) // stride + 1 for size, more, stride in sizes)

    def _geometry(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """Kernel, dilation and padding, each with its value along an axis of length one."""
        rule = self.rule
        return (rule.kernel, 1), (rule.dilation, 1), (tuple(before for before, _ in rule.padding), 0)

    def _positions_of_an_image(self) -> int:
        return self.small[0, 0].numel()

    def _by_sample(self, tensor: Tensor) -> Tensor:
        """Brings (images, G, T, features) to (N, G, T, features)."""
        tensor = self.axis.split(tensor, self.samples)
        return tensor if self.axis.order == "alone" else tensor.transpose(1, 2).flatten(2, 3)

    def _patches(self) -> Tensor:
        """The patches of l, shape (images, G · I · kernel, T)."""
        rule = self.rule
        if len(rule.kernel) <= 2 and all(before == behind for before, behind in rule.padding):
            return self._unfold_image()
        return self._unfold()

    def _unfold_image(self) -> Tensor:
        """The patches in torch's own, faster, order of work."""
        rule, large, positions = self.rule, self.large, self.small.shape[2:]
        kernel, dilation, padding = (_as_image(values, fill) for values, fill in self._geometry())
        if all(size == 1 for size in kernel) and not any(padding):
            index = (slice(None), slice(None), *(slice(None, None, step) for step in rule.stride))
            strided = large[index]
            for axis, count in enumerate(positions):
                strided = strided.narrow(2 + axis, 0, count)
            return strided.flatten(2)
        image = large.unsqueeze(2) if len(rule.kernel) == 1 else large
        return F.unfold(image, kernel, dilation, padding, _as_image(rule.stride, 1))

    def _unfold(self) -> Tensor:
        """The patches for any number of dimensions."""
        rule = self.rule
        large = F.pad(self.large, [p for pair in reversed(rule.padding) for p in pair])
        geometry = zip(rule.kernel, rule.stride, rule.dilation, self.small.shape[2:])
        for axis, (size, stride, dilation, count) in enumerate(geometry):
            extent = dilation * (size - 1) + 1
            # the kernel's axes gather at the end, in their order
            large = large.unfold(2 + axis, extent, stride).narrow(2 + axis, 0, count)[..., ::dilation]
        dims = len(rule.kernel)
        order = [0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims)]
        return large.permute(order).flatten(2 + dims).flatten(1, 1 + dims)


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Result | None:
    """Convolves; the arguments are torch's."""
    if input.dim() != weight.dim():
        return None
    rule = _rule(weight, stride, padding, dilation, groups, transposed=False)
    if any(before != behind for before, behind in rule.padding):
        input = F.pad(input, [p for pair in reversed(rule.padding) for p in pair])
        rule = replace(rule, padding=((0, 0),) * len(rule.padding))
    padding = [before for before, _ in rule.padding]
    geometry = [rule.stride, padding, rule.dilation]
    return _convolve(input, weight, bias, geometry, [0] * len(padding), groups, rule)


def transposed_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Result | None:
    """Convolves, transposed; the arguments are torch's."""
    if input.dim() != weight.dim():
        return None
    rule = _rule(weight, stride, padding, dilation, groups, transposed=True)
    geometry = [rule.stride, [before for before, _ in rule.padding], rule.dilation]
    return _convolve(input, weight, bias, geometry, _repeat(output_padding, weight.dim() - 2), groups, rule)


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

    if input.requires_grad and not is_computed(weight):
        result = apply_linear(input, lambda x: convolve(x, offset), convolve, transpose)
    else:
        result = torch.convolution(input, weight, bias, *arguments)
    return Result(result, input, [(weight, rule), (bias, BroadcastRule(channels_shape(result), False))])


def _rule(weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int, transposed: bool) -> ConvolutionRule:
    """Returns the rule of a convolution from its arguments, in any of the forms torch takes them."""
    dims = weight.dim() - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation = _repeat(stride, dims), _repeat(dilation, dims)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pairs = tuple((p, p) for p in _repeat(0 if padding == "valid" else padding, dims))
    return ConvolutionRule(kernel, stride, pairs, dilation, groups, transposed)


def _repeat(value: Any, dims: int) -> tuple[int, ...]:
    """Gives an argument that may be one number for all dimensions one entry for each."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values if len(values) == dims else values * dims


def _as_image(values: tuple[int, ...], fill: int) -> tuple[int, ...]:
    """Gives a line of numbers a first axis of length one."""
    return (fill, *values) if len(values) == 1 else values

"""How each operator's parameters enter the outputs: its per-sample parameter gradients, as a function of (a, δ).

For an operator y = op(a; p), a rule turns the operator's input a and the gradient δ with respect to y into the
per-sample gradient of p. It is linear in δ, and linear in a or independent of it, which is all that the product rule
needs: d/dε of the gradient is rule(a, δ̇) + rule(ȧ, δ).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.functional.contributions import Contribution, Direct, Outer, Scatter
from lightning_tansens.functional.layout import Layout


class Rule(ABC):
    """The rule of one call of an operator, for one of its parameters."""

    #: Whether the gradient depends on the operator's input (a bias's does not).
    uses_input: bool = True

    @abstractmethod
    def __call__(self, features: Tensor, delta: Tensor, layout: Layout, samples: int) -> Contribution:
        """Returns the contribution for an input a and a gradient δ, or for one's derivative in place of it."""


@dataclass(frozen=True)
class LinearRule(Rule):
    """y = W a, W (O, I): δ ⊗ a, summed over positions; or y = Wᵀ a, W (I, O): a ⊗ δ.

    Attributes:
        transposed: Whether it is Wᵀ that multiplies.

    """

    transposed: bool = False

    def __call__(self, features: Tensor, delta: Tensor, layout: Layout, samples: int) -> Contribution:
        factors = [_positions(layout.split(tensor, samples)) for tensor in (delta, features)]
        return Outer(*(factors[::-1] if self.transposed else factors))


class BroadcastRule(Rule):
    """y = x + p, or y = x · p: the sum of δ, or of δ · x, over what p was broadcast to.

    Args:
        shape: The shape in which p takes part.
        multiplies: Whether p is a factor.

    """

    def __init__(self, shape: torch.Size, multiplies: bool) -> None:
        self.uses_input = multiplies
        self._shape = shape

    def __call__(self, features: Tensor, delta: Tensor, layout: Layout, samples: int) -> Contribution:
        product = delta * features if self.uses_input else delta
        lengths = [1] * (product.dim() - len(self._shape)) + list(self._shape)
        summed = [
            place for place, axis in enumerate(layout.rest(product.dim()), start=1) if axis is None or lengths[axis] == 1
        ]
        by_sample = layout.split(product, samples)
        return Direct((by_sample.sum(summed) if summed else by_sample).reshape(samples, -1))


@dataclass(frozen=True)
class ConvolutionRule(Rule):
    """y = W ⋆ a: δ ⊗ the patches of a, summed over positions.

    Attributes:
        kernel: The kernel's extent, of 1 to 3 dimensions.
        stride: The steps between patches.
        padding: Zeros before and behind, in every dimension.
        dilation: The steps inside of a patch.
        groups: The number of groups of channels.
        transposed: Whether a and y change places.

    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False

    def __call__(self, features: Tensor, delta: Tensor, layout: Layout, samples: int) -> Contribution:
        large, small = (delta, features) if self.transposed else (features, delta)
        patches = self._patches(large, tuple(small.shape[2:]))
        images, channels = small.shape[:2]
        small = small.reshape(images, self.groups, channels // self.groups, -1).transpose(2, 3)
        small, patches = (self._by_sample(tensor, layout, samples) for tensor in (small, patches))
        return Outer(small, patches)

    def _by_sample(self, tensor: Tensor, layout: Layout, samples: int) -> Tensor:
        """Brings (images, G, T, features) to (N, T, features), or (N, G, T, features) with several groups."""
        tensor = layout.split(tensor, samples)
        if layout.order != "alone":
            tensor = tensor.transpose(1, 2).flatten(2, 3)
        return tensor[:, 0] if self.groups == 1 else tensor

    def _patches(self, large: Tensor, positions: tuple[int, ...]) -> Tensor:
        """The patches of a tensor (images, I, …), shape (images, G, T, I/G · kernel)."""
        images = len(large)
        if len(self.kernel) <= 2 and all(before == behind for before, behind in self.padding):
            patches = self._unfold_image(large, positions)
        else:
            patches = self._unfold(large, positions)
        return patches.reshape(images, self.groups, -1, patches.shape[-1]).transpose(2, 3)

    def _unfold_image(self, large: Tensor, positions: tuple[int, ...]) -> Tensor:
        """The patches in torch's own, faster, order of work, shape (images, I · kernel, T)."""
        flat = len(self.kernel) == 1
        line = ((0,), (1,)) if flat else ((), ())
        padding = (*line[0], *(before for before, _ in self.padding))
        stride, dilation = (*line[1], *self.stride), (*line[1], *self.dilation)
        if all(size == 1 for size in self.kernel) and not any(padding):
            steps = tuple(slice(None, None, step) for step in self.stride)
            index = (slice(None), slice(None), *steps)
            strided = large[index]
            for axis, count in enumerate(positions):
                strided = strided.narrow(2 + axis, 0, count)
            return strided.flatten(2)
        image = large.unsqueeze(2) if flat else large
        return F.unfold(image, (*line[1], *self.kernel), dilation, padding, stride)

    def _unfold(self, large: Tensor, positions: tuple[int, ...]) -> Tensor:
        """The patches for any number of dimensions, shape (images, I · kernel, T)."""
        large = F.pad(large, [p for pair in reversed(self.padding) for p in pair])
        for axis, (size, stride, dilation, count) in enumerate(zip(self.kernel, self.stride, self.dilation, positions)):
            extent = dilation * (size - 1) + 1
            # the kernel's axes gather at the end, in their order
            large = large.unfold(2 + axis, extent, stride).narrow(2 + axis, 0, count)[..., ::dilation]
        dims = len(self.kernel)
        order = [0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims)]
        return large.permute(order).flatten(2 + dims).flatten(1, 1 + dims)


@dataclass(frozen=True)
class EmbeddingRule(Rule):
    """y = table[i]: δ goes to the rows that were looked up.

    Attributes:
        rows: i, of the shape of y without its last axis.
        skip: The row that gets no gradient (``padding_idx``), or None.

    """

    rows: Tensor
    skip: int | None
    uses_input = False

    def __call__(self, features: Tensor, delta: Tensor, layout: Layout, samples: int) -> Contribution:
        rows = layout.split(self.rows.unsqueeze(-1), samples).flatten(1)
        delta = _positions(layout.split(delta, samples))
        return Scatter(delta * (rows != self.skip).unsqueeze(-1) if self.skip is not None else delta, rows)


def convolution_rule(
    weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int, transposed: bool
) -> ConvolutionRule:
    """Returns the rule of a convolution from its arguments, in any of the forms torch takes them."""
    dims = weight.dim() - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation = repeat(stride, dims), repeat(dilation, dims)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pairs = tuple((p, p) for p in repeat(0 if padding == "valid" else padding, dims))
    return ConvolutionRule(kernel, stride, pairs, dilation, groups, transposed)


def repeat(value: Any, dims: int) -> tuple[int, ...]:
    """Gives an argument that may be one number for all dimensions one entry for each."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values if len(values) == dims else values * dims


def _positions(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])

"""How each operator's parameters enter the outputs: its per-sample parameter gradients, as a function of (a, δ).

For an operator y = op(a; p), a rule turns the operator's input a and the gradient δ with respect to y into the
per-sample gradient of p. It is linear in δ, and linear in a or independent of it, which is all that the product rule
needs: d/dε of the gradient is rule(a, δ̇) + rule(ȧ, δ).

The rules of convolutions are in :mod:`~lightning_tansens.tangent.operators.convolutions`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_tansens.tangent.operators.contributions import Contribution, Direct, Outer, Scatter
from lightning_tansens.tangent.probes.batch_axis import BatchAxis


class Rule(ABC):
    """The rule of one call of an operator, for one of its parameters."""

    #: Whether the gradient depends on the operator's input (a bias's does not).
    uses_input: bool = True

    @abstractmethod
    def __call__(self, features: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        """Returns the contribution for an input a and a gradient δ, or for one's derivative in place of it."""


@dataclass(frozen=True)
class LinearRule(Rule):
    """y = W a, W (O, I): δ ⊗ a, summed over positions; or, ``transposed``, y = Wᵀ a, W (I, O): a ⊗ δ."""

    transposed: bool = False

    def __call__(self, features: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        factors = [_positions(axis.split(tensor, samples)).unsqueeze(1) for tensor in (delta, features)]
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

    def __call__(self, features: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        product = delta * features if self.uses_input else delta
        lengths = [1] * (product.dim() - len(self._shape)) + list(self._shape)
        summed = [place for place, d in enumerate(axis.rest(product.dim()), start=1) if d is None or lengths[d] == 1]
        by_sample = axis.split(product, samples)
        return Direct((by_sample.sum(summed) if summed else by_sample).reshape(samples, -1))


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

    def __call__(self, features: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        rows = axis.split(self.rows.unsqueeze(-1), samples).flatten(1)
        delta = _positions(axis.split(delta, samples))
        return Scatter(delta * (rows != self.skip).unsqueeze(-1) if self.skip is not None else delta, rows)


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


def is_computed(weight: Tensor) -> bool:
    """Whether a weight is computed from the input or from parameters, so that derivatives must flow through it."""
    return weight.requires_grad and not weight.is_leaf


def channels_shape(tensor: Tensor) -> torch.Size:
    """The shape in which a vector over channels takes part: (C, 1, …) behind the batch axis."""
    return torch.Size([tensor.shape[1], *[1] * (tensor.dim() - 2)])


def _positions(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])

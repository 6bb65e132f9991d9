"""How each operator's parameters enter the outputs: its per-sample parameter gradients, as a function of (a, δ).

For an operator y = op(a; p), a rule turns the operator's input a and the gradient δ with respect to y into the
per-sample gradient of p. It is linear in δ, and linear in a or independent of it, which is all that the product rule
needs: d/dε of the gradient is rule(a, δ̇) + rule(ȧ, δ). The gradients are contributions that are never written out: sums of
outer products, of which norms are taken.

The rules of convolutions are in :mod:`~lightning_tansens.tangent.operators.convolutions`. Index letters: n sample, t
position (token, pixel, or several passes through one layer), o output feature, i input feature, g group of channels, r
random projection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from lightning_tansens.tangent.probes.batch_axis import BatchAxis

#: Draws random signs over a number of rows, shape (N, R, rows).
Signs = Callable[[int], Tensor]

#: A gradient that sums over fewer positions, or has fewer rows, gets its exact norm, which is no more work then.
PROJECT_FROM = 16


class Contribution(ABC):
    """A part of the per-sample gradient of one parameter."""

    @abstractmethod
    def written_out(self) -> Tensor:
        """Returns the gradient itself, shape (N, numel)."""

    def summed(self, shape: torch.Size) -> Tensor:
        """Returns the sum over the samples, in the shape of the parameter."""
        return self.written_out().sum(0).reshape(shape)


class OuterSum(Contribution):
    """A gradient Σ_t δ_t ⊗ a_t of a weight with O rows in each of G groups."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of groups G, positions T and rows O in a group."""

    @abstractmethod
    def outer(self) -> Outer:
        """Returns the sum by its factors."""

    @abstractmethod
    def projected(self, signs: Tensor) -> Tensor:
        """Combines the rows of each group with signs (N, R, G · O), shape (N, G, R, numel / (G · O))."""

    def written_out(self) -> Tensor:
        outer = self.outer()
        return (outer.delta.mT @ outer.features).flatten(1)

    def summed(self, shape: torch.Size) -> Tensor:
        outer = self.outer()
        delta, features = (part.transpose(0, 1).flatten(1, 2) for part in (outer.delta, outer.features))
        return (delta.mT @ features).reshape(shape)


@dataclass(frozen=True)
class Outer(OuterSum):
    """The gradient by its factors."""

    delta: Tensor  # δ, shape (N, G, T, O)
    features: Tensor  # a, shape (N, G, T, I)

    @property
    def sizes(self) -> tuple[int, int, int]:
        _, groups, positions, rows = self.delta.shape
        return groups, positions, rows

    def outer(self) -> Outer:
        return self

    def projected(self, signs: Tensor) -> Tensor:
        return by_group(signs, self.delta.shape[1]) @ self.delta.mT @ self.features


@dataclass(frozen=True)
class Scatter(Contribution):
    """The gradient of a table whose rows i_t were looked up: Σ_t e_{i_t} ⊗ δ_t."""

    delta: Tensor  # δ, shape (N, T, O)
    rows: Tensor  # i, shape (N, T)

    def written_out(self) -> Tensor:
        """Refuses: a table is large, and its contributions meet none of another kind."""
        raise TypeError("a table that is used both for looking up and otherwise has no rule")

    def summed(self, shape: torch.Size) -> Tensor:
        table = self.delta.new_zeros(shape)
        return table.index_add_(0, self.rows.flatten(), self.delta.flatten(0, 1))


@dataclass(frozen=True)
class Direct(Contribution):
    """The gradient of a small parameter, written out, shape (N, numel)."""

    gradient: Tensor

    def written_out(self) -> Tensor:
        return self.gradient


def squared_norm(contributions: Sequence[Contribution], signs: Signs | None = None) -> Tensor:
    r"""Returns the squared norm of the sum of one parameter's contributions, shape (N,).

    Several contributions come from the two terms of a product's derivative and from a parameter that is used more than once;
    they add before the norm is taken. With random signs r over a weight's rows (None for the exact norm),

    .. math:: \|G\|_F^2 = E\|r^T G\|^2 \;\text{ for } E r r^T = I

    takes the place of the sum over all rows where a gradient sums over more positions and rows than there are draws.

    Example:
        >>> delta, features = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0]]]])
        >>> squared_norm([Outer(delta, features), Direct(torch.zeros(1, 2))])
        tensor([45.])
    """
    outer = [c for c in contributions if isinstance(c, OuterSum)]
    if len(outer) == len(contributions) and len({(c.sizes[0], c.sizes[2]) for c in outer}) == 1:
        return _outer_squared_norm(outer, signs)
    scatter = [c for c in contributions if isinstance(c, Scatter)]
    if len(scatter) == len(contributions):
        delta, rows = torch.cat([c.delta for c in scatter], 1), torch.cat([c.rows for c in scatter], 1)
        same = rows.unsqueeze(1) == rows.unsqueeze(2)
        return ((delta @ delta.mT) * same).sum((1, 2))
    return torch.stack([c.written_out() for c in contributions]).sum(0).square().sum(1)


def by_group(signs: Tensor, groups: int) -> Tensor:
    """Brings signs (N, R, G · O) to (N, G, R, O)."""
    samples, draws, _ = signs.shape
    return signs.reshape(samples, draws, groups, -1).transpose(1, 2)


def _outer_squared_norm(sums: Sequence[OuterSum], signs: Signs | None) -> Tensor:
    """‖Σ_t δ_t ⊗ a_t‖²: by few random combinations of its rows, or exactly if that is no more work."""
    groups, _, rows = sums[0].sizes
    positions = sum(c.sizes[1] for c in sums)
    if signs is not None and min(positions, rows) >= PROJECT_FROM:
        drawn = signs(groups * rows)
        projected = [c.projected(drawn) for c in sums]
        return torch.stack(projected).sum(0).square().sum((1, 2, 3)) / drawn.shape[1]
    return _exact_squared_norm([c.outer() for c in sums])


def _exact_squared_norm(terms: Sequence[Outer]) -> Tensor:
    """‖Σ_t δ_t ⊗ a_t‖², through the (T × T) Gram matrices or the (O × I) product, whichever is smaller."""
    outs, ins = terms[0].delta.shape[-1], terms[0].features.shape[-1]
    positions = sum(term.delta.shape[-2] for term in terms)
    if positions == 1:
        term = terms[0]
        norms: Tensor = (vector_norm(term.delta, dim=(-2, -1)) * vector_norm(term.features, dim=(-2, -1))).square()
    elif positions * (outs + ins) < outs * ins:
        delta, features = torch.cat([t.delta for t in terms], -2), torch.cat([t.features for t in terms], -2)
        norms = ((delta @ delta.mT) * (features @ features.mT)).sum((-2, -1))
    else:
        product = terms[0].delta.mT @ terms[0].features
        for term in terms[1:]:
            product = product + term.delta.mT @ term.features
        norms = product.square().sum((-2, -1))
    return norms.sum(1)


class Rule(ABC):
    """The rule of one call of an operator, for one of its parameters."""

    #: Whether the gradient depends on the operator's input (a bias's does not).
    uses_input: bool = True

    @abstractmethod
    def __call__(self, features: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        """Returns the contribution for an input a and a gradient δ, or for δ's derivative in place of it."""

    def along(self, features_dot: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        """Returns the contribution for the input's derivative ȧ; another one where the gradient is affine in the input."""
        return self(features_dot, delta, axis, samples)


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
    """y = table[i]: δ goes to the rows that were looked up."""

    rows: Tensor  #: i, of the shape of y without its last axis.
    skip: int | None  #: The row that gets no gradient (``padding_idx``), or None.
    uses_input = False

    def __call__(self, features: Tensor, delta: Tensor, axis: BatchAxis, samples: int) -> Contribution:
        rows = axis.split(self.rows.unsqueeze(-1), samples).flatten(1)
        delta = _positions(axis.split(delta, samples))
        return Scatter(delta * (rows != self.skip).unsqueeze(-1) if self.skip is not None else delta, rows)


@dataclass(frozen=True)
class Result:
    """What an operator returns."""

    result: Tensor  #: The same tensor as the torch function's.
    features: Tensor  #: The input a that the rules speak of.
    rules: Sequence[tuple[Tensor | None, Rule]]  #: Tensors that may be parameters, each with the rule by which it enters.


def is_computed(weight: Tensor) -> bool:
    """Whether a weight is computed from the input or from parameters, so that derivatives must flow through it."""
    return weight.requires_grad and not weight.is_leaf


def channels_shape(tensor: Tensor) -> torch.Size:
    """The shape in which a vector over channels takes part: (C, 1, …) behind the batch axis."""
    return torch.Size([tensor.shape[1], *[1] * (tensor.dim() - 2)])


def _positions(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])

"""Per-sample parameter gradients that are never written out: norms of sums of outer products.

Index letters: n sample, t position (token, pixel, or several passes through one layer), o output feature, i input
feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outer:
    """The gradient Σ_t δ_t ⊗ a_t of a weight, by its factors.

    Attributes:
        delta: δ, shape (N, T, O); or (N, G, T, O) for a grouped convolution.
        features: a, shape (N, T, I) or (N, G, T, I).

    """

    delta: Tensor
    features: Tensor


@dataclass(frozen=True)
class Scatter:
    """The gradient of a table whose rows i_t were looked up: Σ_t e_{i_t} ⊗ δ_t.

    Attributes:
        delta: δ, shape (N, T, O).
        rows: i, shape (N, T).

    """

    delta: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Direct:
    """The gradient of a small parameter, written out.

    Attributes:
        gradient: Shape (N, numel).

    """

    gradient: Tensor


Contribution = Outer | Scatter | Direct


def squared_norm(contributions: Sequence[Contribution]) -> Tensor:
    """Returns the squared norm of the sum of one parameter's contributions, shape (N,).

    Several contributions come from the two terms of a product's derivative and from a parameter that is used more than
    once; they add before the norm is taken.

    Args:
        contributions: The contributions of one parameter.

    Example:
        >>> delta, features = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0]]])
        >>> squared_norm([Outer(delta, features), Direct(torch.zeros(1, 2))])
        tensor([45.])

    """
    outer = [c for c in contributions if isinstance(c, Outer)]
    if len(outer) == len(contributions) and len({c.delta.dim() for c in outer}) == 1:
        return _outer_squared_norm(outer)
    scatter = [c for c in contributions if isinstance(c, Scatter)]
    if len(scatter) == len(contributions):
        delta, rows = torch.cat([c.delta for c in scatter], 1), torch.cat([c.rows for c in scatter], 1)
        same = rows.unsqueeze(1) == rows.unsqueeze(2)
        return ((delta @ delta.mT) * same).sum((1, 2))
    return torch.stack([_written_out(c) for c in contributions]).sum(0).square().sum(1)


def _outer_squared_norm(terms: Sequence[Outer]) -> Tensor:
    """‖Σ_t δ_t ⊗ a_t‖², through the (T × T) Gram matrices or the (O × I) product, whichever is smaller."""
    outs, ins = terms[0].delta.shape[-1], terms[0].features.shape[-1]
    positions = sum(term.delta.shape[-2] for term in terms)
    if positions == 1:
        norms = terms[0].delta.square().sum((-2, -1)) * terms[0].features.square().sum((-2, -1))
    elif positions * (outs + ins) < outs * ins:
        delta, features = torch.cat([t.delta for t in terms], -2), torch.cat([t.features for t in terms], -2)
        norms = ((delta @ delta.mT) * (features @ features.mT)).sum((-2, -1))
    else:
        product = terms[0].delta.mT @ terms[0].features
        for term in terms[1:]:
            product = product + term.delta.mT @ term.features
        norms = product.square().sum((-2, -1))
    return norms if norms.dim() == 1 else norms.sum(1)


def _written_out(contribution: Contribution) -> Tensor:
    if isinstance(contribution, Direct):
        return contribution.gradient
    if isinstance(contribution, Scatter):
        raise TypeError("a table that is used both for looking up and otherwise has no rule")
    return (contribution.delta.mT @ contribution.features).flatten(1)

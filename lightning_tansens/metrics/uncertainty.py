"""Standard errors of means and of the estimates built on them, by the delta method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Influence:
    """How far each sample moves the logarithm of a set's value, to first order.

    For a mean m of numbers x_n this is x_n/m − 1.

    Attributes:
        values: One number a sample, shape (N,).
        positions: The samples' positions in their set, shape (N,).
        block: The number of consecutive positions whose numbers share their randomness: 1 for independent samples, 32
            where samples share a probe.

    """

    values: Tensor
    positions: Tensor
    block: int = 1


def relative_standard_error(terms: Sequence[Influence], signs: Sequence[float] | None = None) -> float:
    r"""Computes the standard error of the logarithm of a product of powers of values.

    .. math:: se^2 = \frac{U}{U-1} \sum_u \Big(\sum_t s_t \frac1{N_t} \sum_{n \in u} i_{t,n}\Big)^2

    over units u, which are the samples, or the blocks of samples that share a probe. Terms meet in their units, so the
    covariance of what is measured on the same samples (loss and sensitivity of the reference), or with the same probes
    (two sets), is included.

    Args:
        terms: The influences i_t of the values.
        signs: The powers s_t, for example (1, -1, 1) for a ratio times a loss; None for ones.

    Returns:
        The standard error, which is the relative one of the product itself; nan for fewer than two units.

    Example:
        >>> values = torch.tensor([1.0, 3.0])
        >>> relative_standard_error([Influence(values / 2 - 1, torch.arange(2))])  # std 1.41 / sqrt(2) / mean 2
        0.5

    """
    block = max(term.block for term in terms)
    units = 1 + max(int(term.positions.max()) if len(term.positions) else 0 for term in terms) // block
    sums = torch.zeros(units, dtype=torch.float64)
    occupied = torch.zeros(units, dtype=torch.bool)
    for term, sign in zip(terms, signs or [1.0] * len(terms)):
        unit = term.positions.cpu().long() // block
        sums.index_add_(0, unit, sign * term.values.cpu().double() / max(1, len(term.values)))
        occupied[unit] = True
    count = int(occupied.sum())
    return math.sqrt(float(sums.square().sum()) * count / (count - 1)) if count > 1 else math.nan

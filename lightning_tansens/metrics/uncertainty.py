"""Standard errors of means and of the estimates built on them, by the delta method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Influence:
    """How far each sample moves the logarithm of a set's value, to first order: x_n/m − 1 for a mean m of numbers x_n."""

    values: Tensor  # one number a sample, shape (N,)
    positions: Tensor  # the samples' positions in their set, shape (N,)
    block: int = 1  # so many consecutive positions share their randomness: 32 where samples share a probe


def relative_standard_error(terms: Sequence[Influence], signs: Sequence[float] | None = None) -> float:
    r"""Computes the relative standard error of a product of powers of values, which is the one of its logarithm.

    .. math:: se^2 = \frac{U}{U-1} \sum_u \Big(\sum_t s_t \frac1{N_t} \sum_{n \in u} i_{t,n}\Big)^2

    over units u, which are the samples, or the blocks of samples that share a probe, for the values' influences i_t and
    powers s_t (the signs; None for ones). Terms meet in their units, so the covariance of what is measured on the same
    samples (loss and sensitivity of the reference), or with the same probes (two sets), is included. It is nan for fewer
    than two units.

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

"""Moments of the number of active nodes under the normal law of Theorem 2, in logarithms."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln, logsumexp

from lightning_tansens.checks import MAX_ORDER, check_counts, check_numbers

# Behind this ratio the negative tail of N(μ, σ²) is below 1e-20 of any moment up to the 2000th.
_NO_NEGATIVE_TAIL = 12.0


def log_absolute_moment(order: int, mean: float, std: float) -> float:
    r"""Computes ``log E|T|^p`` for T ~ N(μ, σ²).

    .. math:: E|T|^p = \sigma^p \, 2^{p/2} \, \frac{\Gamma((p+1)/2)}{\sqrt\pi} \;
        {}_1F_1\!\Big(-\frac p2; \frac12; -\frac{\mu^2}{2\sigma^2}\Big)

    (the moment in Theorem 2, Eq. 2, of Daróczy 2022). Both ways of summing it have positive terms only, so it can be taken
    in logarithms for any order: for even p, or where no probability lies below zero, the finite sum Σ_j p!/((p−2j)! j! 2^j)
    μ^{p−2j} σ^{2j}; otherwise Kummer's transformation ₁F₁(−p/2; ½; −z) = e^{−z} ₁F₁((p+1)/2; ½; z).

    Args:
        order: p ≥ 0.
        mean: μ, in units.
        std: σ ≥ 0, in units; for 0 the moment is ``|μ|^p``.

    Returns:
        The natural logarithm; -inf where the moment is zero.

    Raises:
        ValueError: If the order or the deviation is negative, or a number is not finite.

    Example:
        >>> round(math.exp(log_absolute_moment(2, mean=3.0, std=4.0)), 6)  # μ² + σ²
        25.0
    """
    check_counts(at_least=0, at_most=2 * MAX_ORDER, order=order)
    check_numbers(mean=mean)
    check_numbers(at_least=0, std=std)
    mean = abs(mean)
    if order == 0:
        return 0.0
    if std == 0:
        return order * math.log(mean) if mean > 0 else -math.inf
    if mean == 0 or (order % 2 and mean < _NO_NEGATIVE_TAIL * std):
        log_gamma = gammaln((order + 1) / 2) - 0.5 * math.log(math.pi)
        return float(order * math.log(std) + order / 2 * math.log(2) + log_gamma + _log_kummer(order, mean / std))
    j = np.arange(order // 2 + 1)
    terms = gammaln(order + 1) - gammaln(order - 2 * j + 1) - gammaln(j + 1) - j * math.log(2)
    return float(logsumexp(terms + (order - 2 * j) * math.log(mean) + 2 * j * math.log(std)))


def log_psi(depth: int, mean: float, std: float) -> float:
    r"""Computes log ψ*(k, μ, σ) of Eq. 7 in Daróczy 2022.

    .. math:: \psi^*(k, \mu, \sigma) = \sigma^{2(k-1)} \;
        {}_1F_1\!\Big(-\frac{k-1}2; \frac12; -\frac{\mu^2}{2\sigma^2}\Big)^2

    Its ratio for two sets at the same depth equals the ratio of the squared moments ``(E|T|^{k−1})²``.

    Args:
        depth: k, the number of weight layers (a network with four hidden layers has k = 5).
        mean: μ, the mean number of active nodes, in units.
        std: σ, its standard deviation, in units.

    Returns:
        The natural logarithm; 0 for k = 1, where there are no hidden units.

    Raises:
        ValueError: If the depth is no positive integer, or a number is not finite.

    Example:
        >>> log_psi(1, mean=10.0, std=2.0)
        0.0
    """
    check_counts(at_most=MAX_ORDER, depth=depth)
    check_numbers(mean=mean)
    check_numbers(at_least=0, std=std)
    if depth == 1:
        return 0.0
    order = depth - 1
    constant = order / 2 * math.log(2) + float(gammaln((order + 1) / 2)) - 0.5 * math.log(math.pi)
    return 2 * (log_absolute_moment(order, mean, std) - constant)


def _log_kummer(order: int, ratio: float) -> float:
    """Log ₁F₁(−p/2; ½; −ratio²/2), by the transformed series, whose terms are positive."""
    z = ratio**2 / 2
    if z == 0:
        return 0.0
    n = np.arange(int(2 * z + 4 * math.sqrt(z * (order + 1))) + 200)
    a = (order + 1) / 2
    terms = gammaln(a + n) - gammaln(a) - gammaln(0.5 + n) + gammaln(0.5) - gammaln(n + 1) + n * math.log(z)
    return float(logsumexp(terms) - z)

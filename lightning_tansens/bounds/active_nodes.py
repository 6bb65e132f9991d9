"""The bounds of the papers as functions of numbers, and the moments in them; in logarithms, as powers overflow."""

import math
from typing import Literal, get_args

import numpy as np
from scipy.special import gammaln, logsumexp
from torch import Tensor

from lightning_tansens.checks import MAX_ORDER, check_choice, check_counts, check_numbers, check_share, check_tensor

#: Theorem 2 as it is printed, or as it follows from its own argument.
ActiveNodeForm = Literal["printed", "consistent"]


def log_active_node_bound(
    num_parameters: int,
    input_dim: int,
    depth: int,
    mean: float,
    std: float,
    max_weight: float,
    *,
    form: ActiveNodeForm = "consistent",
    num_outputs: int = 1,
) -> float:
    r"""Computes the logarithm of Theorem 2's bound from numbers, for T(x) ~ N(μ, σ²) active hidden units.

    "consistent", the bound that follows from the theorem's argument (at most (T/(k−1))^{k−1} paths lead through k − 1 hidden
    layers), and "printed", Eq. 2 of Daróczy 2022, which Eq. 7's estimate is built on:

    .. math:: E\|S(x)\|_F^2 \le P D \, w_{\max}^{2(k-1)} \, \frac{E|T|^{2(k-1)}}{(k-1)^{2(k-1)}}, \qquad
        P D \, w_{\max}^{2(k-1)} \, \frac{(E|T|^{k-1})^2}{k^{2k}}

    The printed form is no upper bound: the square of a mean lies below the mean of the squares, and its k^{2k} does not
    follow from its path count. With k = 2, D = 1, one unit that is always active and w = 1 it gives 0.125, while ‖S‖_F² = 2.
    :func:`~lightning_tansens.functional.log_absolute_moment` gives both moments.

    Args:
        num_parameters: P.
        input_dim: D.
        depth: k, the number of weight layers; for k = 1 there are no hidden units, and both forms are P D.
        mean: μ, the mean number of active hidden units, in units.
        std: σ ≥ 0, its standard deviation, in units.
        max_weight: w_max, the largest magnitude of all weights, one number for the network.
        form: "consistent" or "printed".
        num_outputs: C for u = (1, …, 1), which multiplies the consistent form by C² for k > 1; 1 for a single output.

    Returns:
        The natural logarithm; -inf where the bound is zero.

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> round(math.exp(log_active_node_bound(2, 1, depth=2, mean=1.0, std=0.0, max_weight=1.0, form="printed")), 9)
        0.125
        >>> round(math.exp(log_active_node_bound(2, 1, depth=2, mean=1.0, std=0.0, max_weight=1.0)), 9)
        2.0
    """
    check_choice("form", form, get_args(ActiveNodeForm))
    check_counts(at_least=0, num_parameters=num_parameters)
    check_counts(input_dim=input_dim, num_outputs=num_outputs)
    check_counts(at_most=MAX_ORDER, depth=depth)
    check_numbers(at_least=0, max_weight=max_weight, std=std)
    check_numbers(mean=mean)
    log_bound = log_nonnegative(num_parameters) + math.log(input_dim)
    order = depth - 1
    if order == 0:
        return log_bound
    log_bound += 2 * order * log_nonnegative(max_weight)
    if form == "printed":
        return log_bound + 2 * log_absolute_moment(order, mean, std) - 2 * depth * math.log(depth)
    return log_bound + log_absolute_moment(2 * order, mean, std) - 2 * order * math.log(order) + 2 * math.log(num_outputs)


def log_mean_exp(values: Tensor) -> float:
    """Computes log (1/N) Σ_n exp(v_n), the logarithm of a mean of numbers whose logarithms are given.

    Args:
        values: v, shape (N,) with N ≥ 1; -inf stands for zero.

    Returns:
        The natural logarithm.

    Raises:
        TypeError: If the values are no tensor.
        ValueError: If they are no vector, or there are none.

    Example:
        >>> import torch
        >>> round(log_mean_exp(torch.tensor([1000.0, 1000.0])), 9)
        1000.0
    """
    check_tensor("values", values)
    if values.dim() != 1 or not values.is_floating_point():
        raise ValueError(
            f"values: expected floating-point numbers of shape (N,), but got {values.dtype} of shape {tuple(values.shape)}"
        )
    if not len(values):
        raise ValueError("values: expected at least one number, but got none; a mean over no samples is not defined")
    return float(values.double().logsumexp(0)) - math.log(len(values))


def hoeffding_half_width(maximum: float, num_samples: int, confidence: float = 0.95) -> float:
    r"""Computes how far the mean of ‖S(x)‖_F² over T samples may be from its expectation, with confidence 1 − δ.

    .. math:: \varepsilon = S_{\max} \sqrt{\frac{2 \ln(1/\delta)}{T}}, \qquad \text{from} \quad
        \Pr\{|\mathrm{mean} - E| > \varepsilon\} \le \exp\!\Big(-\frac{\varepsilon^2 T}{2 S_{\max}^2}\Big)

    (Hoeffding's inequality as Daróczy 2022 uses it). For numbers between 0 and S_max Hoeffding's own two-sided inequality
    is 2 exp(−2ε²T/S_max²); the one used here is looser for δ ≤ 2^{−1/3}, that is for every confidence above 0.21.

    Args:
        maximum: S_max, the largest value of ‖S(x)‖_F² there is. The largest one of a sample is only an estimate of it,
            from below.
        num_samples: T.
        confidence: 1 − δ, between 0 and 1.

    Returns:
        ε, in units of ‖S‖_F².

    Raises:
        ValueError: If an argument has a value that is not allowed.

    Example:
        >>> round(hoeffding_half_width(10.0, 10_000), 3)
        0.245
    """
    check_numbers(at_least=0, maximum=maximum)
    check_counts(num_samples=num_samples)
    check_share("confidence", confidence)
    return maximum * math.sqrt(-2 * math.log1p(-confidence) / num_samples)


def log_nonnegative(number: float) -> float:
    """Computes the natural logarithm of a number that may be zero."""
    return math.log(number) if number > 0 else -math.inf


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

"""Plans that move class probabilities onto class shares, for many re-weightings of a set at once, blurred.

:mod:`lightning_tansens.estimators.transport` solves one transport, and nearly exactly.
"""

import numpy as np

from lightning_tansens.estimators.outputs import TINY, Array

#: The regularisation of the hard transport, in units of the cost 1 − q.
BLUR = 0.05

#: Iterations end at this change of a scaling's logarithm, after so many of them, or after so many multiplications.
TOLERANCE, ITERATIONS, WORK = 1e-3, 100, 2e8


def hard_kernel(probabilities: Array) -> Array:
    """Returns exp(−(1 − q) / BLUR): its plans tend to the optimal transport of cost 1 − q as the blur goes to 0."""
    return np.asarray(np.exp((probabilities - 1) / BLUR))


def scale_columns(kernel: Array, weights: Array, shares: Array) -> Array:
    r"""Returns the columns' scalings u of the plans that move each re-weighting onto the class shares.

    .. math:: T_{mnc} = w_{mn} \frac{K_{nc} u_{mc}}{\sum_d K_{nd} u_{md}}, \qquad \sum_n T_{mnc} = \pi_c

    by Sinkhorn's iteration (Cuturi, NeurIPS 2013). With K = q, the plan is a posterior whose class shares are moved to π;
    with :func:`hard_kernel` it is the transport of confidence optimal transport (Lu et al., NeurIPS 2023). With a thousand
    classes the work ends the iteration before the tolerance does.

    Args:
        kernel: K, positive, shape (N, C).
        weights: w, rows with the sum 1, shape (M, N).
        shares: π, positive, shape (C,).

    Example:
        >>> half = np.full((2, 2), 0.5)
        >>> u = scale_columns(half, half[:1], np.array([0.8, 0.2]))
        >>> float(plan_means(half, half[:1], u, np.array([[1.0, 0.0], [1.0, 0.0]]))[0].round(6))
        0.8
    """
    scalings, transposed = np.ones((len(weights), kernel.shape[1])), np.ascontiguousarray(kernel.T)
    iterations = int(np.clip(WORK / (len(weights) * kernel.size), 10, ITERATIONS))
    for _ in range(iterations):
        before = scalings
        scalings = shares / np.maximum((weights / np.maximum(before @ transposed, TINY)) @ kernel, TINY)
        if np.abs(np.log(scalings / before)).max() < TOLERANCE:
            break
    return scalings


def plan_means(kernel: Array, weights: Array, scalings: Array, cost: Array) -> Array:
    """Returns the mean of a cost (N, C) under each of the plans of :func:`scale_columns`, Σ_nc T_mnc cost_nc, shape (M,)."""
    rows = weights / np.maximum(scalings @ kernel.T, TINY)
    return np.asarray((scalings * (rows @ (kernel * cost))).sum(1))

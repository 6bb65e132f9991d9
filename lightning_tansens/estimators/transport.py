"""The optimal transport of samples to classes of given shares, in a time that grows with samples × classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from lightning_tansens.estimators.outputs import Array

#: The regularisations ε, one after the other, in units of the cost: the second starts where the first one ended.
BLURS = (0.1, 0.01)

#: A share of a class may be off by this share of the smallest one.
TOLERANCE = 1e-3

#: An ε ends after so many steps, or so many samples × classes × steps (but 20 steps), whatever is left.
STEPS, WORK = 100, 5e7

#: Up to this number of classes Newton's method is tried first, with so many steps, each halved so many times.
FEW, NEWTON_STEPS, HALVINGS = 30, 30, 15


@dataclass(frozen=True)
class Transport:
    """An optimal transport, and what other samples and shares would cost."""

    rows: Array  # u_n, the derivative of the cost by a sample's weight, shape (N,)
    columns: Array  # v_c, the derivative by the share of a class, shape (C,); zero where the share is zero
    plan: Array  # T_nc, which share of a sample goes to a class at the last ε, shape (N, C), rows with the sum 1
    shares: Array  # m_c, shape (C,)

    @property
    def cost(self) -> float:
        """The mean cost of a sample."""
        return float(self.rows.mean() + self.shares @ self.columns)

    def influences(self, costs: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
        r"""Returns how the mean of other costs (N, C) under the plan depends on the samples and on the labels (M,).

        .. math:: z_n = \sum_c T_{nc} \, (\mathrm{cost}_{nc} - a_c + m \cdot a), \qquad z_k = a_{y_k} - m \cdot a, \qquad
                  a = \Big(\mathrm{diag}(m) - \tfrac1N T^T T\Big)^{+} \tfrac1N \sum_n T_{nc} (\mathrm{cost}_{nc} - \bar c_n)

        by the implicit function theorem, at the last ε; :math:`\bar c_n` is the sample's mean cost. The mean of z_n is the
        mean cost, and the errors of both means are the error of it.
        """
        means = (self.plan * costs).sum(1)
        pull = (self.plan * (costs - means[:, None])).mean(0)
        moved = np.diag(self.plan.mean(0)) - self.plan.T @ self.plan / len(costs)
        prices = np.linalg.lstsq(moved, pull, rcond=1e-6)[0]
        prices -= self.plan.mean(0) @ prices
        return means - self.plan @ prices, prices[labels]


def transport(costs: Array, shares: Array) -> Transport:
    r"""Moves samples to classes of shares m_c (C,), with the sum 1, at the least of costs (N, C) between 0 and 1.

    .. math:: \min_{T \ge 0} \frac1N \sum_{n,c} T_{nc} \, \mathrm{cost}_{nc}, \qquad \sum_c T_{nc} = 1, \quad
              \frac1N \sum_n T_{nc} = m_c

    by its semi-dual (Cuturi and Peyré 2018, "Semidual regularized optimal transport", SIAM Review 60): C numbers,

    .. math:: \max_v \; \sum_c m_c v_c - \frac{\epsilon}{N} \sum_n \log \sum_c e^{(v_c - \mathrm{cost}_{nc}) / \epsilon},

    with an ε of 0.1 and then 0.01. The cost is what the same v say at ε = 0, which is never above that of the linear program
    and, for 1,000 simulated samples, no more than 0.0005 below it with 2 to 10 classes, and 0.0013 with 100; for a few
    samples it may be 0.005.

    Example:
        >>> moved = transport(np.array([[0.0, 1.0], [0.2, 0.8]]), np.array([0.5, 0.5]))
        >>> moved.plan.round(3)
        array([[1., 0.],
               [0., 1.]])
        >>> round(moved.cost, 3)
        0.4
        >>> bool(abs(moved.columns[1] - moved.columns[0] - 0.8) < 0.1)  # between 0.6 and 1, the next costs
        True
    """
    used = np.flatnonzero(shares > 0)
    taken, wanted = costs[:, used], shares[used]
    columns, steps = np.zeros(len(used)), int(np.clip(WORK / taken.size, 20, STEPS))
    few, tolerance = len(used) <= FEW, TOLERANCE * wanted.min()
    for blur in BLURS:
        if few:
            columns, few = _newton(columns, taken, wanted, blur, tolerance)
        if not few:
            how: Any = {"method": "L-BFGS-B", "options": {"gtol": tolerance, "ftol": 0, "maxiter": steps}}
            columns = minimize(lambda *at: _semi_dual(*at)[:2], columns, (taken, wanted, blur), jac=True, **how).x
    plan, potentials = np.zeros(costs.shape), np.zeros(costs.shape[1])
    plan[:, used], potentials[used] = softmax((columns - taken) / BLURS[-1], axis=1), columns
    return Transport((taken - columns).min(1), potentials, plan, shares)


def _newton(columns: Array, costs: Array, shares: Array, blur: float, tolerance: float) -> tuple[Array, bool]:
    """Returns the columns after Newton's method, and whether it has converged; it takes a third of the time of L-BFGS."""
    value, slope, plan = _semi_dual(columns, costs, shares, blur)
    for _ in range(NEWTON_STEPS):
        if np.abs(slope).max() <= tolerance:
            return columns, True
        # the columns matter up to a constant, in whose direction the curvature is one
        curvature = (np.diag(plan.mean(0)) - plan.T @ plan / len(plan)) / blur + 1 / len(shares)
        step = np.linalg.lstsq(curvature, -slope, rcond=1e-12)[0]
        for _ in range(HALVINGS):
            moved = _semi_dual(columns + step, costs, shares, blur)
            if moved[0] <= value + 1e-4 * float(step @ slope):
                break
            step /= 2
        else:
            return columns, False
        columns, (value, slope, plan) = columns + step, moved
    return columns, False


def _semi_dual(columns: Array, costs: Array, shares: Array, blur: float) -> tuple[float, Array, Array]:
    """Returns the negative of what is maximised, its gradient, and the plan."""
    scores = (columns - costs) / blur
    tops = scores.max(1, keepdims=True)
    plan = np.exp(scores - tops)
    sums = plan.sum(1, keepdims=True)
    plan /= sums
    value = blur * float((tops + np.log(sums)).mean()) - float(shares @ columns)
    return value, plan.mean(0) - shares, plan

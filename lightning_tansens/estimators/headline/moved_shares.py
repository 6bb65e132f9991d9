"""Class shares that explain how a set differs from the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from lightning_tansens.estimators.outputs import Array

#: How strongly the covariance within classes is drawn to the identity.
SHRINK = 0.02

#: The shares move by half where what they leave is so large, per degree of freedom; noise alone leaves 1.
HALF = 1.5

#: What the moved shares have to explain for each of them, in units of what noise explains, before any is moved.
SURE = 2.0

#: A row that makes the shares sum to one.
SURELY = 1e3


@dataclass(frozen=True, eq=False)
class MovedShares:
    r"""Re-weights the reference's classes so that it looks like a set, as far as class shares explain the set.

    .. math:: \hat s = \operatorname*{arg\,min}_{s \ge 0, \, \sum_c s_c = 1} R(s), \qquad
              R(s) = \frac{(\bar x - \sum_c s_c \bar x_c)^T \Sigma^{-1} (\bar x - \sum_c s_c \bar x_c)}
                          {1 / n + \sum_c s_c^2 / N_c}

    with the means x̄ of a set of n samples and x̄_c of the reference's classes of N_c samples, of numbers x with the
    covariance Σ within classes. With the reference's own shares π and F numbers, the weights' shares are

    .. math:: \pi + \Big[1 - \frac{2 (C - 1)}{R(\pi) - R(\hat s)}\Big]_+ \frac{1}{1 + (\rho / 1.5)^4} (\hat s - \pi), \qquad
              \rho = \frac{R(\hat s)}{F - C + 1}

    so that they stay where noise may explain the set (as James and Stein 1961 shrink), and where no shares explain it.
    Classes with one sample or none keep their shares. (Shares that match moments: Lipton et al., ICML 2018.)
    """

    labels: NDArray[np.int64]  #: Of the reference, shape (N,).
    shares: Array  #: π, shape (C,).
    centres: Array  #: x̄_c, of scaled numbers, shape (F, C).
    #: L with :math:`L^T L = \Sigma^{-1}`, shape (F, F). mean, scale: Of the reference's numbers, shapes (F,).
    whitening: Array
    mean: Array
    scale: Array

    @classmethod
    def fitted(cls, numbers: Array, labels: NDArray[np.int64], classes: int) -> MovedShares:
        """Fits to the reference's numbers, shape (N, F), and labels, shape (N,)."""
        mean, scale = numbers.mean(0), numbers.std(0) + 1e-6
        scaled, counts = (numbers - mean) / scale, np.bincount(labels, minlength=classes)
        members = np.eye(classes)[labels]
        centres = scaled.T @ members / np.maximum(counts, 1)
        within = scaled - centres.T[labels]
        covariance = within.T @ within / len(labels) + SHRINK * np.eye(len(mean))
        whitening = np.linalg.cholesky(np.linalg.inv(covariance)).T
        return cls(labels, counts / len(labels), centres, whitening, mean, scale)

    def weights(self, means: Array, counts: Array) -> Array:
        """Returns weights of the reference's samples, rows of sum 1, shape (M, N).

        Args:
            means: x̄ of each set, shape (M, F).
            counts: n, shape (M,).
        """
        moved = np.stack([self._moved(*one) for one in zip((means - self.mean) / self.scale, counts, strict=True)])
        weights = (moved / np.maximum(self.shares, 1e-9))[:, self.labels]
        return np.asarray(weights / weights.sum(1, keepdims=True))

    def _moved(self, mean: Array, count: float) -> Array:
        known = np.flatnonzero(self.shares * len(self.labels) > 1.5)
        if not len(known):  # one sample tells no class's mean
            return self.shares
        own, seen = self.shares[known], self.whitening @ mean
        centres = self.whitening @ self.centres[:, known]
        found, _ = nnls(np.vstack([centres, np.full(len(known), SURELY)]), np.append(seen, SURELY), maxiter=1000)
        if found.sum() < 0.5:  # the set lies so far from every class that none of them helps
            return self.shares
        found /= found.sum()

        def left(shares: Array) -> float:
            noise = 1 / count + (shares**2 / own).sum() / len(self.labels)
            return float(np.square(seen - centres @ shares).sum() / noise)

        unexplained, explained = left(found), left(own / own.sum()) - left(found)
        rest = unexplained / max(len(mean) - len(self.shares) + 1, 1) / HALF
        share = max(0.0, 1 - SURE * (len(self.shares) - 1) / max(explained, 1e-9)) / (1 + rest**4)
        moved: Array = self.shares.copy()
        moved[known] += share * (found * own.sum() - own)
        return moved

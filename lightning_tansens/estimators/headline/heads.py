"""The two heads: weights of log ratios (unchanged class shares) and a regression estimator (another population)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.outputs import Array

#: How strongly the first head's weights are drawn towards equal ones, for the error and the loss, and for a loss alone.
SHRINK, SHRINK_ALONE = (0.03, 0.3), 0.1

#: How strongly the first head's stretch is drawn towards one, for the error and for the loss.
STRETCH = (0.2, 1.0)

#: How strongly the regression's coefficients are drawn towards zero.
RIDGE = 0.1


def simplex_weights(ratios: Array, truth: Array, shrink: float, counted: Array | float = 1.0) -> Array:
    r"""Fits the weights of the first head, exactly, by trying every set of positive ones.

    .. math:: \min_w \frac{\sum_m v_m \big(\sum_k w_k x_{mk} - y_m\big)^2}{\sum_m v_m} + \lambda \sum_k (w_k - 1/K)^2,
              \qquad w_k \ge 0, \quad \sum_k w_k = 1

    Args:
        ratios: The candidates x, shape (M, K), with few K.
        truth: What they should give, y, shape (M,).
        shrink: λ.
        counted: v, how much each of the M counts, shape (M,).

    Example:
        >>> simplex_weights(np.array([[1.0, 5.0], [2.0, 5.0]]), np.array([1.0, 2.0]), shrink=1e-9).round(6)
        array([1., 0.])
    """
    candidates = ratios.shape[1]
    shares = np.broadcast_to(counted, len(truth))
    shares = shares / shares.sum()
    curvature = (ratios.T * shares) @ ratios + shrink * np.eye(candidates)
    slope = ratios.T @ (shares * truth)  # λ adds the same to all of them
    best, found = np.inf, np.full(candidates, 1 / candidates)
    for size in range(1, candidates + 1):
        chosen = np.array(list(combinations(range(candidates), size)))
        systems = np.ones((len(chosen), size + 1, size + 1))
        systems[:, :size, :size] = curvature[chosen[:, :, None], chosen[:, None]]
        systems[:, size, size] = 0
        sides = np.append(slope[chosen], np.ones((len(chosen), 1)), 1)
        tried = np.zeros((len(chosen), candidates))
        np.put_along_axis(tried, chosen, np.linalg.solve(systems, sides[..., None])[:, :size, 0], 1)
        values = ((tried @ curvature) * tried).sum(1) - 2 * tried @ slope
        values[tried.min(1) < -1e-12] = np.inf
        if values.min() < best:
            best, found = float(values.min()), tried[values.argmin()]
    return found


@dataclass(frozen=True, eq=False)
class WeightedCandidates:
    r"""The first head: weighted means of the candidates' ratios of the error, geometric ones of those of the loss.

    .. math:: a_{err} = b \log \sum_k w_k e^{x_k}, \qquad a_{loss} = b \sum_k w_k x_k

    for log ratios x, with weights that :func:`simplex_weights` fits on the same scales, and a stretch :math:`b \ge 1` for
    each of the two: large changes are under-estimated otherwise.

    Attributes:
        error, loss: w, shapes (K,).
        stretch: b, shape (2,).
    """

    error: Array
    loss: Array
    stretch: Array = field(default_factory=lambda: np.ones(2))

    @classmethod
    def fitted(cls, candidates: tuple[Array, ...], truth: Array, mild: NDArray[np.bool_]) -> WeightedCandidates:
        r"""Fits to the true log ratios of labelled copies, shape (M, 2); equal weights without any.

        .. math:: b = \max\Big(1, \frac{\overline{a y} + \lambda}{\overline{a^2} + \lambda}\Big)

        over the copies, with a of the weights alone, the truth y and λ of :data:`STRETCH`. Squares of the ratio of the
        errors count by :math:`e^{-y}`, as the variance of a number of errors grows with it. The loss is fitted to mild
        copies alone: strong ones favour a transport that is far off where other class shares come with another look.

        Args:
            candidates: Log ratios x of error and loss, shapes (M, K).
            truth: y.
            mild: Which copies are mild, shape (M,).
        """
        error, loss = candidates
        if not len(truth):
            return cls(*(np.full(of.shape[1], 1 / of.shape[1]) for of in candidates))
        found = cls(
            simplex_weights(np.exp(error), np.exp(truth[:, 0]), SHRINK[0], np.exp(-truth[:, 0])),
            simplex_weights(loss[mild], truth[mild, 1], SHRINK[1]),
        )
        own, drawn = found.predict(candidates), np.array(STRETCH)
        counted = np.stack([np.ones(len(mild)), mild], 1)
        counted = counted / counted.sum(0)
        slopes = ((counted * own * truth).sum(0) + drawn) / ((counted * own**2).sum(0) + drawn)
        return replace(found, stretch=np.maximum(slopes, 1.0))

    def predict(self, candidates: tuple[Array, ...]) -> Array:
        """Returns a, shape (M, 2)."""
        error, loss = candidates
        return np.asarray(self.stretch * np.stack([np.log(np.exp(error) @ self.error), loss @ self.loss], 1))

    def spread(self, candidates: tuple[Array, ...], centre: Array) -> Array:
        """Returns the weighted mean square of the candidates about a centre of shape (M, 2), shape (M, 2)."""
        pairs = zip(candidates, (self.error, self.loss), self.stretch, centre.T, strict=True)
        return np.stack([np.square(by * of - middle[:, None]) @ weights for of, weights, by, middle in pairs], 1)


@dataclass(frozen=True, eq=False)
class WeightedLosses:
    r"""The first head where there is the loss alone: :math:`a = \sum_k w_k x_k`, see :class:`WeightedCandidates`."""

    weights: Array

    @classmethod
    def fitted(cls, candidates: tuple[Array, ...], truth: Array, mild: NDArray[np.bool_]) -> WeightedLosses:
        (losses,) = candidates
        equal = np.full(losses.shape[1], 1 / losses.shape[1])
        return cls(simplex_weights(losses[mild], truth[mild, 0], SHRINK_ALONE) if len(truth) else equal)

    def predict(self, candidates: tuple[Array, ...]) -> Array:
        return np.asarray(candidates[0] @ self.weights)[:, None]

    def spread(self, candidates: tuple[Array, ...], centre: Array) -> Array:
        return np.asarray(np.square(candidates[0] - centre) @ self.weights)[:, None]


@dataclass(frozen=True, eq=False)
class RegressionEstimator:
    r"""The generalised regression estimator (GREG; Deville and Särndal 1992): the reference re-weighted to the target.

    .. math:: \hat t(X) = \sum_n w_n t_n + \Big(\bar z(X) - \sum_n w_n z_n\Big)^T \beta, \qquad
              \beta = \Big(\frac1N \sum_n z_n z_n^T + \lambda I\Big)^{-1} \frac1N \sum_n z_n (t_n - \bar t_{ref})

    with standardised features z, the error and the loss as t, and weights w of the reference's samples: equal ones, or
    those of :class:`MovedShares`. It is right where the target is a mixture of the reference's samples in other shares, as
    far as the features tell them apart.

    Attributes:
        mean, scale: Of the reference's features, shapes (F,).
        inverse: The inverse matrix, shape (F, F).
        slopes: β for error and loss, shape (F, 2).
        left: What the regression leaves of each sample, t − zᵀβ, shape (N, 2).
    """

    mean: Array
    scale: Array
    inverse: Array
    slopes: Array
    left: Array

    @classmethod
    def fitted(cls, features: Array, truth: Array) -> RegressionEstimator:
        """Fits features of shape (N, F) to error and loss of shape (N, 2), with λ = :data:`RIDGE`."""
        mean, scale = features.mean(0), features.std(0) + 1e-6
        z = (features - mean) / scale
        inverse = np.linalg.inv(z.T @ z / len(z) + RIDGE * np.eye(z.shape[1]))
        slopes = inverse @ z.T @ (truth - truth.mean(0)) / len(z)
        return cls(mean, scale, inverse, slopes, truth - z @ slopes)

    @property
    def residual(self) -> Array:
        """The variances of what the regression leaves, shape (2,)."""
        return np.asarray(self.left.var(0))

    def predict(self, means: Array, weights: Array | None = None) -> Array:
        """Returns error and loss of M sets, shape (M, 2).

        Args:
            means: Of features, shape (M, F).
            weights: w, with rows of sum 1, shape (M, N); None for equal ones.
        """
        left = self.left.mean(0) if weights is None else weights @ self.left
        return np.asarray(left + (means - self.mean) / self.scale @ self.slopes)

    def distance(self, means: Array) -> Array:
        """Returns the squared Mahalanobis distance of means of features from the reference's, shape (M,)."""
        z = (means - self.mean) / self.scale
        return np.asarray(np.einsum("mf,fg,mg->m", z, self.inverse, z))

"""A small ridge regression through the origin, whose strength is chosen by leaving one point out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The strengths that are tried, relative to the mean square of the scaled features.
STRENGTHS = tuple(10.0**power for power in range(-4, 3))


@dataclass(frozen=True)
class Prediction:
    """What a fit says of a new point."""

    value: float  #: The prediction.
    stderr: float  #: Its standard error, from the errors of the points left out.
    inside: bool  #: Whether each feature lies within those of the fitted points and zero.


class Ridge:
    r"""A linear fit without intercept, of K points with F features.

    .. math:: \hat\beta = (X^T X + \lambda K I)^{-1} X^T y, \qquad
              e_k = \frac{y_k - x_k \hat\beta}{1 - x_k (X^T X + \lambda K I)^{-1} x_k^T}

    with each feature divided by its root mean square. e_k is the error at point k of the fit without it, so its mean
    square over the points chooses λ among :data:`STRENGTHS` and gives the standard error of a prediction at x,
    :math:`\sqrt{\overline{e^2} \, (1 + x (X^T X + \lambda K I)^{-1} x^T)}`. (Hoerl and Kennard 1970; Allen 1974.)

    Without an intercept a point without any change is predicted to stay as it is.

    Args:
        features: X, shape (K, F).
        values: y, shape (K,).

    Raises:
        ValueError: If the shapes do not fit, there are fewer than three points, or a number is not finite.

    Example:
        >>> fit = Ridge([[1.0], [2.0], [3.0], [4.0]], [2.0, 4.0, 6.0, 8.0])
        >>> prediction = fit.predict([5.0])
        >>> round(prediction.value, 2), prediction.inside
        (10.0, False)
    """

    def __init__(self, features: ArrayLike, values: ArrayLike) -> None:
        x, y = np.asarray(features, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if x.ndim != 2 or y.shape != x.shape[:1] or len(y) < 3:
            raise ValueError(
                f"features: expected shape (K, F) with K >= 3 points and as many values, but got {x.shape} and {y.shape}"
            )
        if not np.isfinite(x).all() or not np.isfinite(y).all():
            raise ValueError("features: expected finite features and values, but some are not; leave those points out")
        size = np.sqrt(np.square(x).mean(0))
        self._scale = np.where(size > 0, size, 1.0)
        self._low, self._high = np.minimum(x.min(0), 0), np.maximum(x.max(0), 0)
        fits = [self._fit(x / self._scale, y, strength) for strength in STRENGTHS]
        self._weights, self._inverse, errors = min(fits, key=lambda fit: float(np.square(fit[2]).mean()))
        self._variance = float(np.square(errors).mean())

    @staticmethod
    def _fit(x: NDArray[np.float64], y: NDArray[np.float64], strength: float) -> tuple[NDArray[np.float64], ...]:
        inverse = np.linalg.inv(x.T @ x + strength * len(y) * np.eye(x.shape[1]))
        weights = inverse @ x.T @ y
        leverage = np.einsum("kf,fg,kg->k", x, inverse, x)
        return weights, inverse, (y - x @ weights) / (1 - leverage)

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """β, for features that are not scaled, shape (F,)."""
        return np.asarray(self._weights / self._scale)

    def predict(self, features: ArrayLike) -> Prediction:
        """Predicts the value at a point.

        Args:
            features: x, shape (F,).
        """
        point = np.asarray(features, dtype=np.float64)
        scaled = point / self._scale
        spread = self._variance * (1 + float(scaled @ self._inverse @ scaled))
        inside = bool(((self._low <= point) & (point <= self._high)).all())
        return Prediction(float(scaled @ self._weights), float(np.sqrt(spread)), inside)

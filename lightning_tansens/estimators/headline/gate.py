"""The gate: which of the two heads a set calls for."""

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.outputs import Array

#: λ, the strength of the ridge.
RIDGE = 0.3

#: The total weights of the re-weightings of the reference, and of its corrupted copies.
MOVED, CORRUPTED = 200.0, 29.0

#: The coefficients without corrupted copies: medians over the development networks.
DEFAULT = np.array([1.4, 1.0, 1.3, 0.8, -2.6, 0.5, 3.0])


def fit_gate(signatures: Array, moved: NDArray[np.bool_]) -> Array:
    r"""Fits a logistic regression that tells re-weightings of the reference from corrupted copies of it.

    .. math:: \min_\theta -\sum_m v_m \log \sigma(\pm s_m^T \theta) + \tfrac{\lambda}{2} \|\theta\|^2

    by Newton's method, with weights v that give each group its total; σ(s·θ) is the probability of another population.

    Args:
        signatures: s, whose first column is ones, shape (M, G).
        moved: Which of them are re-weightings (plus), and which corrupted copies (minus), shape (M,).
    """
    weights = np.where(moved, MOVED / max(moved.sum(), 1), CORRUPTED / max((~moved).sum(), 1))
    coefficients = np.zeros(signatures.shape[1])
    for _ in range(12):
        chance = logistic(signatures @ coefficients)
        spread = (weights * chance * (1 - chance) + 1e-6)[:, None]
        curvature = (signatures * spread).T @ signatures + RIDGE * np.eye(len(coefficients))
        step = np.linalg.solve(curvature, signatures.T @ (weights * (moved - chance)) - RIDGE * coefficients)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-4:
            break
    return coefficients


def logistic(values: Array) -> Array:
    """Returns 1 / (1 + exp(−x)), for x cut off at ±20."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -20, 20))))


def sharpened(chance: Array) -> Array:
    """Returns the probability whose odds are the square of these: where the gate leans to one head, that one decides."""
    return np.asarray(chance**2 / (chance**2 + (1 - chance) ** 2))

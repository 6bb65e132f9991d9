"""The headline's fit where outputs are no class scores: the same two heads and gate, for the loss alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.headline.dense_samples import DenseSamples
from lightning_tansens.estimators.headline.fit import FEWEST_COPIES, NOISE, Answer, ClassShares
from lightning_tansens.estimators.headline.gate import fit_gate, logistic, sharpened
from lightning_tansens.estimators.headline.heads import RegressionEstimator, simplex_weights
from lightning_tansens.estimators.headline.interval import NEAREST, Spread, nearby
from lightning_tansens.estimators.headline.reweighting import reweightings
from lightning_tansens.estimators.outputs import Array

#: How strongly the weights of the first head are drawn towards equal ones.
SHRINK = 0.1

#: How much of each part of the variance counts, in the order of :class:`Spread`; fitted on one task of a table.
SHARES = (1.4, 0.5, 1.0, 1.0)

#: Log ratios of losses are cut off at ± this, and the gate's numbers at the other.
LOSS_RANGE, SIGNATURE_RANGE = 3.0, 5.0

#: The gate's coefficients without perturbed copies.
DEFAULT = np.array([0.8, 1.8, 1.7, -0.7, -1.5, -0.2])

#: The number of quantiles of an output, for its histogram and for shares that are re-weighted.
BINS, PARTS = 10, 5


class DenseFit:
    r"""Estimates the loss of any number of sets from one labelled reference.

    .. math:: \log \hat r = a + \frac{g^2}{g^2 + (1 - g)^2} \, (b - a), \qquad g = \sigma(\theta^T s)

    with b of :class:`RegressionEstimator` and the log ratio a, a weighted mean of three: of the pseudo-losses, of the
    squared distances from the mean of earlier outputs, and 0. Weights and gate are fitted to perturbed copies and
    re-weightings of the reference, as for :class:`~lightning_tansens.estimators.headline.fit.Fit`.

    Args:
        reference: Its samples.
        losses: Their losses, shape (N,).
        copies: The same samples or the first of them, perturbed, and their losses.
        seed: Of the re-weightings.

    """

    def __init__(
        self, reference: DenseSamples, losses: Array, copies: Sequence[tuple[DenseSamples, Array]] = (), seed: int = 0
    ) -> None:
        count = len(reference)
        self.level = max(float(losses.mean()), 1e-12)
        self._edges = np.quantile(reference.columns[:, 0], np.linspace(0, 1, BINS + 1)[1:-1])
        self._bins = self._histogram(reference, np.full((1, count), 1 / count))[0]
        self._mean = reference.earlier.mean(1), reference.columns.std(0) + 1e-9
        self.regression = RegressionEstimator.fitted(reference.features, losses[:, None])
        self._count = count
        column = reference.columns[:, 0]
        parts = np.searchsorted(np.quantile(column, np.linspace(0, 1, PARTS + 1)[1:-1]), column)
        moved = reweightings(parts, PARTS, reference.places, seed)
        self._own = {name: value.mean(0) for name, value in self._numbers(reference, moved.of("bootstrap")).items()}
        sets = [(reference, losses, moved.weights, moved.kinds, -1)]
        for number, (copy, of_copy) in enumerate(copies):
            some = moved.some(number)[:, : len(copy)]
            weights = np.concatenate([np.full((1, len(copy)), 1 / len(copy)), some / some.sum(1, keepdims=True)])
            sets.append((copy, of_copy, weights, np.array(["plain", *dict.fromkeys(moved.kinds)]), number))
        points = [self._points(samples, weights) for samples, _, weights, _, _ in sets]
        self._candidates, self._free, self._signatures = map(np.concatenate, zip(*points, strict=True))
        truth = np.concatenate([weights @ of_set for _, of_set, weights, _, _ in sets])
        self._truth = np.clip(np.log(np.maximum(truth, 1e-12) / self.level), -LOSS_RANGE, LOSS_RANGE)
        self._kinds = np.concatenate([kinds for _, _, _, kinds, _ in sets])
        self._bases = np.concatenate([np.full(len(kinds), base) for _, _, _, kinds, base in sets])
        self._model = self._fit(np.ones(len(self._kinds), bool))
        self._left_out = self._without_own_kind()

    def estimate(self, samples: DenseSamples, class_shares: ClassShares = "auto") -> Answer:
        """Returns the answer for the loss of a set, whose targets are not looked at."""
        points = self._points(samples, np.full((1, len(samples)), 1 / len(samples)))
        ratio, gate, within, between = (part[0] for part in self._predict(self._model, *points, class_shares))
        change, signature = np.array([ratio]), points[2][0]
        errors = self._left_out - self._truth
        copies = nearby(signature, change, self._signatures, self._left_out[:, None], errors[:, None])[0]
        sampling = float(self.regression.residual[0]) / self.level**2 * (1 / self._count + 1 / len(samples))
        down, up = Spread(sampling, (copies[0], copies[1]), within, between, SHARES).reach
        distance = float(np.sqrt(np.sort(np.square(signature - self._signatures).sum(1))[NEAREST - 1]))
        return Answer(*map(float, (np.exp(ratio), np.exp(ratio - down), np.exp(ratio + up), gate, distance)))

    def _fit(self, used: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Fits the weights on perturbed copies as they are, and the gate on them against the reference's re-weightings."""
        corrupted = used & (self._bases >= 0)
        plain, moved = corrupted & (self._kinds == "plain"), used & (self._bases < 0)
        if plain.sum() < FEWEST_COPIES:
            return np.full(3, 1 / 3), DEFAULT
        told = moved | (corrupted & np.isin(self._kinds, ("plain", "bootstrap")))
        weights = simplex_weights(self._candidates[plain], self._truth[plain], SHRINK)
        return weights, fit_gate(self._signatures[told], moved[told])

    def _predict(
        self,
        model: tuple[Array, Array],
        candidates: Array,
        free: Array,
        signatures: Array,
        class_shares: ClassShares = "auto",
    ) -> tuple[Array, Array, Array, Array]:
        """Returns log ratios, the gate, and the variances within and between the heads, all of shape (M,)."""
        weights, coefficients = model
        own = (self._kinds == "bootstrap") & (self._bases < 0)
        noise = NOISE * float((self._candidates[own] @ weights - self._free[own]).std()) + 1e-9
        difference = candidates @ weights - free
        same = free + difference**3 / (difference**2 + noise**2)
        stated = np.full(len(same), float(class_shares == "free"))
        gate = logistic(signatures @ coefficients) if class_shares == "auto" else stated
        within = (1 - gate) * (np.square(candidates - same[:, None]) @ weights)
        between = gate * (1 - gate) * np.square(same - free)
        return same + sharpened(gate) * (free - same), gate, within, between

    def _without_own_kind(self) -> Array:
        """Returns the log ratios by fits without that kind, shape (M,)."""
        found = np.zeros_like(self._truth)
        groups = [self._bases == number for number in range(self._bases.max() + 1)]
        groups += [(self._bases < 0) & (self._kinds == kind) for kind in dict.fromkeys(self._kinds) if kind != "plain"]
        for group in groups:
            model = self._model if (self._kinds[group] == "bootstrap").all() else self._fit(~group)
            parts = (self._candidates[group], self._free[group], self._signatures[group])
            found[group] = self._predict(model, *parts)[0]
        return np.asarray(found)

    def _points(self, samples: DenseSamples, weights: Array) -> tuple[Array, Array, Array]:
        """Returns the candidates' log ratios (M, 3), the second head's (M,) and the gate's numbers (M, 6)."""
        found, own = self._numbers(samples, weights), self._own

        def ratio(name: str) -> Array:
            least = 1e-6 * own[name] + 1e-30
            return np.asarray(np.log((found[name] + least) / (own[name] + least)))

        candidates = np.stack([ratio("pseudo_loss"), ratio("bias"), np.zeros(len(weights))], 1)
        free = np.log(np.maximum(self.regression.predict(found["features"])[:, 0], 0.05 * self.level) / self.level)
        root = np.sqrt(found["bias"]) / self._mean[1].mean()
        signatures = [
            np.ones(len(weights)),
            np.log((found["shift"] + 1e-3) / (root + 1e-3)),
            np.log((found["shift"] + 1e-3) / (found["scatter"] + 1e-3)),
            ratio("pseudo_loss"),
            0.5 * np.log(np.maximum(found["divergence"], 1e-3)) + 1,
            0.5 * np.log(self.regression.distance(found["features"]) + 0.01),
        ]
        return (
            np.clip(candidates, -LOSS_RANGE, LOSS_RANGE),
            free,
            np.clip(np.stack(signatures, 1), -SIGNATURE_RANGE, SIGNATURE_RANGE),
        )

    def _numbers(self, samples: DenseSamples, weights: Array) -> dict[str, Array]:
        """Means over the samples; shift, scatter: how far the outputs' mean moved, on the snapshots' mean and about it."""
        mean, scale = self._mean
        common = min(len(mean), len(samples.earlier))
        moved = np.einsum("mn,snk->msk", weights, samples.earlier[-common:]) - mean[-common:]
        moved = moved / scale
        histogram = self._histogram(samples, weights)
        return {
            "pseudo_loss": weights @ samples.pseudo_loss,
            "bias": weights @ samples.bias,
            "features": weights @ samples.features,
            "shift": np.abs(moved.mean(1)).mean(1),
            "scatter": moved.std(1).mean(1),
            "divergence": (histogram * np.log((histogram + 1e-4) / (self._bins + 1e-4))).sum(1),
        }

    def _histogram(self, samples: DenseSamples, weights: Array) -> Array:
        places = np.searchsorted(self._edges, samples.columns[:, 0])
        return np.stack([np.bincount(places, row, BINS) for row in weights])

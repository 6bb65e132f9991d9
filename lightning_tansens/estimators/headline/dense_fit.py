"""The headline's fit where outputs are not class scores: the same two heads and gate, for the loss alone."""

from collections.abc import Sequence

import numpy as np

from lightning_tansens.estimators.headline.calibration import LOSS_RANGE, SIGNATURE_RANGE, Points
from lightning_tansens.estimators.headline.dense_samples import DenseSamples
from lightning_tansens.estimators.headline.gated_heads import Answer, ClassShares, GatedHeads
from lightning_tansens.estimators.headline.heads import RegressionEstimator, WeightedLosses
from lightning_tansens.estimators.headline.reweighting import Reweightings, reweightings
from lightning_tansens.estimators.outputs import TINY, Array, Outputs

#: The number of quantiles of an output, for its histogram and for shares that are re-weighted.
BINS, PARTS = 10, 5


class DenseFit(GatedHeads):
    """Estimates the loss of any number of sets from one labelled reference.

    The first head is a weighted mean of three: of the pseudo-losses, of the squared distances from the mean of earlier
    outputs, and 0.

    Args:
        reference: Its samples.
        losses: Their losses, shape (N,).
        copies: The same samples or the first of them, perturbed, and their losses.
        seed: Seed of the re-weightings.
        strong: How many of the copies, the last ones, heads and gate are not fitted to, see :class:`Strong`.
        outputs: The reference's and the copies', with their inputs, see :class:`GatedHeads`.
    """

    default_gate = np.array([0.8, 1.8, 1.7, -0.7, -1.5, -0.2])
    #: Fitted on one task of a table.
    shares = (1.4, 0.5, 1.0, 1.0)
    _head = staticmethod(WeightedLosses.fitted)

    def __init__(
        self,
        reference: DenseSamples,
        losses: Array,
        copies: Sequence[tuple[DenseSamples, Array]] = (),
        seed: int = 0,
        strong: int = 0,
        outputs: Sequence[Outputs] = (),
    ) -> None:
        self._count = len(reference)
        self.level = max(float(losses.mean()), TINY)
        column = reference.columns[:, 0]
        self._edges = np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1])
        self._bins = self._histogram(reference, Reweightings.none(self._count))[0]
        self._mean = reference.earlier.mean(1), reference.columns.std(0) + 1e-9
        self.regression = RegressionEstimator.fitted(reference.features, losses[:, None])
        parts = np.searchsorted(np.quantile(column, np.linspace(0, 1, PARTS + 1)[1:-1]), column)
        moved = reweightings(parts, PARTS, reference.places, seed)
        self._own = {name: value.mean(0) for name, value in self._numbers(reference, moved.of("bootstrap")).items()}
        perturbed = [copy for copy, _ in copies]
        mild = len(perturbed) - strong
        sets, weights = [(reference, losses), *copies], moved.with_copies(perturbed[:mild], perturbed[mild:])
        points = [self._points_of(samples, of.weights) for (samples, _), of in zip(sets, weights, strict=True)]
        means = np.concatenate([of.weights @ of_set for (_, of_set), of in zip(sets, weights, strict=True)])
        truth = np.clip(np.log(np.maximum(means, TINY) / self.level), -LOSS_RANGE, LOSS_RANGE)
        super().__init__(points, truth[:, None], weights, np.array([self.level]), outputs=outputs)

    def estimate(self, samples: DenseSamples, class_shares: ClassShares = "auto", outputs: Outputs | None = None) -> Answer:
        """Returns the answer for the loss of a set, without looking at its targets."""
        points = self._points_of(samples, Reweightings.none(len(samples)))
        return self._answers(points, len(samples), class_shares, outputs)[0]

    def _sampling(self, values: Array, count: int) -> Array:
        return np.asarray(self.regression.residual / self.level**2 * (1 / self._count + 1 / count))

    def _points_of(self, samples: DenseSamples, weights: Array) -> Points:
        """Returns points with 3 candidates and 6 numbers of the gate."""
        found, own = self._numbers(samples, weights), self._own

        def ratio(name: str) -> Array:
            least = 1e-6 * own[name] + 1e-30
            return np.asarray(np.log((found[name] + least) / (own[name] + least)))

        candidates = np.stack([ratio("pseudo_loss"), ratio("bias"), np.zeros(len(weights))], 1)
        free = np.log(np.maximum(self.regression.predict(found["features"]), 0.05 * self.level) / self.level)
        root = np.sqrt(found["bias"]) / self._mean[1].mean()
        signatures = [
            np.ones(len(weights)),
            np.log((found["shift"] + 1e-3) / (root + 1e-3)),
            np.log((found["shift"] + 1e-3) / (found["scatter"] + 1e-3)),
            ratio("pseudo_loss"),
            0.5 * np.log(np.maximum(found["divergence"], 1e-3)) + 1,
            0.5 * np.log(self.regression.distance(found["features"]) + 0.01),
        ]
        return Points(
            (np.clip(candidates, -LOSS_RANGE, LOSS_RANGE),),
            free,
            np.clip(np.stack(signatures, 1), -SIGNATURE_RANGE, SIGNATURE_RANGE),
        )

    def _numbers(self, samples: DenseSamples, weights: Array) -> dict[str, Array]:
        """Returns means over samples; shift, scatter: how far the outputs' mean moved, and its spread over snapshots."""
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

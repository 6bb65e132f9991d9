"""What a labelled reference calibrates: the candidates' log ratios and the gate's signature of any set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.headline.heads import RegressionEstimator
from lightning_tansens.estimators.headline.moved_shares import MovedShares
from lightning_tansens.estimators.headline.plans import hard_kernel, plan_means, scale_columns
from lightning_tansens.estimators.headline.samples import Samples
from lightning_tansens.estimators.outputs import Array

#: Log ratios of losses are cut off at ± the first; log ratios of errors are cut off below at minus the second.
LOSS_RANGE, ERROR_RANGE = 3.0, 2.5

#: The gate's numbers are cut off at ± this.
SIGNATURE_RANGE = 5.0

#: Confidences are binned within each predicted class into so many parts.
PARTS = 3


@dataclass(frozen=True, eq=False)
class Points:
    """M sets, as the heads and the gate see them; ratios are logarithms of estimates over the reference's own level."""

    #: Of the first head, for each of the Q quantities (error and loss, or the loss alone), shape (M, K).
    candidates: tuple[Array, ...]
    free: Array  #: The regression estimator's ratios, shape (M, Q).
    signatures: Array  #: The gate's numbers, the first of them 1, shape (M, G).

    def of(self, places: NDArray[np.bool_]) -> Points:
        return Points(tuple(of[places] for of in self.candidates), self.free[places], self.signatures[places])

    def with_number(self, number: Array) -> Points:
        """Returns these with one number more for the gate, shape (M,)."""
        return replace(self, signatures=np.column_stack([self.signatures, number]))

    @classmethod
    def joined(cls, parts: Sequence[Points]) -> Points:
        candidates = tuple(map(np.concatenate, zip(*(part.candidates for part in parts), strict=True)))
        free, signatures = (np.concatenate([getattr(part, name) for part in parts]) for name in ("free", "signatures"))
        return cls(candidates, free, signatures)


class Calibration:
    """Turns re-weightings of any set into :class:`Points`, once it knows a labelled reference.

    Args:
        samples: The reference's samples.
        labels: Their classes, shape (N,).
        bootstraps: Weights of the reference's samples whose mean numbers stand for it, shape (M, N).
    """

    def __init__(self, samples: Samples, labels: NDArray[np.int64], bootstraps: Array) -> None:
        count, self.classes = samples.posterior.shape
        self.count, self.labels = count, labels
        self.shares = (np.bincount(labels, minlength=self.classes) + 0.5) / (count + 0.5 * self.classes)
        truth = self.truth(samples)
        #: The least error and loss, and the reference's own, shape (2,).
        self.least = np.array([0.5 / count, 1e-4])
        self.level = np.maximum(truth.mean(0), self.least)
        #: The largest log ratios: an error is a little better than chance at least.
        self.most = np.array([np.log((1 - 0.3 / self.classes) / self.level[0]), np.inf])
        right = count - int(truth[:, 0].sum())
        self.threshold = np.sort(samples.confidence)[count - right] if right else np.inf
        self.edges = np.array([self._edges(samples.confidence[samples.predictions == c]) for c in range(self.classes)])
        self.bins = np.bincount(self._binned(samples), minlength=PARTS * self.classes) / count
        everywhere = np.full((1, count), 1 / count)
        self.predicted = samples.predicted_shares(everywhere)[0]
        self.regression = RegressionEstimator.fitted(samples.features, truth)
        numbers = samples.numbers
        self.moved_shares = None if numbers is None else MovedShares.fitted(numbers, labels, self.classes)
        own = self._numbers(samples, bootstraps)
        self._own = {name: float(value.mean()) for name, value in own.items() if value.ndim == 1}

    def truth(self, samples: Samples) -> Array:
        """Returns error and loss of each of the reference's samples or of a copy's first ones, shape (N, 2)."""
        labels = self.labels[: len(samples)]
        losses = -samples.log_probabilities[np.arange(len(samples)), labels]
        return np.stack([samples.predictions != labels, losses], 1).astype(np.float64)

    def log_ratios(self, truth: Array) -> Array:
        """Returns log ratios of true means to the reference's level, shapes (M, 2)."""
        return np.asarray(np.log(np.maximum(truth, self.least) / self.level))

    def points(self, samples: Samples, weights: Array) -> Points:
        """Returns re-weightings of a set, by weights with rows of sum 1, shape (M, N)."""
        found, own, level = self._numbers(samples, weights), self._own, self.level

        def ratio(name: str, least: float = 1e-3) -> Array:
            return np.asarray(np.log((found[name] + least) / (own[name] + least)))

        hard = np.log(np.maximum(level[0] + found["hard_error"] - own["hard_error"], 0.1 * level[0]) / level[0])
        error = np.stack([ratio("disagreement"), ratio("soft_error"), ratio("threshold"), hard], 1)
        loss = np.stack([ratio("pseudo_loss"), ratio("soft_loss"), ratio("hard_loss")], 1)
        least = np.maximum(self.least, np.array([0.1, 0.05]) * level)
        moved, numbers = None, samples.numbers
        if self.moved_shares is not None and numbers is not None:
            moved = self.moved_shares.weights(weights @ numbers, 1 / np.square(weights).sum(1))
        free = np.log(np.maximum(self.regression.predict(found["features"], moved), least) / level)
        shift, disagreement = found["shift"], found["disagreement"]
        signatures = [
            np.ones(len(weights)),
            np.log(shift / (disagreement + 0.01) + 1e-6),
            np.log(shift / (found["scatter"] + 0.01) + 1e-6) - 1,
            ratio("disagreement", 3e-3),
            0.5 * np.log(np.maximum(found["divergence"], 1e-3)) + 1,
            0.5 * np.log(self.regression.distance(found["features"]) + 0.01),
            loss[:, 1] - loss[:, 0],  # a transport goes wrong where class shares change, and earlier predictions do not
        ]
        return Points(
            (np.clip(error, -ERROR_RANGE, self.most[0]), np.clip(loss, -LOSS_RANGE, LOSS_RANGE)),
            np.minimum(free, self.most),
            np.clip(np.stack(signatures, 1), -SIGNATURE_RANGE, SIGNATURE_RANGE),
        )

    def _numbers(self, samples: Samples, weights: Array) -> dict[str, Array]:
        """Returns means over the samples, shapes (M,), and for the features (M, F).

        * disagreement (Jiang et al., ICLR 2022), pseudo_loss, threshold (ATC on the ensemble; Garg et al., ICLR 2022).
        * soft, hard: the posterior that is moved to the reference's class shares, and the transport onto them.
        * shift, scatter: how far the predicted classes' shares differ from the reference's, on the mean of the snapshots,
          and about this mean; divergence: of the histogram of classes and confidences, from the reference's.
        """
        costs = -samples.log_probabilities
        kernel = hard_kernel(samples.posterior)
        soft = scale_columns(samples.posterior, weights, self.shares)
        hard = scale_columns(kernel, weights, self.shares)
        moved = samples.predicted_shares(weights)
        common = min(moved.shape[1], len(self.predicted))
        moved = moved[:, -common:] - self.predicted[-common:]
        mean = moved.mean(1)
        bins = self._binned(samples)
        histogram = np.stack([np.bincount(bins, row, PARTS * self.classes) for row in weights])
        return {
            "disagreement": weights @ samples.disagreement,
            "pseudo_loss": weights @ samples.pseudo_loss,
            "threshold": weights @ (samples.confidence < self.threshold),
            "soft_error": plan_means(samples.posterior, weights, soft, samples.wrong),
            "soft_loss": plan_means(samples.posterior, weights, soft, costs),
            "hard_error": plan_means(kernel, weights, hard, 1 - samples.posterior),
            "hard_loss": plan_means(kernel, weights, hard, costs),
            "features": weights @ samples.features,
            "shift": np.abs(mean).sum(1) / 2,
            "scatter": np.abs(moved - mean[:, None]).sum(2).mean(1) / 2,
            "divergence": (histogram * np.log((histogram + 1e-4) / (self.bins + 1e-4))).sum(1),
        }

    def _binned(self, samples: Samples) -> NDArray[np.int64]:
        above = samples.confidence[:, None] > self.edges[samples.predictions]
        return np.asarray(PARTS * samples.predictions + above.sum(1))

    @staticmethod
    def _edges(confidences: Array) -> Array:
        thirds = (1 / 3, 2 / 3)
        return np.quantile(confidences, thirds) if len(confidences) > 5 else np.array([0.5, 0.8])

"""What is known of each sample of a set without its label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lightning_tansens.estimators.disagreement import earlier_predictions
from lightning_tansens.estimators.headline.resemblance import Views
from lightning_tansens.estimators.outputs import TINY, Array, Outputs

#: The most earlier snapshots whose class shares are compared.
SNAPSHOTS = 12

#: With more classes than this the regression estimator does without the classes' probabilities.
MANY_CLASSES = 30

#: Log probabilities are cut off here, so that a masked class has a finite cost.
LOWEST = -1e4


@dataclass(frozen=True, eq=False)
class Samples:
    """The N samples of a set with C classes and S earlier snapshots; :meth:`of` makes them."""

    log_probabilities: Array  #: Today's log p, shape (N, C).
    posterior: Array  #: q = softmax(log p̄ / T), the temporal ensemble at the reference's temperature, shape (N, C).
    predictions: NDArray[np.int64]  #: Today's classes ŷ, shape (N,).
    earlier: NDArray[np.int64]  #: The classes that earlier snapshots predicted, shape (S, N).
    scores: Array | None = None  #: Of the inputs' principal components, where the inputs are known, shape (N, K).

    @classmethod
    def of(cls, outputs: Outputs, temperature: float, views: Views | None = None) -> Samples:
        """Returns the samples of class scores, at a temperature T, with the inputs' scores if the views fit.

        Where there was no earlier measurement, today's outputs stand for the ensemble and for the earlier predictions;
        a sample whose outputs were not usable then counts as predicted as today.
        """
        now = outputs.predictions
        earlier = now[None] if outputs.earlier is None else earlier_predictions(outputs).astype(np.int64)
        return cls(
            np.maximum(outputs.log_probabilities, LOWEST),
            np.asarray(softmax(np.log(ensemble(outputs) + TINY) / temperature, axis=1)),
            now,
            np.where(earlier < 0, now, earlier),
            _scores(outputs, views),
        )

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def places(self) -> Array:
        """Where a sample lies, for cutting sub-populations: its log posterior and its disagreement."""
        return np.column_stack([np.log(self.posterior + 1e-3), 3 * self.disagreement])

    @cached_property
    def confidence(self) -> Array:
        """Q of today's class, shape (N,)."""
        return np.asarray(self.posterior[np.arange(len(self)), self.predictions])

    @cached_property
    def disagreement(self) -> Array:
        """The share of earlier snapshots that predicted another class, shape (N,)."""
        return np.asarray((self.earlier != self.predictions).mean(0))

    @cached_property
    def pseudo_loss(self) -> Array:
        """Today's mean loss on the classes that earlier snapshots predicted, shape (N,)."""
        return np.asarray(-np.take_along_axis(self.log_probabilities, self.earlier.T, 1).mean(1))

    @cached_property
    def wrong(self) -> Array:
        """Whether today's class is not c, shape (N, C)."""
        wrong = np.ones_like(self.posterior)
        wrong[np.arange(len(self)), self.predictions] = 0
        return wrong

    @property
    def numbers(self) -> Array | None:
        """What other class shares have to explain, the features and the scores, shape (N, F)."""
        few = self.posterior.shape[1] <= MANY_CLASSES
        return np.column_stack([self.features, self.scores]) if few and self.scores is not None else None

    @cached_property
    def features(self) -> Array:
        """What the regression estimator is linear in, shape (N, F).

        1 − q of today's class, the disagreement, the loss that q expects, the pseudo-label loss and, unless there are many
        classes, q of all classes but the last.
        """
        expected = -(self.posterior * self.log_probabilities).sum(1)
        classes = self.posterior[:, :-1] if self.posterior.shape[1] <= MANY_CLASSES else self.posterior[:, :0]
        return np.column_stack([1 - self.confidence, self.disagreement, expected, self.pseudo_loss, classes])

    @cached_property
    def compared(self) -> NDArray[np.int64]:
        """The earlier predictions, at most :data:`SNAPSHOTS` of them spread over the run, shape (S, N)."""
        kept = len(self.earlier) if len(self.earlier) <= SNAPSHOTS else SNAPSHOTS
        return np.asarray(self.earlier[np.linspace(0, len(self.earlier) - 1, kept).astype(int)])

    def predicted_shares(self, weights: Array) -> Array:
        """Returns the share of each class among the compared predictions, shape (M, S, C), for weights (M, N)."""
        snapshots, classes = len(self.compared), self.posterior.shape[1]
        codes = (self.compared + classes * np.arange(snapshots)[:, None]).ravel()
        counts = [np.bincount(codes, np.tile(row, snapshots), snapshots * classes) for row in weights]
        return np.asarray(np.stack(counts).reshape(len(weights), snapshots, classes), np.float64)


def ensemble(outputs: Outputs) -> Array:
    """Returns the temporal ensemble, or today's probabilities where there was no earlier measurement, shape (N, C)."""
    return outputs.probabilities if outputs.earlier is None else outputs.ensemble


def _scores(outputs: Outputs, views: Views | None) -> Array | None:
    if views is None or outputs.inputs is None or not views.fit(outputs):
        return None
    return np.asarray(views.scores(outputs.inputs)[outputs.kept])

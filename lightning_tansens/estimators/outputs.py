"""A network's outputs on a set, and what estimators make of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, log_softmax, softmax

from lightning_tansens.errors import TooEarlyError
from lightning_tansens.estimators.inputs import Inputs
from lightning_tansens.estimators.temperature import Temperature, fit_temperature
from lightning_tansens.estimators.trajectory import Trajectory, running_mean

Array = NDArray[np.float64]

Found = TypeVar("Found")

#: Added to probabilities before their logarithm.
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs for the N usable samples of a set, in the order of their positions; made by :meth:`of`."""

    outputs: Array  #: Shape (N, ...); class scores have shape (N, C) with C >= 2.
    is_classifier: bool  #: Whether they are class scores (logits).
    kept: NDArray[np.bool_]  #: Which samples of the set these are; the others' outputs are not finite.
    labels: NDArray[np.int64] | None = None  #: Class indices, shape (N,); None where they are not used.
    features: Array | None = None  #: The input of the network's last layer, shape (N, F), if it is known.
    earlier: Trajectory | None = None  #: What earlier measurements said of these N samples.
    inputs: Inputs | None = None  #: Those of all samples of the set, usable or not, if they are known.

    @classmethod
    def of(
        cls,
        outputs: ArrayLike,
        labels: ArrayLike | None = None,
        features: ArrayLike | None = None,
        earlier: Trajectory | None = None,
        is_classifier: bool | None = None,
        inputs: Inputs | None = None,
    ) -> Outputs:
        """Returns the outputs of a set, without the samples whose outputs are not finite.

        Args:
            outputs: Shape (N, ...). Class scores have shape (N, C), or (N,) or (N, 1) for the single logit of the second
                of two classes. A score may be -inf, if another one is finite.
            labels: Class indices, shape (N,), of the reference; None for any other set. Not used without class scores.
            features: Shape (N, F), or None.
            earlier: The trajectory of all N samples, or None.
            is_classifier: Whether the outputs are class scores; None if they have shape (N, C) with C >= 2.
            inputs: Those of all N samples, or None.

        Raises:
            ValueError: If the shapes do not fit, or a label is not one of the outputs' classes.

        Example:
            >>> outputs = Outputs.of([[2.0, 1.0], [0.0, float("nan")], [0.0, 3.0]], labels=[0, 0, 0])
            >>> outputs.correct, outputs.unusable
            (array([1., 0.]), 1)
        """
        scores = np.asarray(outputs, np.float64)
        if is_classifier is None:
            is_classifier = scores.ndim == 2 and scores.shape[1] > 1
        if is_classifier and scores.ndim in (1, 2) and scores.shape[1:] in ((), (1,)):
            scores = np.stack([np.zeros(len(scores)), scores.reshape(-1)], 1)
        if not scores.ndim or (is_classifier and scores.ndim != 2):
            raise ValueError(
                f"outputs: expected {'class scores of shape (N, C)' if is_classifier else 'shape (N, ...)'}, but got shape "
                f"{scores.shape}"
            )
        rows = scores.reshape(len(scores), math.prod(scores.shape[1:]))
        worst = rows.max(1, initial=-np.inf)  # NaN if one is, -inf only if all are
        kept = np.asarray(np.isfinite(worst) if is_classifier else np.isfinite(rows).all(1))
        found = [None if value is None else np.asarray(value) for value in (labels if is_classifier else None, features)]
        for name, value in zip(("labels", "features"), found, strict=True):
            if value is not None and (len(value) != len(scores) or value.ndim != (1 if name == "labels" else 2)):
                shape = f"({len(scores)},)" if name == "labels" else f"({len(scores)}, F)"
                raise ValueError(f"{name}: expected shape {shape}, one row for each sample, but got {value.shape}")
        if inputs is not None and len(inputs) != len(scores):
            raise ValueError(f"inputs: expected a row for each of the {len(scores)} samples, but got {len(inputs)}")
        own, known = found
        if own is not None and len(own) and not 0 <= own.min() <= own.max() < scores.shape[1]:
            raise ValueError(
                f"labels: expected classes from 0 to {scores.shape[1] - 1}, as many as outputs, but got {own.min()} to "
                f"{own.max()}"
            )
        return cls(
            np.maximum(scores[kept], np.finfo(np.float64).min / 4) if is_classifier else scores[kept],
            is_classifier,
            kept,
            None if own is None else own[kept].astype(np.int64),
            None if known is None else known[kept].astype(np.float64),
            None if earlier is None or not earlier.count else earlier.selected(kept),
            inputs,
        )

    def __len__(self) -> int:
        """The number of usable samples."""
        return len(self.outputs)

    @property
    def unusable(self) -> int:
        """The number of samples of the set that are left out, because their outputs are not finite."""
        return int(len(self.kept) - self.kept.sum())

    @property
    def classes(self) -> int:
        """The number C of classes."""
        return int(self.outputs.shape[1])

    def unlabelled(self) -> Outputs:
        """Returns the same outputs without labels."""
        return self if self.labels is None else replace(self, labels=None)

    @cached_property
    def log_probabilities(self) -> Array:
        """The logarithm of the softmax, shape (N, C)."""
        return np.asarray(log_softmax(self.outputs, axis=1))

    @cached_property
    def probabilities(self) -> Array:
        """The softmax, shape (N, C)."""
        return np.asarray(np.exp(self.log_probabilities))

    @cached_property
    def confidences(self) -> Array:
        """The largest probability of each sample, shape (N,)."""
        return np.asarray(self.probabilities.max(1))

    @cached_property
    def entropies(self) -> Array:
        """The entropy of each sample's probabilities, in nats, shape (N,)."""
        return np.asarray(entr(self.probabilities).sum(1))

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """The class with the largest score, shape (N,)."""
        return np.asarray(self.outputs.argmax(1))

    @cached_property
    def correct(self) -> Array:
        """Which predictions are right, as zeros and ones, shape (N,). Needs labels."""
        return np.asarray(self.predictions == self.known_labels, np.float64)

    @cached_property
    def losses(self) -> Array:
        """The cross-entropy of each sample, in nats, shape (N,). Needs labels."""
        return np.asarray(-self.log_probabilities[np.arange(len(self)), self.known_labels])

    @property
    def past(self) -> Trajectory:
        """What earlier measurements said of these samples; raises TooEarlyError if there was none."""
        if self.earlier is None:
            raise TooEarlyError("expected earlier measurements of the same samples, but this is the first")
        return self.earlier

    @cached_property
    def ensemble(self) -> Array:
        """The mean of the probabilities over the earlier measurements and this one, shape (N, C)."""
        past = self.past
        assert past.mean_probabilities is not None
        assert past.seen is not None
        return running_mean(past.mean_probabilities.astype(np.float64), self.probabilities, past.seen + 1)

    @cached_property
    def temperature(self) -> Temperature:
        """The temperature that fits the temporal ensemble to the labels. Needs labels."""
        return fit_temperature(np.log(self.ensemble + TINY), self.known_labels)

    @cached_property
    def temperature_now(self) -> Temperature:
        """The temperature that fits today's probabilities to the labels. Needs labels."""
        return fit_temperature(self.log_probabilities, self.known_labels)

    def tempered(self, temperature: float) -> Array:
        """Returns the temporal ensemble at a temperature, softmax(log p̄ / T), shape (N, C)."""
        return self.once(("tempered", temperature), lambda: softmax(np.log(self.ensemble + TINY) / temperature, axis=1))

    def once(self, key: Hashable, make: Callable[[], Found]) -> Found:
        """Returns what ``make`` makes, which is called once for each key: estimators share what takes long."""
        if key not in self._made:
            self._made[key] = make()
        found: Found = self._made[key]
        return found

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    @property
    def known_labels(self) -> NDArray[np.int64]:
        """The labels; raises ValueError if there are none."""
        if self.labels is None:
            raise ValueError("labels: expected outputs with labels, but these have none; only the reference has them")
        return self.labels

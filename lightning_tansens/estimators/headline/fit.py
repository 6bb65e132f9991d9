"""The headline's fit on a labelled reference, its re-weightings and its corrupted copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.headline.calibration import Calibration, Points
from lightning_tansens.estimators.headline.gate import DEFAULT, fit_gate, logistic, sharpened
from lightning_tansens.estimators.headline.heads import WeightedCandidates
from lightning_tansens.estimators.headline.interval import (
    NEAREST,
    Spread,
    nearby,
    off_scale,
    on_scale,
    slopes,
    variance_of_sampling,
)
from lightning_tansens.estimators.headline.reweighting import reweightings
from lightning_tansens.estimators.headline.samples import Samples, ensemble
from lightning_tansens.estimators.headline.transport import TINY, Array
from lightning_tansens.estimators.outputs import Outputs
from lightning_tansens.estimators.temperature import fit_temperature

#: What is assumed of the target's class shares: they are the reference's, they may be others, or the data decide.
ClassShares = Literal["auto", "same", "free"]

#: Heads that differ by less than this many standard deviations of the reference's own noise are drawn together.
NOISE = 2.0

#: With fewer corrupted copies than this the weights are equal ones and the gate is the default one.
FEWEST_COPIES = 2


@dataclass(frozen=True, eq=False)
class Model:
    """The first head, and the gate's coefficients, shape (7,)."""

    same: WeightedCandidates
    gate: Array


@dataclass(frozen=True)
class Answer:
    """The estimate of one quantity of a set, as ratios to the reference's level.

    Attributes:
        ratio: The estimate.
        low, high: The ends of its 95 % interval.
        population: The gate: 0 where the class shares are taken to be the reference's, 1 for another population.
        distance: Of the set's signature from the third nearest one that the fit has seen.

    """

    ratio: float
    low: float
    high: float
    population: float
    distance: float


class Fit:
    r"""Estimates any number of sets from one labelled reference.

    .. math:: \log \hat r = a + \frac{g^2}{g^2 + (1 - g)^2} \, (b - a), \qquad g = \sigma(\theta^T s)

    with the log ratio a of :class:`WeightedCandidates`, b of :class:`RegressionEstimator` and the signature s of a set, see
    :class:`~lightning_tansens.estimators.headline.calibration.Points`. Where a and b differ by no more than noise, a is
    drawn to b: with the difference d and twice its standard deviation τ over bootstraps, a becomes
    :math:`b + d^3 / (d^2 + \tau^2)`.

    Args:
        reference: Its class scores, with labels.
        copies: The same samples or the first of them, perturbed; each one is a kind of its own.
        seed: Of the re-weightings.

    """

    def __init__(self, reference: Outputs, copies: Sequence[Outputs] = (), seed: int = 0) -> None:
        assert reference.labels is not None
        labels = reference.labels
        self.temperature = fit_temperature(np.log(ensemble(reference) + TINY), labels).value
        samples = Samples.of(reference, self.temperature)
        moved = reweightings(labels, samples.posterior.shape[1], samples.places, seed)
        self.calibration = calibration = Calibration(samples, labels, moved.of("bootstrap"))
        parts = [calibration.points(samples, moved.weights)]
        truths, kinds, bases = [moved.weights @ calibration.truth(samples)], [moved.kinds], [np.full(len(moved.kinds), -1)]
        for number, outputs in enumerate(copies):
            copy = Samples.of(outputs, self.temperature)
            some = moved.some(number)[:, : len(copy)]
            weights = np.concatenate([np.full((1, len(copy)), 1 / len(copy)), some / some.sum(1, keepdims=True)])
            parts.append(calibration.points(copy, weights))
            truths.append(weights @ calibration.truth(copy))
            kinds.append(np.array(["plain", *dict.fromkeys(moved.kinds)]))
            bases.append(np.full(len(weights), number))
        self._points, self._truth = Points.joined(parts), calibration.log_ratios(np.concatenate(truths))
        self._kinds, self._bases = np.concatenate(kinds), np.concatenate(bases)
        self.model = self._fit(np.ones(len(self._kinds), bool))
        self._left_out = self._without_own_kind()
        level = calibration.level
        self._errors = on_scale(self._left_out, level) - on_scale(self._truth, level)

    def estimate(self, outputs: Outputs, class_shares: ClassShares = "auto") -> tuple[Answer, Answer]:
        """Returns the answers for the error and the loss of a set, whose labels are not looked at."""
        samples = Samples.of(outputs, self.temperature)
        points = self.calibration.points(samples, np.full((1, len(samples)), 1 / len(samples)))
        ratios, gate, spread = self._predict(self.model, points, class_shares)
        seen, signature = self._points.signatures, points.signatures[0]
        copies = nearby(signature, ratios[0], seen, self._left_out, self._errors)
        values, level = np.exp(ratios[0]), self.calibration.level
        steep = np.square(slopes(float(values[0] * level[0])))
        sampling = steep * variance_of_sampling(values, self.calibration, len(samples))
        within, between = steep * spread[0].T
        reach = np.array([Spread(sampling[j], (copies[j, 0], copies[j, 1]), within[j], between[j]).reach for j in (0, 1)])
        middle = on_scale(ratios[0], level)
        low, high = (off_scale(middle + sign * reach[:, side], level) for side, sign in enumerate((-1, 1)))
        distance = float(np.sqrt(np.sort(np.square(signature - seen).sum(1))[NEAREST - 1]))
        error, loss = (Answer(*map(float, (values[j], low[j], high[j], gate[0], distance))) for j in (0, 1))
        return error, loss

    def _fit(self, used: NDArray[np.bool_]) -> Model:
        """Fits weights on corrupted copies as they are, and the gate on them against the reference's re-weightings."""
        corrupted = used & (self._bases >= 0)
        plain, moved = corrupted & (self._kinds == "plain"), used & (self._bases < 0)
        if plain.sum() < FEWEST_COPIES:
            plain = np.zeros_like(plain)
        same = WeightedCandidates.fitted(self._points.of(plain).candidates, self._truth[plain])
        if not plain.any():
            return Model(same, DEFAULT)
        told = moved | (corrupted & np.isin(self._kinds, ("plain", "bootstrap")))
        return Model(same, fit_gate(self._points.signatures[told], moved[told]))

    def _predict(self, model: Model, points: Points, class_shares: ClassShares = "auto") -> tuple[Array, Array, Array]:
        """Returns log ratios (M, 2), the gate (M,), and the variances within and between the heads (M, 2, 2)."""
        own = self._points.of((self._kinds == "bootstrap") & (self._bases < 0))
        noise = NOISE * (model.same.predict(own.candidates) - own.free).std(0) + 1e-9
        difference = np.minimum(model.same.predict(points.candidates), self.calibration.most) - points.free
        same = points.free + difference**3 / (difference**2 + noise**2)
        stated = np.full(len(same), float(class_shares == "free"))
        gate = logistic(points.signatures @ model.gate) if class_shares == "auto" else stated
        within = (1 - gate[:, None]) * model.same.spread(points.candidates, same)
        between = (gate * (1 - gate))[:, None] * np.square(same - points.free)
        return same + sharpened(gate)[:, None] * (points.free - same), gate, np.stack([within, between], 2)

    def _without_own_kind(self) -> Array:
        """Returns the log ratios by fits without that kind, shape (M, 2)."""
        found = np.zeros_like(self._truth)
        groups = [self._bases == number for number in range(self._bases.max() + 1)]
        groups += [(self._bases < 0) & (self._kinds == kind) for kind in dict.fromkeys(self._kinds) if kind != "plain"]
        for group in groups:
            whole = bool((self._kinds[group] == "bootstrap").all())
            model = self.model if whole else self._fit(~group)
            found[group] = self._predict(model, self._points.of(group))[0]
        return found

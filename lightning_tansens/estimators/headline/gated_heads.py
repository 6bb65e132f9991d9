"""Two heads and a gate on points: what the headline's fits have in common, with class scores and without."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.headline.calibration import Points
from lightning_tansens.estimators.headline.gate import fit_gate, logistic, sharpened
from lightning_tansens.estimators.headline.heads import WeightedCandidates, WeightedLosses
from lightning_tansens.estimators.headline.interval import NEAREST, SHARES, Spread, nearby, off_scale, on_scale, slopes
from lightning_tansens.estimators.headline.resemblance import Resemblance, Views
from lightning_tansens.estimators.headline.reweighting import Reweightings
from lightning_tansens.estimators.outputs import Array, Outputs

#: What is assumed about the target's class shares: they are the reference's, they may differ, or the data decide.
ClassShares = Literal["auto", "same", "free"]

#: Heads that differ by less than this many standard deviations of the reference's own noise are drawn together.
NOISE = 2.0

#: What is added to a squared distance of inputs, in units of how far re-weightings go, before its logarithm is taken.
LEAST_UNLIKE = 0.5

#: With fewer corrupted copies than this the weights are equal and the gate is the default.
FEWEST_COPIES = 2


@dataclass(frozen=True, eq=False)
class Model:
    """The first head, and the gate's coefficients, shape (G,)."""

    same: WeightedCandidates | WeightedLosses
    gate: Array


@dataclass(frozen=True)
class Answer:
    """The estimate of one quantity of a set, as ratios to the reference's level."""

    ratio: float  #: The estimate.
    low: float  #: The lower end of its 95 % interval.
    high: float  #: The upper end.
    population: float  #: The gate: 0 where the class shares are taken to be the reference's, 1 for another population.
    distance: float  #: Of the set's signature from the third nearest one that the fit has seen.


class GatedHeads(ABC):
    r"""Estimates sets from their points, after a fit to the points of a reference's re-weightings and of its copies.

    .. math:: \log \hat r = a + \frac{g^2}{g^2 + (1 - g)^2} \, (b - a), \qquad g = \sigma(\theta^T s)

    with the log ratio a of the first head, b of :class:`RegressionEstimator` and the signature s of a set. Where a and b
    differ by no more than noise, a is drawn to b: with the difference d and twice its standard deviation τ_0 over
    bootstraps of the reference, a becomes :math:`b + d^3 / (d^2 + \tau^2)`. For the loss τ is τ_0, for the error
    :math:`\tau_0 e^{-\max(a, b, 0) / 2}`, as the more errors there are, the better they are known. The heads never differ by
    more than b is wrong by on any copy. Then each is corrected by what it is wrong by itself on the copies that a set
    resembles (:class:`Resemblance`).

    Args:
        points: The re-weightings of the reference and, after them, of each copy.
        truth: Their true log ratios, shape (M, Q).
        sets: The re-weightings, those of the reference first.
        level: The reference's own error and loss, or its loss alone, shape (Q,).
        most: The largest log ratios.
        outputs: The reference's and the copies', in the order of ``sets``; their inputs, if all of them have any, tell which
            copies a set resembles.
    """

    #: The gate's coefficients without copies, and how much of each part of the variance counts, see :class:`Spread`.
    default_gate: ClassVar[Array]
    shares: ClassVar[tuple[float, float, float, float]] = SHARES

    def __init__(
        self,
        points: Sequence[Points],
        truth: Array,
        sets: Sequence[Reweightings],
        level: Array,
        most: Array | float = np.inf,
        outputs: Sequence[Outputs] = (),
    ) -> None:
        self._points, self._truth, self._level, self._most = Points.joined(points), truth, level, most
        self._kinds = np.concatenate([of.kinds for of in sets])
        self._bases = np.repeat(np.arange(-1, len(sets) - 1), [len(of.kinds) for of in sets])
        mild = sum(of.kinds[0] == "plain" for of in sets[1:])
        #: The changes of the copies, -1 for the reference's re-weightings; the first strong one changes what the first does.
        self._changes = np.where(self._bases < mild, self._bases, self._bases - mild)
        self._copies = (self._kinds == "plain") | (self._kinds == "strong")
        wrong = np.abs(truth - self._points.free)[self._copies]
        self._farthest = wrong.max(0) if len(wrong) else np.full(len(level), np.inf)
        self._resemblance: Resemblance | None = None
        self._views = views = Views.of_reference(outputs[0]) if outputs else None
        #: What the first head is fitted to: strong changes say much of images, and little of real shifts of tables.
        self._fitted = ("plain",) if views is None or views.is_table else ("plain", "strong")
        if views is not None and self._copies.any() and all(map(views.fit, outputs)):
            pairs = zip(outputs, sets, strict=True)
            seen = np.concatenate([views.means(one, of.weights, own=True) for one, of in pairs])
            self._resemblance = Resemblance(seen[self._bases < 0], seen[self._copies])
            self._points = self._points.with_number(self._unlike(seen))
        self.model = self._fit(np.ones(len(self._kinds), bool))
        self._wrong = truth[self._copies] - self._heads(self.model, self._points.of(self._copies))
        corrections = np.zeros((2, *truth.shape))
        if self._resemblance is not None:
            corrections = self._resemblance.correction(seen, self._wrong, without_own_kind=True)
        self._left_out = np.minimum(self._without_own_kind(corrections), most)
        self._errors = on_scale(self._left_out, level) - on_scale(truth, level)

    @staticmethod
    @abstractmethod
    def _head(candidates: tuple[Array, ...], truth: Array, mild: NDArray[np.bool_]) -> WeightedCandidates | WeightedLosses:
        """Fits the first head to the true log ratios of copies, if there are any; those that are not mild are strong."""

    @abstractmethod
    def _sampling(self, values: Array, count: int) -> Array:
        """Returns the variances of the logarithms of estimated ratios, shape (Q,), over the draw of both sets' samples."""

    def _answers(self, points: Points, count: int, class_shares: ClassShares, outputs: Outputs | None) -> list[Answer]:
        """Returns the answer for each quantity of a set, from its point, its number of samples, and its inputs if known."""
        corrections, novelty = np.zeros((2, 1, len(self._level))), None
        if self._resemblance is not None:
            seen = None
            if outputs is not None and self._views is not None and self._views.fit(outputs):
                seen = self._views.means(outputs, Reweightings.none(count))
                corrections, novelty = self._resemblance.correction(seen, self._wrong), self._resemblance.novelty(seen)
            points = points.with_number(self._unlike(seen))
        found, gate, spread = self._predict(self.model, points, class_shares, corrections)
        ratios = np.minimum(found, self._most)
        known, signature, level, values = self._points.signatures, points.signatures[0], self._level, np.exp(ratios[0])
        steep = np.square(slopes(values * level))
        sampling, (within, between) = steep * self._sampling(values, count), steep * spread[0].T
        copies = nearby(signature, ratios[0], known, self._left_out, self._errors)
        parts = zip(sampling, map(tuple, copies), within, between, strict=True)
        reach = np.array([Spread(*part, self.shares, novelty).reach for part in parts])
        middle = on_scale(ratios[0], level)
        low, high = off_scale(middle - reach[:, 0], level), off_scale(middle + reach[:, 1], level)
        distance = float(np.sqrt(np.sort(np.square(signature - known).sum(1))[NEAREST - 1]))
        ends = zip(values, low, high, strict=True)
        return [Answer(float(value), float(down), float(up), float(gate[0]), distance) for value, down, up in ends]

    def _unlike(self, seen: Array | None) -> Array:
        """Returns the gate's number of sets' inputs, shape (M,); 0 for rows of a table, the usual one for unknown inputs.

        Populations move the energies of images little. The entries of a table's rows are what populations differ in.
        """
        if seen is None:
            return np.asarray(self._points.signatures[:, -1:].mean(0))
        if self._resemblance is None or self._views is None or self._views.is_table:
            return np.zeros(len(seen))
        return np.asarray(np.log(self._resemblance.unlike(seen) + LEAST_UNLIKE) / 4)

    def _fit(self, used: NDArray[np.bool_]) -> Model:
        """Fits weights on corrupted copies as they are, and the gate on them against the reference's re-weightings."""
        corrupted, moved = used & (self._bases >= 0), used & (self._bases < 0)
        enough = (corrupted & (self._kinds == "plain")).sum() >= FEWEST_COPIES
        fitted = corrupted & np.isin(self._kinds, self._fitted) & enough
        same = self._head(self._points.of(fitted).candidates, self._truth[fitted], self._kinds[fitted] == "plain")
        if not enough:
            return Model(same, np.pad(self.default_gate, (0, self._points.signatures.shape[1] - len(self.default_gate))))
        told = moved | (corrupted & np.isin(self._kinds, ("plain", "bootstrap")))
        return Model(same, fit_gate(self._points.signatures[told], moved[told]))

    def _heads(self, model: Model, points: Points) -> Array:
        """Returns both heads' log ratios, shape (2, M, Q)."""
        own = self._points.of((self._kinds == "bootstrap") & (self._bases < 0))
        noise = NOISE * (model.same.predict(own.candidates) - own.free).std(0) + 1e-9
        same = np.minimum(model.same.predict(points.candidates), self._most)
        more = np.maximum(np.maximum(same, points.free), 0)
        more[:, -1] = 0  # losses are not counted
        noise = noise * np.exp(-more / 2)
        difference = np.clip(same - points.free, -self._farthest, self._farthest)
        return np.stack([points.free + difference**3 / (difference**2 + noise**2), points.free])

    def _predict(
        self, model: Model, points: Points, class_shares: ClassShares = "auto", corrections: Array | float = 0.0
    ) -> tuple[Array, Array, Array]:
        """Returns log ratios (M, Q), the gate (M,), and the variances within and between the heads (M, Q, 2).

        The corrections are added to the heads', shape (2, M, Q).
        """
        heads = self._heads(model, points)
        same, free = heads + corrections
        stated = np.full(len(same), float(class_shares == "free"))
        gate = logistic(points.signatures @ model.gate) if class_shares == "auto" else stated
        within = (1 - gate[:, None]) * model.same.spread(points.candidates, heads[0])
        between = (gate * (1 - gate))[:, None] * np.square(same - free)
        return same + sharpened(gate)[:, None] * (free - same), gate, np.stack([within, between], 2)

    def _without_own_kind(self, corrections: Array) -> Array:
        """Returns each re-weighting's log ratios by a fit without its kind, and corrected, shape (M, Q)."""
        found = np.zeros_like(self._truth)
        groups = [self._changes == change for change in range(self._changes.max() + 1)]
        groups += [(self._bases < 0) & (self._kinds == kind) for kind in dict.fromkeys(self._kinds) if kind != "plain"]
        for group in groups:
            unused = not np.isin(self._kinds[group], (*self._fitted, "shares", "subpopulation")).any()
            model = self.model if unused else self._fit(~group)
            found[group] = self._predict(model, self._points.of(group), corrections=corrections[:, group])[0]
        return found

"""Scores estimators where the truth is known: errors, correlations, coverage and regret."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.checks import check_choice, check_numbers, check_share, check_text
from lightning_tansens.record import TRIVIAL, Quantity, Record
from lightning_tansens.show.correlations import correlations
from lightning_tansens.show.keys import ALL_SETS, QUANTITIES

#: The heading of each number of a score.
HEADINGS = (
    *("quantity", "set", "estimator", "points", "undefined", "MAE", "bias", "RMSE", "Pearson", "Spearman", "coverage"),
    *("regret", f"MAE / {TRIVIAL}", f"RMSE / {TRIVIAL}", f"regret / {TRIVIAL}"),
)

#: The headings of what matters most.
BRIEF = ("quantity", "set", "estimator", "MAE", f"MAE / {TRIVIAL}", "coverage")


@dataclass(frozen=True)
class Point:
    """One estimate and the truth."""

    estimate: float  #: The estimate; nan where it was not defined.
    actual: float  #: The truth.
    interval: tuple[float, float] | None = None  #: Where the truth is expected; None where the estimate does not say.

    @property
    def error(self) -> float:
        """How far the estimate is above the truth."""
        return self.estimate - self.actual


#: Points by set and step: the checkpoints that they judge.
Points = dict[tuple[str, float], Point]


@dataclass(frozen=True)
class EstimatorScore:
    """How good an estimator was, on one set or over all of them ("all"); None where a number is not defined."""

    quantity: Quantity
    set_name: str
    estimator: str
    count: int  #: The number of points with a finite estimate.
    undefined: int  #: The number of points without one.
    mae: float | None = None  #: The mean of ``|estimate − actual|``.
    bias: float | None = None  #: The mean of estimate − actual.
    rmse: float | None = None  #: The root of the mean of (estimate − actual)².
    pearson: float | None = None  #: Pearson's correlation with the truth.
    spearman: float | None = None  #: Spearman's.
    coverage: float | None = None  #: The share of estimates whose interval contains the truth, among those that have one.
    #: How much worse than the best checkpoint the one is that the estimator would choose; its mean over sets.
    regret: float | None = None
    #: ``mae`` over the trivial estimate's on the same points; below one, the estimator helped.
    mae_ratio: float | None = None
    rmse_ratio: float | None = None  #: ``rmse`` over the trivial estimate's.
    regret_ratio: float | None = None  #: ``regret`` over the trivial estimate's.


class Scorecard:
    r"""Scores estimators of loss and accuracy over epochs and sets.

    For the points k of an estimator on a set, with estimate e_k, truth a_k and interval [low_k, high_k]:

    .. math:: MAE = \overline{|e_k - a_k|}, \quad bias = \overline{e_k - a_k}, \quad RMSE = \sqrt{\overline{(e_k - a_k)^2}},
              \quad coverage = \overline{1[low_k \le a_k \le high_k]}, \quad regret = a_{\arg\min_k e_k} - \min_k a_k

    (for the accuracy, regret is max a_k − a at the largest e_k; among equal estimates the first counts). Over all sets,
    points are pooled, and regrets, which compare checkpoints on one set, are averaged. Every process of a distributed run
    knows all points already, so nothing is synced.

    Args:
        confidence: The share of truths that an interval should contain. An estimate that has a standard error and no
            interval of its own is given the normal distribution's: at 0.95, 1.96 standard errors on either side.

    Raises:
        ValueError: If the confidence is not between 0 and 1.

    Example:
        >>> scorecard = Scorecard()
        >>> for step, (estimate, actual) in enumerate([(1.0, 1.5), (1.25, 1.25)]):
        ...     scorecard.update("trivial", "loss", "test", step, 1.0, actual)
        ...     scorecard.update("mine", "loss", "test", step, estimate, actual)
        >>> score = scorecard.compute()[1]
        >>> score.estimator, score.mae, score.regret, score.mae_ratio
        ('mine', 0.25, 0.25, 0.6666666666666666)
    """

    def __init__(self, confidence: float = 0.95) -> None:
        check_share("confidence", confidence)
        self.confidence = confidence
        self._z = NormalDist().inv_cdf((1 + confidence) / 2)
        self._points: dict[tuple[Quantity, str, str], Points] = {}

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> Scorecard:
        """Scores what a monitor has recorded; records without a truth are passed over.

        An estimate that other records have is not defined where it is missing.
        """
        scorecard = cls()
        for target in dict.fromkeys(name for record in records for name in record.targets):
            found = [(step, record.targets[target]) for step, record in enumerate(records) if target in record.targets]
            for quantity in QUANTITIES:
                names = dict.fromkeys(name for _, one in found for name in one.estimates.get(quantity, {}))
                for step, one in found:  # an epoch may have several measurements
                    actual, estimates = one.labelled(quantity), one.estimates.get(quantity, {})
                    for name in names if actual is not None else ():
                        known = estimates.get(name)
                        if known is None:
                            scorecard.update(name, quantity, target, step, math.nan, actual)
                            continue
                        ends = None if known.low is None or known.high is None else (known.low, known.high)
                        scorecard.update(name, quantity, target, step, known.value, actual, known.stderr, ends)
        return scorecard

    def update(
        self,
        estimator: str,
        quantity: Quantity,
        set_name: str,
        step: float,
        estimate: float,
        actual: float | None,
        stderr: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> None:
        """Adds a point.

        Args:
            estimator: The estimator's name; "trivial" is what the others are compared with.
            quantity: "loss" or "accuracy".
            set_name: The set; "all" stands for all of them.
            step: Which measurement it belongs to: a number that no other measurement of this set has.
            estimate: The estimate; nan or infinite where it is not defined.
            actual: The truth.
            stderr: The estimate's standard error; None where it is not known.
            interval: The interval that it gives itself; None for one made of the standard error.

        Raises:
            ValueError: If the quantity is unknown, the set is called "all" or an argument is not a number.
            TypeError: If a name is not a string.
        """
        check_text("estimator", estimator)
        check_choice("quantity", quantity, QUANTITIES)
        check_text("set_name", set_name)
        if set_name == ALL_SETS:
            raise ValueError(f"set_name: expected a name other than {ALL_SETS!r}, which stands for all sets; rename it")
        check_numbers(step=step, actual=actual)
        assert actual is not None
        if not isinstance(estimate, (int, float, np.floating)):
            raise ValueError(f"estimate: expected a number, nan where it is not defined, but got {estimate!r}")
        if stderr is not None:
            check_numbers(at_least=0, stderr=stderr)
            interval = interval or (estimate - self._z * stderr, estimate + self._z * stderr)
        points = self._points.setdefault((quantity, set_name, estimator), {})
        points[set_name, float(step)] = Point(float(estimate), float(actual), interval)

    def reset(self) -> None:
        """Forgets all points."""
        self._points.clear()

    def compute(self) -> list[EstimatorScore]:
        """Returns a score for each quantity, set and estimator, and over all sets where there are several."""
        scores = []
        for quantity in QUANTITIES:
            sets = list(dict.fromkeys(name for of, name, _ in self._points if of == quantity))
            for set_name in [*sets, *([ALL_SETS] if len(sets) > 1 else [])]:
                chosen = sets if set_name == ALL_SETS else [set_name]
                names = dict.fromkeys(name for of, on, name in self._points if of == quantity and on in chosen)
                scores += [self._score(quantity, set_name, chosen, name) for name in names]
        return scores

    def to_rows(self, headings: Sequence[str] = HEADINGS) -> list[dict[str, Any]]:
        """Returns the scores under some headings, one row each; None where a number is not defined."""
        scores = [dict(zip(HEADINGS, asdict(score).values(), strict=True)) for score in self.compute()]
        return [{heading: row[heading] for heading in headings} for row in scores]

    def to_csv(self, path: str | Path) -> None:
        """Writes the scores, one row each, with all digits; a number that is not defined is an empty cell."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(EstimatorScore)])
            writer.writerows(list(asdict(score).values()) for score in self.compute())

    def _score(self, quantity: Quantity, set_name: str, sets: Sequence[str], name: str) -> EstimatorScore:
        every, own = self._on(quantity, sets, name), self._on(quantity, sets, name, defined=True)
        trivial, points = self._on(quantity, sets, TRIVIAL, defined=True), list(own.values())
        errors = np.array([point.error for point in points])
        # the two are compared where both are defined
        both = [{place: of[place] for place in own if place in trivial} for of in (own, trivial)]
        pairs = [np.array([point.error for point in of.values()]) for of in both]
        numbers = {
            "mae": _mean(np.abs(errors)),
            "bias": _mean(errors),
            "rmse": math.sqrt(_mean_square(errors)),
            "coverage": _mean([p.interval[0] <= p.actual <= p.interval[1] for p in points if p.interval is not None]),
            "regret": self._regret(quantity, own),
            "mae_ratio": _ratio(*(_mean(np.abs(of)) for of in pairs)),
            "rmse_ratio": math.sqrt(_ratio(*(_mean_square(of) for of in pairs))),
            "regret_ratio": _ratio(*(self._regret(quantity, of) for of in both)),
            **correlations([p.estimate for p in points], [p.actual for p in points]),
        }
        known = {number: value for number, value in numbers.items() if math.isfinite(value)}
        return EstimatorScore(quantity, set_name, name, len(points), len(every) - len(points), **known)

    def _on(self, quantity: Quantity, sets: Sequence[str], name: str, defined: bool = False) -> Points:
        """The points of an estimator on some sets; those that are defined if asked for."""
        found = (self._points.get((quantity, on, name), {}) for on in sets)
        points = (item for of_set in found for item in of_set.items())
        return {place: point for place, point in points if not defined or math.isfinite(point.estimate)}

    def _regret(self, quantity: Quantity, points: Points) -> float:
        """The mean regret over the sets that have points to choose among."""
        sign = 1 if quantity == "loss" else -1
        regrets = []
        for on in dict.fromkeys(on for on, _ in points):
            known = [point for key, found in self._points.items() if key[:2] == (quantity, on) for point in found.values()]
            chosen = min((points[place] for place in points if place[0] == on), key=lambda point: sign * point.estimate)
            regrets.append(sign * chosen.actual - min(sign * point.actual for point in known))
        return _mean(regrets)


def _mean(values: Sequence[float] | NDArray[Any]) -> float:
    """The mean; nan where it is not finite, or there is nothing to average."""
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean if math.isfinite(mean) else math.nan


def _mean_square(values: NDArray[Any]) -> float:
    with np.errstate(over="ignore"):
        return _mean(np.square(values))


def _ratio(value: float, other: float) -> float:
    return value / other if other else math.nan

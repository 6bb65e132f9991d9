"""How good estimates were, wherever the truth is known: errors, correlations, coverage and regret of each estimator."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import NormalDist
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.checks import check_choice, check_numbers, check_share, check_text
from lightning_tansens.monitor.correlations import correlations
from lightning_tansens.show.keys import TRIVIAL, Keys, Quantity

#: The name under which a score over all sets stands.
ALL_SETS = "all"


@dataclass(frozen=True)
class Point:
    """One estimate beside the truth.

    Attributes:
        step: Which measurement it belongs to; the checkpoint that it judges.
        estimate: The estimate; nan where it was not defined.
        actual: The truth.
        stderr: The estimate's standard error, if it has one.

    """

    step: float
    estimate: float
    actual: float
    stderr: float | None = None


@dataclass(frozen=True)
class Score:
    """How good an estimator was, on one set or over all; None where a number is not defined.

    Attributes:
        quantity: "loss" or "accuracy".
        set_name: The set, or "all".
        estimator: The estimator's name.
        count: The number of points with a finite estimate.
        undefined: The number of points without one.
        mae: The mean of ``|estimate − actual|``.
        bias: The mean of estimate − actual.
        rmse: The root of the mean of (estimate − actual)².
        pearson: Pearson's correlation with the truth.
        spearman: Spearman's.
        coverage: The share of estimates whose band contains the truth, among those that have a standard error.
        regret: How much worse than the best checkpoint the one is that the estimator would choose; its mean over sets.
        mae_ratio: ``mae`` over the trivial estimate's on the same points; below one, the estimator was worth something.
        rmse_ratio: Likewise.
        regret_ratio: Likewise, over the trivial estimate's regret.

    """

    quantity: Quantity
    set_name: str
    estimator: str
    count: int
    undefined: int
    mae: float | None = None
    bias: float | None = None
    rmse: float | None = None
    pearson: float | None = None
    spearman: float | None = None
    coverage: float | None = None
    regret: float | None = None
    mae_ratio: float | None = None
    rmse_ratio: float | None = None
    regret_ratio: float | None = None


class Scorecard:
    r"""Scores estimators of loss and accuracy over epochs and sets.

    For the points k of an estimator on a set, with estimate e_k, truth a_k and standard error s_k:

    .. math:: MAE = \overline{|e_k - a_k|}, \quad bias = \overline{e_k - a_k}, \quad RMSE = \sqrt{\overline{(e_k - a_k)^2}},
              \quad coverage = \overline{1[|e_k - a_k| \le z \, s_k]}, \quad regret = a_{\arg\min_k e_k} - \min_k a_k

    (for the accuracy, regret is max a_k − a at the largest e_k; among equal estimates the first counts). Over all sets,
    points are pooled, and regrets, which compare checkpoints on one set, are averaged. What is fed is known to every process
    of a distributed run already, so nothing is synced.

    Args:
        confidence: The share of truths that a band should contain, which gives z: 0.95 for 1.96 standard errors.

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
        self._points: dict[tuple[Quantity, str, str], list[Point]] = {}

    @classmethod
    def from_history(
        cls, history: Iterable[Mapping[str, float]], keys: Keys | None = None, confidence: float = 0.95
    ) -> Scorecard:
        """Scores what a monitor has logged.

        Args:
            history: Its rows; those without a truth are passed over. An estimate that other rows have is not defined where
                it is missing.
            keys: How the values are named; None for ``tansens/…``.
            confidence: As above.

        """
        keys, scorecard, rows = keys or Keys(), cls(confidence), list(history)
        for target in dict.fromkeys(target for row in rows for target in keys.targets(row)):
            for quantity in get_args(Quantity):
                names = dict.fromkeys(name for row in rows for name in keys.estimates(row, target, quantity))
                for step, row in enumerate(rows):  # an epoch may have several measurements
                    actual, estimates = keys.actual(row, target, quantity), keys.estimates(row, target, quantity)
                    for name in names if actual is not None else ():
                        stderr = row.get(keys.stderr(keys.estimate(target, quantity, name)))
                        estimate = estimates.get(name, math.nan)
                        scorecard.update(name, quantity, target, step, estimate, actual, stderr)
        return scorecard

    @classmethod
    def from_csv(cls, path: str | Path, keys: Keys | None = None, confidence: float = 0.95) -> Scorecard:
        """Scores a history that was written as CSV, one row a measurement, with empty cells for what was not logged."""
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]
        return cls.from_history(rows, keys, confidence)

    def update(
        self,
        estimator: str,
        quantity: Quantity,
        set_name: str,
        step: float,
        estimate: float,
        actual: float | None,
        stderr: float | None = None,
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

        Raises:
            ValueError: If the quantity is unknown, the set is called "all" or a number is none.
            TypeError: If a name is none.

        """
        check_text("estimator", estimator)
        check_choice("quantity", quantity, get_args(Quantity))
        check_text("set_name", set_name)
        if set_name == ALL_SETS:
            raise ValueError(
                f"set_name: expected a name other than {ALL_SETS!r}, which is that of all sets together; rename it"
            )
        check_numbers(step=step, actual=actual)
        if stderr is not None:
            check_numbers(at_least=0, stderr=stderr)
        if not isinstance(estimate, (int, float, np.floating)):
            raise ValueError(f"estimate: expected a number, nan where it is not defined, but got {estimate!r}")
        known = None if stderr is None else float(stderr)
        point = Point(float(step), float(estimate), float(cast(float, actual)), known)
        self._points.setdefault((quantity, set_name, estimator), []).append(point)

    def reset(self) -> None:
        """Forgets all points."""
        self._points.clear()

    def compute(self) -> list[Score]:
        """Returns a score for each quantity, set and estimator, and over all sets where there are several."""
        scores = []
        for quantity in get_args(Quantity):
            sets = list(dict.fromkeys(name for of, name, _ in self._points if of == quantity))
            for set_name in [*sets, *([ALL_SETS] if len(sets) > 1 else [])]:
                chosen = sets if set_name == ALL_SETS else [set_name]
                names = dict.fromkeys(name for of, on, name in self._points if of == quantity and on in chosen)
                scores += [self._score(quantity, set_name, chosen, name) for name in names]
        return scores

    def to_rows(self) -> list[dict[str, Any]]:
        """Returns the scores by heading, one row each; None where a number is not defined."""
        return [dict(zip(_HEADINGS, asdict(score).values(), strict=True)) for score in self.compute()]

    def to_csv(self, path: str | Path) -> None:
        """Writes the scores, one row each, with all digits; a number that is not defined is an empty cell."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Score)])
            writer.writerows(list(asdict(score).values()) for score in self.compute())

    def _score(self, quantity: Quantity, set_name: str, sets: Sequence[str], name: str) -> Score:
        of_sets = {on: self._points.get((quantity, on, name), []) for on in sets}
        points = [(on, point) for on, of_set in of_sets.items() for point in of_set]
        defined = [(on, point) for on, point in points if math.isfinite(point.estimate)]
        score = Score(quantity, set_name, name, len(defined), len(points) - len(defined))
        if not defined:
            return score
        estimates, actual = (np.array([getattr(point, kind) for _, point in defined]) for kind in ("estimate", "actual"))
        errors = estimates - actual
        own, trivial = self._errors_beside_trivial(quantity, of_sets)
        regret, beside = self._regret(quantity, sets, name), self._regret(quantity, sets, name, TRIVIAL)
        return Score(
            quantity,
            set_name,
            name,
            score.count,
            score.undefined,
            mae=_mean(np.abs(errors)),
            bias=_mean(errors),
            rmse=_root(_mean(np.square(errors))),
            coverage=_mean([abs(p.estimate - p.actual) <= self._z * p.stderr for _, p in defined if p.stderr is not None]),
            regret=regret,
            mae_ratio=_ratio(_mean(np.abs(own)), _mean(np.abs(trivial))),
            rmse_ratio=_root(_ratio(_mean(np.square(own)), _mean(np.square(trivial)))),
            regret_ratio=_ratio(beside, self._regret(quantity, sets, TRIVIAL, name)),
            **correlations(estimates.tolist(), actual.tolist()),
        )

    def _errors_beside_trivial(
        self, quantity: Quantity, of_sets: Mapping[str, Sequence[Point]]
    ) -> tuple[list[float], list[float]]:
        """The errors of an estimator and of the trivial one at the points that both have."""
        own, trivial = [], []
        for on, points in of_sets.items():
            others = {point.step: point for point in self._points.get((quantity, on, TRIVIAL), [])}
            for point in points:
                other = others.get(point.step)
                if other is not None and math.isfinite(point.estimate) and math.isfinite(other.estimate):
                    own.append(point.estimate - point.actual)
                    trivial.append(other.estimate - other.actual)
        return own, trivial

    def _regret(self, quantity: Quantity, sets: Iterable[str], name: str, beside: str | None = None) -> float | None:
        """The mean regret over the sets on which the estimator can choose, among measurements that another one has too."""
        sign = 1 if quantity == "loss" else -1
        regrets = []
        for on in sets:
            points = _defined(self._points.get((quantity, on, name), []))
            if beside is not None:
                others = {point.step for point in _defined(self._points.get((quantity, on, beside), []))}
                points = [point for point in points if point.step in others]
            if points:
                of_set = [found for key, found in self._points.items() if key[:2] == (quantity, on)]
                best = min(sign * point.actual for found in of_set for point in found)
                chosen = min(points, key=lambda point: sign * point.estimate)
                regrets.append(sign * chosen.actual - best)
        return _mean(regrets)


_HEADINGS = (
    "quantity",
    "set",
    "estimator",
    "points",
    "undefined",
    "MAE",
    "bias",
    "RMSE",
    "Pearson",
    "Spearman",
    "coverage",
    "regret",
    f"MAE / {TRIVIAL}",
    f"RMSE / {TRIVIAL}",
    f"regret / {TRIVIAL}",
)


def _defined(points: Iterable[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point.estimate)]


def _mean(values: Sequence[float] | NDArray[Any]) -> float | None:
    with np.errstate(over="ignore"):
        return _finite(float(np.mean(values))) if len(values) else None


def _ratio(value: float | None, other: float | None) -> float | None:
    return _finite(value / other) if value is not None and other else None


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

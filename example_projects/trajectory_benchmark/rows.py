"""The scores of all networks, and what they belong to."""

from __future__ import annotations

import csv
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
from fitting import Part, Run
from image_sets import ImageName

from lightning_tansens.record import HEADLINE, TRIVIAL

Quantity = Literal["loss", "accuracy"]
Key = TypeVar("Key", bound=Hashable)

#: The headline, and with what a user may state.
HEADLINES = (HEADLINE, f"{HEADLINE}: same", f"{HEADLINE}: free")

#: Families without a corruption.
POPULATIONS = ("none", "label_shift", "subpopulation", "real")

#: The kinds of shift that the summary is about.
SHIFTED = ("corrupted images", "real tables", "real digits")


@dataclass(frozen=True)
class Target:
    """One set at one moment of one network, and all that is said of one quantity of it.

    Args:
        setting: The network's name without the number of its split: those networks count as one.
        name: The set's.
        part: Which part of the benchmark it belongs to.
        kind: Of shift.
        family: Of shift, with "image" or "table" in front.
        actual: The truth.
        reference: The reference's own value.
        estimates: By estimator.
        low: Of the headline's interval.
        high: Of the headline's interval.
        undoubted: The estimators that have no doubts.
        verdict: The headline's.

    """

    setting: str
    name: str
    part: Part
    kind: str
    family: str
    actual: float
    reference: float
    estimates: dict[str, float]
    low: float
    high: float
    undoubted: frozenset[str]
    verdict: str

    @property
    def covered(self) -> bool:
        return self.low <= self.actual <= self.high

    def error(self, estimator: str) -> float:
        """The absolute error; the trivial estimate's where there is no estimate."""
        return abs(self.estimates.get(estimator, self.estimates[TRIVIAL]) - self.actual)


def read_targets(
    scores: Path, runs: Iterable[Run], quantity: Quantity, development_families: Sequence[str] | None = None
) -> list[Target]:
    """Reads the CSVs of the networks that are scored.

    Args:
        scores: Their folder.
        runs: The matrix.
        quantity: Which estimates.
        development_families: Other corruptions of a network of development count as seen; None to count them alike.

    """
    found = []
    for run in runs:
        path = scores / f"{run.name}.csv"
        if not path.exists():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["quantity"] == quantity]
        for of_target in grouped(rows, lambda row: (row["moment"], row["set"])).values():
            found.append(_target(run, of_target, development_families))
    return found


def _target(run: Run, rows: list[dict[str, str]], development_families: Sequence[str] | None) -> Target:
    by_estimator = {row["estimator"]: row for row in rows}
    headline = by_estimator[HEADLINE]
    family = headline["family"]
    is_image = run.data in get_args(ImageName)
    base, *others = family.split("+")
    known = development_families is None or base in development_families or base in POPULATIONS
    part: Part = run.part if known or run.part != "development" else "seen"
    setting = run.name.partition("@")[0] + ("" if part == run.part else ", other families")
    if others:
        kind = "digits and population" if base == "real" else "corruption and population"
    elif base in POPULATIONS:
        kind = {"real": "real digits" if is_image else "real tables", "none": "no shift"}.get(base, base.replace("_", " "))
    else:
        kind = "corrupted images" if is_image else "corrupted tables"
    return Target(
        setting=setting,
        name=headline["set"],
        part=part,
        kind=kind,
        family=f"{'image' if is_image else 'table'} {family}",
        actual=float(headline["actual"]),
        reference=float(headline["reference"]),
        estimates={name: float(row["estimate"]) for name, row in by_estimator.items()},
        low=float(headline["low"]),
        high=float(headline["high"]),
        undoubted=frozenset(name for name, row in by_estimator.items() if row["undoubted"] == "1"),
        verdict=headline["verdict"],
    )


Item = TypeVar("Item")


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Returns the items by key, in the order of the keys' first appearance."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def estimators_of(targets: Iterable[Target]) -> list[str]:
    """Returns the estimators' names: trivial, the headline and its variants as far as they were scored, the others."""
    names = dict.fromkeys(name for target in targets for name in target.estimates)
    first = [TRIVIAL, *(name for name in HEADLINES if name in names)]
    return [*first, *(name for name in names if name not in first)]


def settings_of(targets: Iterable[Target]) -> list[list[Target]]:
    """Returns the targets of each setting with several sets; on one alone the trivial error may be next to zero."""
    return [group for group in grouped(targets, lambda one: one.setting).values() if len({one.name for one in group}) > 1]


def ratios(targets: Sequence[Target], names: Sequence[str]) -> list[float]:
    """Returns the mean absolute errors over the trivial estimate's."""
    errors = np.array([[target.error(name) for name in (TRIVIAL, *names)] for target in targets]).mean(0)
    return [float(error) for error in errors[1:] / errors[0]]

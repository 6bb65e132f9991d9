"""Makes tables from the scores.

python example_projects/trajectory_benchmark/report.py --config example_projects/trajectory_benchmark/matrix.yaml \
    --scores trajectory_scores --tables trajectory_tables
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from fitting import Part, Run
from jsonargparse import CLI
from rows import HEADLINES, SHIFTED, Quantity, Target, estimators_of, grouped, ratios, read_targets, settings_of

from lightning_tansens.estimators import Need, default_estimators
from lightning_tansens.record import HEADLINE, TRIVIAL

#: Draws of settings for the intervals of differences.
DRAWS = 4000

#: Comparisons: a title, and the kinds of shift that a setting is averaged over.
COMPARED = {"shifted": SHIFTED, **{kind: (kind,) for kind in (*SHIFTED, "label shift", "subpopulation", "no shift")}}

#: A truth that is worse by this factor ought to be called worse.
MUCH_WORSE = 1.5

Table = list[list[str | int]]


def main(
    runs: list[Run],
    scores: Path = Path("trajectory_scores"),
    tables: Path = Path("trajectory_tables"),
    development_families: list[str] | None = None,
) -> None:
    """Writes tables as CSV and prints the comparisons.

    Args:
        runs: The matrix.
        scores: Where score.py wrote.
        tables: Where the tables are written.
        development_families: Other corruptions of networks of development count as "seen".

    """
    tables.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Sequence[Target], Quantity], Table]] = {
        "by_kind": by_kind,
        "by_setting": by_setting,
        "by_family": by_family,
        "compared": compared,
    }
    found = {quantity: read_targets(scores, runs, quantity, development_families) for quantity in get_args(Quantity)}
    for quantity, targets in found.items():
        for name, make in makers.items():
            cells = make(targets, quantity)
            write(tables / f"{quantity}_{name}.csv", cells)
            if name == "compared":
                print(f"{quantity}\n" + "\n".join(" | ".join(map(str, row)) for row in cells) + "\n")
    cells = [row for quantity, targets in found.items() for row in judged(targets, quantity)]
    write(tables / "intervals.csv", [JUDGED, *cells])
    cells = [row for quantity, targets in found.items() for row in doubted(targets, quantity)]
    write(tables / "doubts.csv", [DOUBTED, *cells])


def parts(targets: Sequence[Target]) -> dict[str, list[Target]]:
    """Returns the targets by part, and all but those of development; parts without targets are left out."""
    found = {part: [one for one in targets if one.part == part] for part in get_args(Part)}
    found["seen and once"] = found["seen"] + found["once"]
    return {part: chosen for part, chosen in found.items() if chosen}


def by_setting(targets: Sequence[Target], quantity: Quantity) -> Table:
    """Errors over the trivial estimate's, by setting and kind of shift."""
    names = estimators_of(targets)
    cells: Table = [["part", "setting", "kind", "estimates", f"MAE of {TRIVIAL}", *names[1:]]]
    for (part, setting, kind), group in grouped(targets, lambda one: (one.part, one.setting, one.kind)).items():
        trivial = np.mean([one.error(TRIVIAL) for one in group])
        cells.append([part, setting, kind, len(group), f"{trivial:.4f}", *map(_short, ratios(group, names[1:]))])
    return cells


def by_kind(targets: Sequence[Target], quantity: Quantity) -> Table:
    """The means over settings of :func:`by_setting`."""
    names = estimators_of(targets)
    cells: Table = [["part", "kind", "settings", "estimates", *names[1:]]]
    for part, of_part in parts(targets).items():
        for kind, of_kind in sorted(grouped(of_part, lambda one: one.kind).items()):
            if settings := settings_of(of_kind):
                means = np.mean([ratios(group, names[1:]) for group in settings], 0)
                cells.append([part, kind, len(settings), sum(map(len, settings)), *map(_short, means)])
    return cells


def by_family(targets: Sequence[Target], quantity: Quantity) -> Table:
    """The headline, the best of the other estimators and the coverage, by family."""
    others = [name for name in estimators_of(targets)[1:] if name not in HEADLINES]
    cells: Table = [["part", "family", "estimates", *HEADLINES, "best other", "its name", "covered"]]
    for part, of_part in parts(targets).items():
        for family, group in sorted(grouped(of_part, lambda one: one.family).items()):
            settings = grouped(group, lambda one: one.setting).values()
            own = np.mean([ratios(of, HEADLINES) for of in settings], 0)
            means = np.mean([ratios(of, others) for of in settings], 0)
            best = int(means.argmin())
            covered = np.mean([one.covered for one in group])
            cells.append([part, family, len(group), *map(_short, own), _short(means[best]), others[best], _short(covered)])
    return cells


def compared(targets: Sequence[Target], quantity: Quantity) -> Table:
    """The headline against the best of the others, and of those that need no earlier outputs, both chosen with hindsight.

    The difference to the best of all others has an interval of 95 % from a paired bootstrap over settings.
    """
    names = estimators_of(targets)[1:]
    today = {one.key for one in default_estimators() if Need.EARLIER not in one.needs}
    best_two = ("best of today's outputs", "its name", "best other", "the other's name")
    cells: Table = [["part", "shift", "settings", *HEADLINES, *best_two, "difference", "from", "to"]]
    for part, of_part in parts(targets).items():
        for title, kinds in COMPARED.items():
            table = []
            for of_setting in grouped([one for one in of_part if one.kind in kinds], lambda one: one.setting).values():
                of_kinds = [settings_of(group) for group in grouped(of_setting, lambda one: one.kind).values()]
                if found := [ratios(group[0], names) for group in of_kinds if group]:
                    table.append(np.mean(found, 0))
            if not table:
                continue
            errors = dict(zip(names, np.array(table).T, strict=True))
            means = {name: float(of.mean()) for name, of in errors.items()}
            others = [name for name in names if name not in HEADLINES]
            best = [
                min(chosen, key=means.__getitem__, default=HEADLINE)  # where no other estimator was scored
                for chosen in ([name for name in others if name in today], others)
            ]
            difference = errors[HEADLINE] - errors[best[1]]
            draws = np.random.default_rng(0).choice(difference, (DRAWS, len(difference))).mean(1)
            ends = [float(difference.mean()), *np.quantile(draws, (0.025, 0.975))]
            named = [cell for name in best for cell in (_short(means[name]), name)]
            own = [_short(means.get(name, np.nan)) for name in HEADLINES]
            cells.append([part, title, len(table), *own, *named, *map(_short, ends)])
    return cells


JUDGED: list[str | int] = [
    *("part", "quantity", "estimates", "covered", "families below 0.85", "families", "median half width of the logarithm"),
    *("reliable", "relative error where reliable", "relative error elsewhere"),
    *("worse is right", "said worse", "better is right", "said better", "much worse called worse"),
]


def judged(targets: Sequence[Target], quantity: Quantity) -> Table:
    """What the headline says of itself: its intervals, whether it is reliable, its verdict."""
    cells: Table = []
    for part, group in parts(targets).items():
        rate = (lambda value: 1 - value) if quantity == "accuracy" else (lambda value: value)
        actual, own = (np.array([rate(getattr(one, of)) for one in group]) for of in ("actual", "reference"))
        ends = np.array([sorted((rate(one.low), rate(one.high))) for one in group])
        error = np.array([one.error(HEADLINE) for one in group]) / np.maximum(own, 1e-4)
        reliable = np.array([HEADLINE in one.undoubted for one in group])
        worse, better = (np.array([one.verdict == verdict for one in group]) for verdict in ("worse", "better"))
        covered = np.array([one.covered for one in group])
        by_family = [np.mean([one.covered for one in of]) for of in grouped(group, lambda one: one.family).values()]
        half = np.median(np.log(np.maximum(ends[:, 1], 1e-6) / np.maximum(ends[:, 0], 1e-6))) / 2
        numbers = [reliable.mean(), _mean(error, reliable), _mean(error, ~reliable)]
        verdicts: list[str | int] = []
        for said, right in ((worse, actual > own), (better, actual < own)):
            verdicts += [_short(_mean(right, said)), int(said.sum())]
        called = _mean(worse, actual > MUCH_WORSE * own)
        below = sum(share < 0.85 for share in by_family)
        cells.append(
            [part, quantity, len(group), _short(covered.mean()), below, len(by_family), _short(half), *map(_short, numbers)]
            + [*verdicts, _short(called)]
        )
    return cells


DOUBTED: list[str | int] = [
    *("part", "quantity", "estimator", "without doubts"),
    *("error without doubts", "error with doubts", "relative error without doubts", "relative error with doubts"),
    *("error over trivial without doubts", "error over trivial with doubts"),
]


def doubted(targets: Sequence[Target], quantity: Quantity) -> Table:
    """The errors of each estimator's estimates without doubts and with doubts: does a flag tell good from bad?

    Relative errors are over the reference's own loss or error rate; the others are sums over those of the trivial estimate.
    """
    cells: Table = []
    for part, group in parts(targets).items():
        own = np.array([one.reference if quantity == "loss" else 1 - one.reference for one in group])
        trivial = np.array([one.error(TRIVIAL) for one in group])
        for name in estimators_of(group)[1:]:
            error, sure = (np.array([of(one) for one in group]) for of in _error_and_doubt(name))
            numbers = [_mean(of, chosen) for of in (error, error / np.maximum(own, 1e-4)) for chosen in (sure, ~sure)]
            numbers += [_mean(error, chosen) / _mean(trivial, chosen) for chosen in (sure, ~sure)]
            cells.append([part, quantity, name, *map(_short, [sure.mean(), *numbers])])
    return cells


def _error_and_doubt(name: str) -> tuple[Callable[[Target], float], Callable[[Target], bool]]:
    return lambda one: one.error(name), lambda one: name in one.undoubted


def _mean(values: np.ndarray, chosen: np.ndarray) -> float:
    return float(values[chosen].mean()) if chosen.any() else float("nan")


def _short(value: float) -> str:
    return f"{value:.3f}"


def write(path: Path, cells: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(cells)


if __name__ == "__main__":
    sys.exit(CLI(main))

"""Makes the tables and the figures of the benchmark from its CSV.

python example_projects/label_free_benchmark/report.py CSV FOLDER
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from fits import left_out_estimates
from pictures import plot_families, plot_truth
from ranking import family_errors, paired_difference, ranking
from references import RATIOS, against_train
from results import TRAIN, Row, read_rows, scored
from scores import score_cells

from lightning_tansens.record import TRIVIAL

#: Fits that differ in the sensitivity alone, or in sensitivity and active nodes.
PAIRS = (
    ("fit: entropy, sensitivity", "fit: entropy"),
    ("fit: entropy, confidence, sensitivity", "fit: entropy, confidence"),
    ("fit: all four", "fit: entropy, confidence"),
)


def main(csv_file: str, folder: str) -> None:
    """Writes tables as CSV and Markdown, and figures."""
    rows, target = read_rows(Path(csv_file)), Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rows += left_out_estimates(rows)
    text = []
    for quantity in ("loss", "accuracy"):
        of_quantity = scored(rows, quantity)
        text += [f"### {quantity}: errors over the trivial estimate's", "", *markdown(summary(of_quantity)), ""]
        for title, group in groups(of_quantity).items():
            text += [f"### {quantity}, {title}", "", *markdown(rank_cells(group)), ""]
        text += [f"### {quantity}: what sensitivity adds to a fit on known shifts", "", *markdown(added(of_quantity)), ""]
        text += [f"### {quantity}: without doubts and with them", "", *markdown(doubted(of_quantity)), ""]
        text += [f"### {quantity}: scorecard", "", *markdown(score_cells(of_quantity, quantity)), ""]
        plot_truth([row for row in of_quantity if not row.estimator.startswith("fit")], quantity, target / f"{quantity}.png")
        every = [row for row in rows if row.quantity == quantity and row.on[0] != TRAIN]
        own = [row for row in every if not row.estimator.startswith("fit")]
        plot_families(own, quantity, target / f"{quantity}_by_family.png")
        write(target / f"{quantity}_by_family.csv", by_family(every))
    text += ["### loss: errors against two references", "", *markdown(references(rows)), ""]
    (target / "tables.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


def groups(rows: Sequence[Row], regimes: bool = True) -> dict[str, list[Row]]:
    """All networks, those of each regime if wanted, those of each data set and architecture."""
    found: dict[str, list[Row]] = {"all networks": list(rows)}
    names: list[Callable[[Row], str]] = [lambda row: row.network[2].replace("_", " "), lambda row: " ".join(row.network[:2])]
    for name in names if regimes else names[1:]:
        for row in rows:
            found.setdefault(name(row), []).append(row)
    return found


def summary(rows: Sequence[Row]) -> list[list[str]]:
    """The errors over the trivial estimate's, of all networks and of those of each data set and architecture."""
    of_groups = {
        title: {rank.estimator: rank for rank in ranking(group)} for title, group in groups(rows, regimes=False).items()
    }
    whole, *others = of_groups.values()
    cells = [["estimator", *of_groups]]
    for name, rank in whole.items():
        ratio, low, high = rank.ratio
        ratios = [f"{found[name].ratio[0]:.2f}" if name in found else "" for found in others]
        cells.append([name, f"{ratio:.2f} ({low:.2f}–{high:.2f})", *ratios])
    absolute = [f"{found[TRIVIAL].mae:.3f}" for found in of_groups.values()]
    return [*cells, [f"MAE of {TRIVIAL}", *absolute]]


def rank_cells(rows: Sequence[Row]) -> list[list[str]]:
    cells = [["estimator", "MAE", f"MAE / {TRIVIAL} (95 %)", "best in", "no estimate"]]
    for rank in ranking(rows):
        ratio, low, high = rank.ratio
        missing = f"{rank.undefined:.0%}" if rank.undefined else ""
        cells.append([rank.estimator, f"{rank.mae:.4f}", f"{ratio:.2f} ({low:.2f}–{high:.2f})", f"{rank.best:.0%}", missing])
    return cells


def added(rows: Sequence[Row]) -> list[list[str]]:
    cells = [["networks", "fit", "against", "difference of MAE (95 %, over families)"]]
    for title, group in groups(rows).items():
        for first, second in PAIRS:
            difference, low, high = paired_difference(group, first, second)
            cells.append([title, first, second, f"{difference:+.4f} ({low:+.4f} to {high:+.4f})"])
    return cells


def doubted(rows: Sequence[Row]) -> list[list[str]]:
    """The errors of estimates without doubts and of those with doubts."""
    errors = ("MAE without doubts", "MAE with doubts", "MAE / trivial without doubts", "MAE / trivial with doubts")
    cells = [["estimator", "without doubts", *errors]]
    trivial = {(row.network, row.on): abs(row.estimate - row.actual) for row in rows if row.estimator == TRIVIAL}
    for name in dict.fromkeys(row.estimator for row in rows if row.trusted is not None):
        of_name = [row for row in rows if row.estimator == name]
        means, ratios = [], []
        for trusted in (True, False):
            chosen = [row for row in of_name if row.trusted is trusted]
            baseline = sum(trivial[row.network, row.on] for row in chosen)
            own = sum(abs(row.estimate - row.actual) for row in chosen)
            means.append(f"{own / len(chosen):.3f}" if chosen else "")
            ratios.append(f"{own / baseline:.2f}" if baseline else "")
        share = np.mean([bool(row.trusted) for row in of_name])
        cells.append([name, f"{share:.0%}", *means, *ratios])
    return cells


def by_family(rows: Sequence[Row]) -> list[list[str]]:
    """The mean absolute error of each estimator on each family."""
    errors = family_errors(rows)
    cells = [["estimator", *errors[TRIVIAL]]]
    for name, found in errors.items():
        cells.append([name, *("" if math.isnan(error) else f"{error:.4f}" for error in found.values())])
    return cells


def references(rows: Sequence[Row]) -> list[list[str]]:
    """The errors of the estimates of the loss against the held-out reference and against the training images, by regime."""
    regimes = list(dict.fromkeys(row.network[2] for row in rows))
    columns = [f"{regime.replace('_', ' ')}, reference {name}" for regime in regimes for name in ("held out", "train")]
    against = (scored(rows, "loss"), scored(against_train(rows), "loss"))
    cells = [["estimator", *columns]]
    for name in RATIOS:
        errors = [
            [abs(row.estimate - row.actual) for row in of if row.estimator == name and row.network[2] == regime]
            for regime in regimes
            for of in against
        ]
        cells.append([name, *(f"{np.mean(found):.4f}" if found else "" for found in errors)])
    return cells


def markdown(cells: Sequence[Sequence[str]]) -> list[str]:
    head, *others = ("| " + " | ".join(row) + " |" for row in cells)
    return [head, "|---" * len(cells[0]) + "|", *others]


def write(path: Path, cells: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(cells)


if __name__ == "__main__":
    main(*sys.argv[1:])

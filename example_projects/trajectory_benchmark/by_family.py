"""Prints mean absolute errors over the trivial ones by network and family, and how often the interval held the truth.

python example_projects/trajectory_benchmark/by_family.py --scores trajectory_scores --quantity loss --table regressions.csv
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
from jsonargparse import CLI

from lightning_tansens.record import HEADLINE, TRIVIAL


def by_family(
    scores: Path = Path("trajectory_scores"),
    quantity: Literal["loss", "accuracy"] = "loss",
    estimators: tuple[str, ...] = (HEADLINE, f"{HEADLINE}: same", f"{HEADLINE}: free"),
    table: Path = Path("by_family.csv"),
) -> None:
    """Writes and prints one row for each setting and family.

    Args:
        scores: The folder of ``score.py``; the splits of a network count as one setting.
        quantity: Which estimates.
        estimators: Their keys.
        table: Where the table goes.

    """
    errors: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(scores.glob("*.csv")):
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                if row["quantity"] != quantity:
                    continue
                found = errors[file.stem.partition("@")[0], row["family"]]
                actual = float(row["actual"])
                found[row["estimator"]].append(abs(float(row["estimate"]) - actual))
                if row["estimator"] == HEADLINE:
                    low, high = float(row["low"]), float(row["high"])
                    found["covered"].append(float(low <= actual <= high))
                    found["half width"].append(float(np.log(high / max(low, 1e-9)) / 2))
                    found["reliable"].append(float(row["undoubted"]))
    with table.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["network", "family", "targets", TRIVIAL, *estimators, "covered", "half width", "reliable"])
        for (setting, family), found in errors.items():
            own = float(np.mean(found[TRIVIAL]))
            ratios = [f"{np.mean(found[key]) / own:.3f}" for key in estimators]
            others = [f"{np.mean(found['covered']):.3f}", f"{np.median(found['half width']):.3f}"]
            writer.writerow(
                [setting, family, len(found["covered"]), f"{own:.4f}", *ratios, *others, f"{np.mean(found['reliable']):.3f}"]
            )
    print(table.read_text())


if __name__ == "__main__":
    sys.exit(CLI(by_family))

"""The package's scorecard over the benchmark: bias, correlations, coverage, and which network an estimator would choose."""

from __future__ import annotations

import math
from collections.abc import Sequence

from results import Row

from lightning_tansens.show.keys import ALL_SETS
from lightning_tansens.show.scorecard import Scorecard

#: Heading and digits of what is shown of a score.
COLUMNS = {"MAE": 4, "bias": 4, "RMSE": 4, "Pearson": 2, "Spearman": 2, "coverage": 2, "regret": 4, "regret / trivial": 2}


def score_cells(rows: Sequence[Row], quantity: str) -> list[list[str]]:
    """Scores the estimators of one quantity over all sets; on each set they choose among all networks of its data set."""
    scorecard = Scorecard()
    names = list(dict.fromkeys(row.estimator for row in rows))
    networks = list(dict.fromkeys(row.network for row in rows))
    points = {(row.network, row.on, row.estimator): row for row in rows}
    for network, on in dict.fromkeys((row.network, row.on) for row in rows):
        known = next(row for name in names if (row := points.get((network, on, name))) is not None)
        for name in names:
            row = points.get((network, on, name))
            estimate, stderr = (math.nan, None) if row is None else (row.estimate, row.stderr)
            on_name = f"{network[0]} {on[0]} {on[1]}"
            scorecard.update(name, quantity, on_name, networks.index(network), estimate, known.actual, stderr)
    scores = [row for row in scorecard.to_rows() if row["set"] == ALL_SETS]
    cells = [["estimator", *COLUMNS]]
    for score in sorted(scores, key=lambda score: score["RMSE"]):
        numbers = [(score[heading], digits) for heading, digits in COLUMNS.items()]
        cells.append([score["estimator"], *("" if number is None else f"{number:.{digits}f}" for number, digits in numbers)])
    return cells

"""Scores NannyML's own DLE on the regressions of this benchmark, next to the package's estimates of the loss.

pip install nannyml lightgbm
python example_projects/trajectory_benchmark/nannyml_regressions.py \
    --config example_projects/trajectory_benchmark/regressions.yaml --outputs regressions --scores regression_scores \
    --employment employment.npz --california california.npz --table nannyml_regressions.csv
"""

from __future__ import annotations

import csv
import os
import sys
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")  # before the import; it reports each call otherwise

import nannyml
import numpy as np
import pandas as pd
from fitting import Run
from jsonargparse import CLI
from numpy.typing import NDArray
from score import MOMENTS
from sets import Data
from snapshots import NetworkOutputs, SetInfo
from table_sets import table_data

NAME = "nannyml_dle"


def compare(
    runs: list[Run],
    outputs: Path = Path("trajectory_outputs"),
    scores: Path = Path("trajectory_scores"),
    employment: Path | None = None,
    california: Path | None = None,
    table: Path = Path("nannyml_regressions.csv"),
) -> None:
    """Writes and prints the mean absolute errors over the trivial ones, by network and family.

    Args:
        runs: The matrix.
        outputs: The folder with one file for each network.
        scores: The folder of ``score.py``.
        employment: The file of persons.
        california: The file of districts.
        table: Where the table goes.

    """
    errors: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in runs:
        network = NetworkOutputs.load(outputs / f"{run.name}.npz")
        data = table_data(run.data, employment, california, run.split, run.train_samples, run.families)
        known = read(scores / f"{run.name}.csv")
        reference = next(network.of_role("reference"))
        for moment in [round(share * len(network.epochs)) - 1 for share in MOMENTS]:
            fitted = fit(frame(network, data, reference, moment, targets=True))
            for one in network.of_role("target"):
                inputs = frame(network, data, one, moment)
                others = known[str(moment), one.name]
                estimates = {NAME: loss(fitted, inputs), **others}
                actual = estimates.pop("actual")
                for key, estimate in estimates.items():
                    errors[run.name.partition("@")[0], one.family, key].append(abs(estimate - actual))
    with table.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["network", "family", "targets", "trivial", "estimate", NAME])
        for setting, family in dict.fromkeys(place[:2] for place in errors):
            own = float(np.mean(errors[setting, family, "trivial"]))
            ratios = [f"{np.mean(errors[setting, family, key]) / own:.3f}" for key in ("estimate", NAME)]
            writer.writerow([setting, family, len(errors[setting, family, NAME]), f"{own:.4f}", *ratios])
    print(table.read_text())


def read(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Returns the estimates of the loss and the truth, by moment and set."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["quantity"] == "loss" and row["estimator"] in ("trivial", "estimate"):
                values = found[row["moment"], row["set"]]
                values[row["estimator"]], values["actual"] = float(row["estimate"]), float(row["actual"])
    return found


def frame(network: NetworkOutputs, data: Data, one: SetInfo, moment: int, targets: bool = False) -> pd.DataFrame:
    """The inputs of a set and what the network says of them, as NannyML takes it; the targets of the reference alone."""
    source = one.pool or one.name
    chosen: NDArray[np.int64] | slice = network.rows[one.name] if one.pool else slice(None)
    inputs = data.inputs[source].numpy()[chosen]
    columns = {f"x{number}": inputs[:, number] for number in range(inputs.shape[1])}
    columns["predicted"] = network.outputs[source][moment, chosen, 0].astype(float)
    if targets:
        columns["target"] = network.labels[source][chosen]
    return pd.DataFrame(columns)


def fit(reference: pd.DataFrame) -> nannyml.DLE:
    """DLE fitted to the reference, as one chunk."""
    features = [name for name in reference.columns if name.startswith("x")]
    estimator = nannyml.DLE(
        feature_column_names=features, y_pred="predicted", y_true="target", metrics=["mse"], chunk_number=1
    )
    return estimator.fit(reference)


def loss(fitted: nannyml.DLE, target: pd.DataFrame) -> float:
    """NannyML's estimate for a set as one chunk."""
    result = fitted.estimate(target).filter(period="analysis").to_df()
    return float(result["mse"]["value"].iloc[0])


if __name__ == "__main__":
    sys.exit(CLI(compare))

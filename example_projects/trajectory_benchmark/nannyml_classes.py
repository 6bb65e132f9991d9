"""Scores NannyML's own CBPE on the tables of this benchmark, next to the package's estimates of the accuracy.

pip install nannyml
python example_projects/trajectory_benchmark/nannyml_classes.py --outputs outputs --scores scores --table nannyml.csv
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
from jsonargparse import CLI
from score import MOMENTS
from snapshots import NetworkOutputs, SetInfo

from lightning_tansens.estimators import Outputs

#: What it is compared with, by the keys of ``score.py``.
COMPARED = ("trivial", "cbpe", "estimate")

NAME = "nannyml_cbpe"


def compare(
    outputs: Path = Path("trajectory_outputs"),
    scores: Path = Path("trajectory_scores"),
    table: Path = Path("nannyml.csv"),
) -> None:
    """Writes and prints the mean absolute errors over the trivial ones, by network and family.

    Args:
        outputs: The folder with one file for each network; those of two classes are taken.
        scores: The folder of ``score.py``.
        table: Where the table goes.

    """
    errors: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for file in sorted(outputs.glob("*.npz")):
        network = NetworkOutputs.load(file)
        reference = next(network.of_role("reference"))
        if network.outputs[reference.name].shape[2] != 2:
            continue
        setting = file.stem.partition("@")[0]
        known = read(scores / f"{file.stem}.csv")
        for moment in [round(share * len(network.epochs)) - 1 for share in MOMENTS]:
            fitted = fit(measured(network, reference, moment))
            for one in network.of_role("target"):
                target = measured(network, one, moment)
                others = known[str(moment), one.name]
                for key, estimate in {NAME: accuracy(fitted, target), **others}.items():
                    errors[setting, one.family, key].append(abs(estimate - float(target.correct.mean())))
    means = {place: float(np.mean(found)) for place, found in errors.items()}
    keys = [*COMPARED[1:], NAME]
    with table.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["network", "family", "targets", "trivial", *keys])
        for setting, family in dict.fromkeys(place[:2] for place in means):
            own = means[setting, family, "trivial"]
            count = len(errors[setting, family, NAME])
            ratios = [f"{means[setting, family, key] / own:.3f}" for key in keys]
            writer.writerow([setting, family, count, f"{own:.4f}", *ratios])
    print(table.read_text())


def read(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Returns the estimates of the accuracy, by moment and set."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["quantity"] == "accuracy" and row["estimator"] in COMPARED:
                found[row["moment"], row["set"]][row["estimator"]] = float(row["estimate"])
    return found


def measured(network: NetworkOutputs, one: SetInfo, moment: int) -> Outputs:
    """The outputs of a set today, with labels."""
    source = one.pool or one.name
    chosen = network.rows[one.name] if one.pool else slice(None)
    return Outputs.of(network.outputs[source][moment, chosen], network.labels[source][chosen])


def frame(outputs: Outputs, labels: bool) -> pd.DataFrame:
    """A table as NannyML takes it."""
    columns = {"probability": outputs.probabilities[:, 1], "predicted": outputs.predictions}
    return pd.DataFrame({**columns, "label": outputs.labels} if labels else columns)


def fit(reference: Outputs) -> nannyml.CBPE:
    """CBPE fitted to the reference, as one chunk."""
    estimator = nannyml.CBPE(
        y_pred_proba="probability",
        y_pred="predicted",
        y_true="label",
        metrics=["accuracy"],
        problem_type="classification_binary",
        chunk_number=1,
    )
    return estimator.fit(frame(reference, labels=True))


def accuracy(fitted: nannyml.CBPE, target: Outputs) -> float:
    """NannyML's estimate for a set as one chunk; its labels are not handed on."""
    result = fitted.estimate(frame(target, labels=False)).filter(period="analysis").to_df()
    return float(result["accuracy"]["value"].iloc[0])


if __name__ == "__main__":
    sys.exit(CLI(compare))

"""Table 1 of Daróczy (2022): the mean absolute error of the estimates over the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from run_histories import PAPER_ESTIMATES, Row

from lightning_tansens.estimators.ratio import AccuracyForm, scale_accuracy, scale_loss
from lightning_tansens.functional import log_psi
from lightning_tansens.show.correlations import correlations

#: The authors' code adds up batch means and divides by the number of samples; the paper's losses are by so much too small.
BATCH_SIZE = 64

#: The paper's MAE: of the cross-entropy in its own unit, and of the accuracy.
PAPER_ERRORS = {
    "empirical": (4.2e-4, 1.1e-2),
    "layer_norm": (5.3e-4, 9.2e-3),
    "active_nodes": (7.7e-4, 9.8e-3),
    "input_output": (2.7e-3, 7.3e-2),
    "spectral_norm": (1.2e-3, 3.3e-2),
    "fisher_rao": (6.3e-4, 1.5e-2),
}


@dataclass(frozen=True)
class Estimate:
    """A row of the table.

    Attributes:
        title: What the row is called.
        log_ratio: Takes a row of a history; returns the logarithm of the factor for the training loss, or None where the
            factor is not defined.

    """

    title: str
    log_ratio: Callable[[Row], float | None]


def logged(key: str) -> Callable[[Row], float | None]:
    """Takes the factor from the estimate that the monitor has logged: the estimated loss over the training loss."""

    def log_ratio(row: Row) -> float | None:
        loss = row.get(f"test_loss/{key}")
        if loss is None or row["train_loss"] == 0:
            return None
        return math.log(loss / row["train_loss"]) if loss > 0 else -math.inf

    return log_ratio


def notebook_active_nodes(row: Row) -> float:
    """Takes Eq. 7 with the depth that the authors' notebook passes: k = 4 for a network of five weight layers."""
    moments = [(row[f"active_nodes_mean/{name}"], row[f"active_nodes_std/{name}"]) for name in ("test", "train")]
    test, train = (log_psi(4, mean, std) for mean, std in moments)
    return test - train


ESTIMATES = {
    "trivial": Estimate("trivial: the training set's own", lambda row: 0.0),
    **{key: Estimate(title, logged(key)) for key, title in PAPER_ESTIMATES.items()},
    "layer_norm_linear": Estimate("layer-wise norm (Eq. 6 as printed)", logged("layer_norm_linear")),
    "region": Estimate("regions (Eqs. 4–5 in Eq. 8)", logged("region")),
    "active_nodes_notebook": Estimate("notebook's Eq. 7, k = 4", notebook_active_nodes),
    "region_notebook": Estimate("notebook's Eq. 8, regions", logged("region_notebook")),
}


def loss_error(history: list[Row], estimate: Estimate) -> float:
    """Computes the mean over the epochs of |estimated − true test loss|, in nats, where the estimate is defined."""
    return _mean_error(history, estimate, lambda ratio, row: scale_loss(ratio, row["train_loss"]), "test_loss/actual")


def accuracy_error(history: list[Row], estimate: Estimate, form: AccuracyForm = "ratio") -> float:
    """Computes the mean over the epochs of |estimated − true test accuracy|; the paper's form is "ratio"."""

    def value(ratio: float, row: Row) -> float:
        return scale_accuracy(ratio, row["train_accuracy"], form)

    return _mean_error(history, estimate, value, "test_accuracy/actual")


def _mean_error(history: list[Row], estimate: Estimate, value: Callable[[float, Row], float], actual: str) -> float:
    factors = [(estimate.log_ratio(row), row) for row in history]
    errors = [abs(value(ratio, row) - row[actual]) for ratio, row in factors if ratio is not None]
    return sum(errors) / len(errors) if errors else math.nan


def gap_correlation(history: list[Row], key: str) -> float:
    """Computes Pearson's correlation over the epochs of a measure, on the test set, with test loss − training loss."""
    return _pearson(_beside_the_gap(history, key))


def change_correlation(history: list[Row], key: str) -> float:
    """Computes the same of the changes from epoch to epoch, in which a common trend plays no part."""
    known = _beside_the_gap(history, key)
    return _pearson([(later[0] - earlier[0], later[1] - earlier[1]) for earlier, later in pairwise(known)])


def _pearson(points: list[tuple[float, float]]) -> float:
    return correlations(*zip(*points)).get("pearson", math.nan) if points else math.nan


def _beside_the_gap(history: list[Row], key: str) -> list[tuple[float, float]]:
    points = [(row.get(f"{key}/test", row.get(key)), row["test_loss/actual"] - row["train_loss"]) for row in history]
    return [(measure, gap) for measure, gap in points if measure is not None]


def table(histories: dict[str, list[Row]]) -> list[dict[str, float | str]]:
    """Makes one row for each run and estimate, with the paper's figures in nats beside them."""
    rows: list[dict[str, float | str]] = []
    for run, history in histories.items():
        for key, estimate in ESTIMATES.items():
            paper_loss, paper_accuracy = PAPER_ERRORS.get(key, ("", ""))
            rows.append(
                {
                    "run": run,
                    "estimate": key,
                    "epochs": len(history),
                    "loss_mae": loss_error(history, estimate),
                    "loss_mae_from_epoch_2": loss_error(history[1:], estimate),
                    "accuracy_mae_ratio": accuracy_error(history, estimate),
                    "accuracy_mae_error": accuracy_error(history, estimate, "error"),
                    "gap_correlation": gap_correlation(history, key),
                    "change_correlation": change_correlation(history, key),
                    "paper_loss_mae": paper_loss and BATCH_SIZE * paper_loss,
                    "paper_accuracy_mae": paper_accuracy,
                }
            )
    return rows


def markdown(rows: list[dict[str, float | str]], column: str, paper_column: str | None = None) -> str:
    """Makes a table with a line for each estimate and a column for each run, and one for the paper."""
    runs = list(dict.fromkeys(str(row["run"]) for row in rows))
    cells = {(row["run"], row["estimate"]): row for row in rows}
    heads = ["", *(["paper"] if paper_column else []), *runs]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for key, estimate in ESTIMATES.items():
        mine = [cells[run, key] for run in runs]
        columns = ([paper_column] if paper_column else []) + [column] * len(runs)
        numbers = [_cell(row[name]) for row, name in zip([mine[0]] * bool(paper_column) + mine, columns, strict=True)]
        lines.append("| " + " | ".join([estimate.title, *numbers]) + " |")
    return "\n".join(lines)


def _cell(number: float | str) -> str:
    return f"{number:.3f}" if isinstance(number, float) and math.isfinite(number) else "–"

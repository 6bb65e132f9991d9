"""Makes one figure or table of Daróczy (2022) from what the runs have written.

python example_projects/tangent_sensitivity_paper/figures.py {figure1,figure2,figure3,table1} [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import bound_curves
import estimate_errors
import matplotlib.pyplot as plt
import torch
from histograms import plot_histograms
from run_histories import PAPER_ESTIMATES, RUNS, Row, finished_runs, write_rows

COLOURS = dict(
    zip(PAPER_ESTIMATES, ("tab:blue", "tab:green", "tab:orange", "tab:purple", "tab:brown", "tab:pink"), strict=True)
)


def draw_figure1(folder: Path) -> None:
    """Draws the histograms of active hidden units on training and test images, one run beside the other."""
    names = [name for name in RUNS if (folder / f"{name}_active_nodes.csv").exists()]
    if not names:
        raise FileNotFoundError(
            f"{folder}: expected the counts of a run, RUN_active_nodes.csv, but found none; "
            "run main.py fit --history_csv first"
        )
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.6), layout="constrained", squeeze=False)
    rows: list[dict[str, float | str]] = []
    for axis, name in zip(axes.flat, names, strict=True):
        with (folder / f"{name}_active_nodes.csv").open(newline="") as stream:
            counts = [{key: int(number) for key, number in row.items()} for row in csv.DictReader(stream)]
        active = torch.tensor([row["active"] for row in counts])
        sets = {part: active.repeat_interleave(torch.tensor([row[part] for row in counts])) for part in ("train", "test")}
        for part, units in sets.items():
            mean, std = float(units.double().mean()), float(units.double().std(correction=0))
            rows.append({"run": name, "set": part, "images": len(units), "mean": mean, "std": std})
        plot_histograms(sets, name="active hidden units of 400", ax=axis)
        axis.set_title(RUNS[name])
        axis.set_ylim(0, 1.35 * axis.get_ylim()[1])  # room for the legend
        axis.legend(loc="upper center")
        axis.set_ylabel("")
    axes[0, 0].set_ylabel("share of images in a bin")
    write_rows(folder / "figure1.csv", rows)
    figure.savefig(folder / "figure1.png", dpi=110)


def draw_figure3(folder: Path) -> None:
    """Draws true and estimated test loss and accuracy over the training set's, one picture a run, one point an epoch."""
    for name, history in finished_runs(folder).items():
        figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
        for axis, quantity in zip(axes, ("loss", "accuracy"), strict=True):
            _draw_estimates(axis, history, quantity)
        axes[0].invert_xaxis()  # training goes from left to right in both
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(RUNS[name])
        figure.savefig(folder / f"figure3_{name}.png", dpi=110)
        plt.close(figure)


def _draw_estimates(axis: plt.Axes, history: list[Row], quantity: str) -> None:
    train = [row[f"train_{quantity}"] for row in history]
    actual = [row[f"test_{quantity}/actual"] for row in history]
    axis.plot(sorted(train), sorted(train), "--", color="tab:red", label="trivial: the training set's own")
    for key, title in PAPER_ESTIMATES.items():
        rows = [row for row in history if f"test_{quantity}/{key}" in row]
        estimates = [row[f"test_{quantity}/{key}"] for row in rows]
        axis.plot([row[f"train_{quantity}"] for row in rows], estimates, ".", color=COLOURS[key], label=title)
    axis.plot(train, actual, "o", color="black", markersize=4, label="true")
    low, high = min(*train, *actual), max(*train, *actual)
    axis.set_ylim(low - 0.2 * (high - low), high + 0.3 * (high - low))  # the norms' first estimates are far outside
    axis.set_xlabel(f"training {quantity}")
    axis.set_ylabel(f"test {quantity}")
    axis.grid(alpha=0.3)


def make_table1(folder: Path) -> None:
    """Writes Table 1 as CSV and prints it for a page."""
    histories = finished_runs(folder)
    rows = estimate_errors.table(histories)
    write_rows(folder / "table1.csv", rows)
    for title, *columns in (
        ("Loss, in nats", "loss_mae", "paper_loss_mae"),
        ("Loss, without the first epoch", "loss_mae_from_epoch_2"),
        ("Accuracy, scaled as in the paper", "accuracy_mae_ratio", "paper_accuracy_mae"),
        ("Accuracy, by the error rate", "accuracy_mae_error"),
        ("Pearson correlation of the measure with the gap", "gap_correlation"),
        ("Pearson correlation of their changes from epoch to epoch", "change_correlation"),
    ):
        print(f"{title}:\n\n{estimate_errors.markdown(rows, *columns)}\n")
    clock = {name: estimate_errors.gap_correlation(history, "epoch") for name, history in histories.items()}
    print("Pearson correlation of the number of the epoch with the gap:", {name: f"{r:.3f}" for name, r in clock.items()})


MAKE = {"figure1": draw_figure1, "figure2": bound_curves.draw, "figure3": draw_figure3, "table1": make_table1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=MAKE)
    parser.add_argument("--folder", type=Path, default=Path("docs/results/tangent_sensitivity_paper"))
    args = parser.parse_args()
    MAKE[args.what](args.folder)


if __name__ == "__main__":
    main()

"""Figures and the table of correlations from the recorded runs.

Commands::

    python figures.py keep HISTORY.csv RESULT.csv        # keeps of a history what the figures need
    python figures.py figure RESULT.csv FIGURE.png       # one network's curves
    python figures.py table RESULT.csv ... TABLE.csv     # correlations of all networks; also printed as markdown

"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from lightning_tansens.show.correlations import correlations

Series = NDArray[np.float64]

LOSSES = ("tansens/train_loss", "train_loss_with_dropout", "tansens/test_loss/actual")
SENSITIVITY = "tansens/class_sensitivity/test"
CLASS_LOSS = "tansens/class_loss"


class Run:
    """One network's history.

    Attributes:
        name: The file's name without its suffix.
        epochs: 1, 2, …, shape (T,).
        train: The training loss in eval mode, shape (T,).
        dropout: The training loss with dropout on, averaged over the epoch, shape (T,).
        test: The test loss, shape (T,).
        outputs: Mean ‖S_{e_c}‖_F over the test samples, shape (T, C).
        pairs: The same over the test samples of class k, shape (T, C, C), classes first.
        class_gaps: |train − test| of each class's loss, shape (T, C).

    """

    def __init__(self, path: Path) -> None:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.name = path.stem
        self.epochs = _series(rows, "epoch") + 1
        self.train, self.dropout, self.test = (_series(rows, key) for key in LOSSES)
        classes = range(sum(key.startswith(f"{SENSITIVITY}/all/") for key in rows[0]))
        self.outputs = np.stack([_series(rows, f"{SENSITIVITY}/all/{c}") for c in classes], 1)
        self.pairs = np.stack([np.stack([_series(rows, f"{SENSITIVITY}/{k}/{c}") for c in classes], 1) for k in classes], 1)
        by_class = [[_series(rows, f"{CLASS_LOSS}/{name}/{k}") for k in classes] for name in ("train", "test")]
        self.class_gaps = np.abs(np.stack(by_class[0], 1) - np.stack(by_class[1], 1))

    @property
    def gaps(self) -> dict[str, Series]:
        """The generalisation gap, with dropout off and as the paper takes it."""
        return {"eval": np.abs(self.train - self.test), "dropout": np.abs(self.dropout - self.test)}


def _series(rows: Sequence[dict[str, str]], key: str) -> Series:
    return np.array([float(row[key]) for row in rows])


def pearson(x: Series, y: Series) -> float:
    """Pearson's coefficient, nan where it is not defined."""
    return correlations(x.tolist(), y.tolist()).get("pearson", np.nan)


def keep(history: Path, result: Path) -> None:
    """Keeps the losses, the classes' losses and the sensitivities on the test set."""
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [key for key in rows[0] if key in ("epoch", *LOSSES) or key.startswith((f"{SENSITIVITY}/", f"{CLASS_LOSS}/"))]
    result.parent.mkdir(parents=True, exist_ok=True)
    with result.open("w", newline="") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({key: row[key] if key == "epoch" else f"{float(row[key]):.6g}" for key in kept} for row in rows)


def draw(run: Run, path: Path) -> None:
    """Six panels: losses, gap, outputs, class gaps, the paper's curves by class, correlations of the pairs."""
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    figure.suptitle(f"{run.name}: three hidden layers, half squared loss, Adam")
    losses, gap, outputs, class_gaps, by_class, pairs = axes.flat
    losses.plot(run.epochs, run.train, label="train, dropout off")
    losses.plot(run.epochs, run.dropout, "--", label="train, dropout on")
    losses.plot(run.epochs, run.test, label="test")
    losses.set(title="Loss", ylabel="half squared error")
    losses.legend()

    mean = run.outputs.mean(1)
    for name, values in run.gaps.items():
        (line,) = gap.plot(run.epochs, values, label=f"gap, dropout {'off' if name == 'eval' else 'on in training'}")
        scaled = values.min() + (mean - mean.min()) / max(np.ptp(mean), 1e-30) * np.ptp(values)
        label = f"mean sensitivity, scaled to it (r = {pearson(values, mean):.2f})"
        gap.plot(run.epochs, scaled, ":", color=line.get_color(), label=label)
    gap.set(title="|train loss − test loss| and the sensitivity")
    gap.legend(fontsize=8)

    colours = plt.colormaps["tab10"].colors
    target = run.gaps["eval"]
    for c, colour in enumerate(colours[: run.outputs.shape[1]]):
        label = f"{c} (r = {pearson(target, run.outputs[:, c]):.2f})"
        outputs.plot(run.epochs, run.outputs[:, c], color=colour, label=label)
        class_gaps.plot(run.epochs, run.class_gaps[:, c], color=colour, label=str(c))
        of_class = run.pairs[:, c].mean(1)
        by_class.plot(run.epochs, of_class, color=colour, label=f"{c} (r = {pearson(target, of_class):.2f})")
    outputs.set(title="Mean ‖S‖ of each output, r with the gap")
    outputs.legend(fontsize=7, ncols=2)
    class_gaps.set(title="Gap of each class")
    by_class.set(title="Mean ‖S‖ over outputs on each class (the published curves)")
    by_class.legend(fontsize=7, ncols=2)
    for axis in axes.flat[:5]:
        axis.set_xlabel("epoch")

    image = pairs.imshow(pair_correlations(run), vmin=-1, vmax=1, cmap="RdBu_r")
    pairs.set(title="r of class k's gap with ‖S‖ of output c on class k", xlabel="output c", ylabel="class k")
    figure.colorbar(image, ax=pairs)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def pair_correlations(run: Run) -> Series:
    """Pearson's coefficient of class k's gap with the sensitivity of output c on class k, shape (C, C)."""
    classes = range(run.outputs.shape[1])
    return np.array([[pearson(run.class_gaps[:, k], run.pairs[:, k, c]) for c in classes] for k in classes])


def summarise(run: Run) -> dict[str, str]:
    """One row of the table."""
    mean, row = run.outputs.mean(1), {"network": run.name, "epochs": str(len(run.epochs))}
    for name, gap in run.gaps.items():
        of_outputs = [pearson(gap, output) for output in run.outputs.T]
        row[f"{name}: mean"] = f"{pearson(gap, mean):.3f}"
        row[f"{name}: Spearman"] = f"{correlations(gap.tolist(), mean.tolist()).get('spearman', np.nan):.3f}"
        # what any growing series would reach, and what is left when the trend is taken out
        row[f"{name}: epoch number"] = f"{pearson(gap, run.epochs):.3f}"
        row[f"{name}: changes"] = f"{pearson(np.diff(gap), np.diff(mean)):.3f}"
        row[f"{name}: outputs"] = f"{min(of_outputs):.3f} to {max(of_outputs):.3f}"
    matrix = pair_correlations(run)
    matching = np.eye(len(matrix), dtype=bool)
    row["pairs: matching"] = f"{matrix[matching].mean():.3f}"
    row["pairs: others"] = f"{matrix[~matching].mean():.3f}"
    return row


def tabulate(runs: Sequence[Run], path: Path) -> str:
    """Writes the correlations of all networks as CSV and returns them as a markdown table."""
    rows = [summarise(run) for run in runs]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Runs one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("keep", "figure", "table"))
    parser.add_argument("inputs", type=Path, nargs="+", help="CSV files")
    parser.add_argument("output", type=Path, help="the file to write")
    arguments = parser.parse_args()
    if arguments.command == "keep":
        keep(arguments.inputs[0], arguments.output)
    elif arguments.command == "figure":
        draw(Run(arguments.inputs[0]), arguments.output)
    else:
        print(tabulate([Run(path) for path in arguments.inputs], arguments.output))


if __name__ == "__main__":
    main()

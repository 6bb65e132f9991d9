"""Scores the estimators of the package on the outputs that main.py has written, and writes one CSV for each network.

python example_projects/trajectory_benchmark/score.py --outputs trajectory_outputs --scores trajectory_scores

Networks that have a CSV already are left out.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jsonargparse import CLI
from numpy.typing import NDArray
from snapshots import NetworkOutputs, SetInfo

from lightning_tansens.estimators import Estimator, Headline, Outputs, SetSummary, default_estimators, estimate_set
from lightning_tansens.estimators.headline.copies import ROWS, SAMPLES
from lightning_tansens.metrics.uncertainty import Influence
from lightning_tansens.record import HEADLINE

COLUMNS = (
    *("network", "moment", "set", "family", "samples", "quantity", "estimator"),
    *("estimate", "actual", "reference", "low", "high", "undoubted", "verdict"),
)

#: When a network is scored, as a share of its snapshots.
MOMENTS = (0.35, 0.7, 1.0)

#: The headline with what a user may state of the class shares; "auto" is among the default estimators.
STATED = ("same", "free")

Row = list[str | int | float]


def score(
    outputs: Path = Path("trajectory_outputs"),
    scores: Path = Path("trajectory_scores"),
    networks: list[str] | None = None,
    estimators: list[str] | None = None,
    copied: int | None = None,
) -> None:
    """Scores every network that has none yet.

    Args:
        outputs: The folder with one file for each network.
        scores: Where the CSVs are written.
        networks: Which networks; None for all.
        estimators: The keys of those to score; None for all. The trivial one and the headline's variants are always there.
        copied: How many samples of the reference its copies have; None for as many as a monitor's.

    """
    score_files(outputs, scores, networks, lambda network: score_network(network, estimators, copied))


def score_files(
    outputs: Path, scores: Path, networks: list[str] | None, score_one: Callable[[NetworkOutputs], Iterator[Row]]
) -> None:
    """Writes a CSV for each network that has none yet."""
    scores.mkdir(parents=True, exist_ok=True)
    for file in sorted(outputs.glob("*.npz")):
        target = scores / f"{file.stem}.csv"
        if target.exists() or (networks is not None and file.stem not in networks):
            continue
        part = target.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(COLUMNS)
            writer.writerows([file.stem, *row] for row in score_one(NetworkOutputs.load(file)))
        os.replace(part, target)
        print(target, flush=True)


def score_network(network: NetworkOutputs, keys: list[str] | None = None, copied: int | None = None) -> Iterator[Row]:
    """Yields a row for each moment, set, quantity and estimator; labels of a target serve the comparison alone.

    Args:
        network: Its outputs.
        keys: Of the estimators to score; None for all.
        copied: How many samples of the reference its copies have; None for as many as a monitor's.

    """
    chosen = [one for one in default_estimators() if one.key == HEADLINE or keys is None or one.key in keys]
    variants: dict[str, list[Estimator]] = {"": chosen, **{f": {stated}": [Headline(stated)] for stated in STATED}}
    moments = [round(share * len(network.epochs)) - 1 for share in MOMENTS]
    references = references_of(network, moments, copied)
    for one in network.of_role("target"):
        for moment, target in labelled(network, one, moments).items():
            for suffix, of_variant in variants.items():
                for row in rows_of(of_variant, target, references[moment], suffix):
                    yield [moment, one.name, one.family, target.samples, *row]


def references_of(network: NetworkOutputs, moments: list[int], copied: int | None = None) -> dict[int, SetSummary]:
    """Returns the reference with its copies, by snapshot; the arguments are those of :func:`score_network`."""
    if copied is None:
        copied = ROWS if network.is_table else SAMPLES
    copies = [
        {moment: replace(found, strong=one.family.startswith("strong")) for moment, found in of_copy.items()}
        for one in network.of_role("copy")
        for of_copy in [labelled(network, one, moments, copied)]
    ]
    return {
        moment: replace(reference, copies=tuple(copy[moment] for copy in copies))
        for moment, reference in labelled(network, next(network.of_role("reference")), moments).items()
    }


def labelled(network: NetworkOutputs, one: SetInfo, moments: list[int], first: int | None = None) -> dict[int, SetSummary]:
    """Returns what the monitor would have found on a labelled set or its first samples, by snapshot."""
    numbers = network.numbers(one)
    return {
        moment: summary(one.name, outputs) if numbers is None else summary_of_numbers(one.name, outputs, numbers[:first])
        for moment, outputs in network.measured(one, moments, first).items()
    }


def summary_of_numbers(name: str, outputs: Outputs, targets: NDArray[np.floating]) -> SetSummary:
    """The same of a regression, with squared errors."""
    losses = np.square(outputs.outputs[:, 0] - targets.astype(np.float64))
    influence = Influence(torch.from_numpy(losses / losses.mean() - 1), torch.arange(len(losses)))
    return SetSummary(name, len(outputs), outputs=outputs, loss=float(losses.mean()), loss_influence=influence)


def summary(name: str, outputs: Outputs) -> SetSummary:
    loss, accuracy = float(outputs.losses.mean()), float(outputs.correct.mean())
    wrong = float(len(outputs) - outputs.correct.sum())
    return SetSummary(name, len(outputs), outputs=outputs, loss=loss, accuracy=accuracy, wrong=wrong)


def rows_of(estimators: list[Estimator], target: SetSummary, reference: SetSummary, suffix: str) -> Iterator[Row]:
    """Yields the quantity, the estimator and its numbers, in the order of the columns."""
    found, missing = estimate_set(estimators, target, reference)
    for key, why in missing.items():
        print(f"{target.name}: no {key}{suffix}, because {why}", file=sys.stderr)
    for quantity, by_key in found.items():
        actual, own = (getattr(one, quantity) for one in (target, reference))
        for key, estimate in by_key.items():
            if suffix and key != HEADLINE:
                continue  # the trivial estimate again
            ends = ["" if end is None else f"{end:.5g}" for end in (estimate.low, estimate.high)]
            numbers = [f"{value:.5g}" for value in (estimate.value, actual, own)]
            yield [quantity, key + suffix, *numbers, *ends, int(not estimate.doubts), estimate.verdict or ""]


if __name__ == "__main__":
    sys.exit(CLI(score))

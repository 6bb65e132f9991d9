"""What the papers' measures add to the headline after the last epoch: scores it with them and without them.

python example_projects/trajectory_benchmark/with_measures.py --outputs trajectory_outputs --scores scores_with_measures

Pass the scores to report.py, in whose tables the headline's variants stand where other estimators stand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
from jsonargparse import CLI
from numpy.typing import NDArray
from score import Row, labelled, references_of, rows_of, score_files
from snapshots import NetworkOutputs

from lightning_tansens.estimators import Headline, Outputs, SetSummary
from lightning_tansens.estimators.headline import fit
from lightning_tansens.estimators.headline.calibration import Calibration, Points
from lightning_tansens.estimators.headline.resemblance import Views
from lightning_tansens.estimators.headline.samples import Samples

#: Added to a measure's numbers, which are shares of their mean on the reference, before their logarithm is taken.
LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class MeasuredSamples(Samples):
    """Samples with the K measures of each, over their means on the reference; they travel in ``Outputs.features``."""

    measures: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, outputs: Outputs, temperature: float, views: Views | None = None) -> MeasuredSamples:
        return replace(super().of(outputs, temperature, views), measures=outputs.features)  # type: ignore[arg-type]


class WithRegressors(MeasuredSamples):
    """The second head is linear in the measures' logarithms as well."""

    @cached_property
    def features(self) -> NDArray[np.float64]:
        return np.column_stack([super().features, np.log(self.measures + LEAST)])


class WithCandidates(Calibration):
    """The first head may weigh the ratios of the measures' means (Eqs. 8 and 9 of Daróczy 2022)."""

    def __init__(self, samples: MeasuredSamples, *args: NDArray[np.float64]) -> None:
        self._means = samples.measures.mean(0)
        super().__init__(samples, *args)

    def points(self, samples: MeasuredSamples, weights: NDArray[np.float64]) -> Points:
        found = super().points(samples, weights)
        ratio = np.log((weights @ samples.measures + LEAST) / (self._means + LEAST))
        return replace(found, candidates=tuple(np.column_stack([of, ratio]) for of in found.candidates))


#: What the headline is made of, by the suffix of its name: each sample's numbers, and the candidates of the first head.
VARIANTS: dict[str, tuple[type[Samples], type[Calibration]]] = {
    "": (Samples, Calibration),
    ": with ratios": (MeasuredSamples, WithCandidates),
    ": with regressors": (WithRegressors, Calibration),
    ": with both": (WithRegressors, WithCandidates),
}


def with_measures(
    outputs: Path = Path("trajectory_outputs"),
    scores: Path = Path("scores_with_measures"),
    networks: list[str] | None = None,
) -> None:
    """Scores every network of classes that has no CSV yet.

    Args:
        outputs: The folder with one file for each network.
        scores: Where the CSVs are written.
        networks: Which networks; None for all.

    """
    score_files(outputs, scores, networks, score_variants)


def score_variants(network: NetworkOutputs) -> Iterator[Row]:
    """Yields a row for each target, quantity and variant."""
    moment = len(network.epochs) - 1
    reference = references_of(network, [moment])[moment]
    for suffix, (samples, calibration) in VARIANTS.items():
        own = measured(network, reference)  # each variant makes a fit of its own
        with patch.object(fit, "Samples", samples), patch.object(fit, "Calibration", calibration):
            for one in network.of_role("target"):
                target = measured(network, labelled(network, one, [moment])[moment])
                for row in rows_of([Headline()], target, own, suffix):
                    yield [moment, one.name, one.family, target.samples, *row]


def measured(network: NetworkOutputs, summary: SetSummary) -> SetSummary:
    """Returns a summary with the measures of its samples, and so its copies."""
    source = next((one.pool for one in network.sets if one.name == summary.name and one.pool), summary.name)
    rows = network.rows.get(summary.name, np.arange(len(summary.outputs)))
    numbers = network.measures[source][rows] / network.measures["reference"].mean(0)
    copies = tuple(measured(network, copy) for copy in summary.copies)
    return replace(summary, outputs=replace(summary.outputs, features=numbers.astype(np.float64)), copies=copies)


if __name__ == "__main__":
    sys.exit(CLI(with_measures))

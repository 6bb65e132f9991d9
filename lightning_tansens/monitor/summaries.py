"""Turns what a measure has found on one set into a part of the summary that the estimators read."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from lightning_tansens.estimators import SetSummary
from lightning_tansens.metrics.base import LabelledMeasure, Measure, SensitivityMeasure


def with_measure(summary: SetSummary, measure: Measure) -> SetSummary:
    """Adds the values of a measure to a summary, and lets the measure remember them."""
    key = measure.key
    influence = measure.influence() if isinstance(measure, SensitivityMeasure) else None
    error = measure.standard_error()
    distributions = {part: numbers.detach().cpu().clone() for part, numbers in measure.distributions().items()}
    summary = replace(
        summary,
        values={**summary.values, key: floats(measure.values())},
        parts={**summary.parts, key: floats(measure.part_values())},
        distributions={**summary.distributions, key: distributions},
        influences=summary.influences if influence is None else {**summary.influences, key: influence},
        errors=summary.errors if error is None else {**summary.errors, key: error},
        of_labels=(*summary.of_labels, key) if isinstance(measure, LabelledMeasure) else summary.of_labels,
    )
    measure.remember()
    return summary


def floats(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns scalars as floats."""
    return {name: float(value) for name, value in values.items()}

"""Makes the records of measurements from the summaries of their sets."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from lightning_tansens.estimators import (
    AccuracyForm,
    Estimator,
    Limits,
    MeasureRatio,
    SetSummary,
    estimate_set,
    score_set,
)
from lightning_tansens.metrics.base import Measure, SensitivityMeasure
from lightning_tansens.record import Estimate, MeasureRecord, Missing, Quantity, Record, SetRecord
from lightning_tansens.show.correlations import gap_correlations

Key = TypeVar("Key")
Value = TypeVar("Value")


def make_record(
    epoch: int,
    step: int,
    summaries: Sequence[SetSummary],
    measures: Sequence[Measure],
    estimators: Sequence[Estimator],
    weights: Mapping[str, Mapping[str, float]],
    failed: Mapping[tuple[str, str], Exception],
    accuracy_form: AccuracyForm = "error",
    limits: Limits | None = None,
) -> Record:
    """Makes the record of a measurement, with every estimate of each target.

    The first summary is that of the labelled reference. Each measure whose ratio scales the loss is an estimator too;
    ``weights`` has the values of those that need no data, by their keys, and ``failed`` the errors of this time, by set and
    measure.
    """
    reference, *targets = summaries
    ratios = [MeasureRatio(measure, accuracy_form) for measure in measures if isinstance(measure, SensitivityMeasure)]
    every = [*ratios, *estimators]
    of_weights = {key: MeasureRecord(_finite(values)) for key, values in weights.items()}
    unknown = _not_finite(weights)
    reference_record = _set_record(reference, estimators, {}, unknown, failed)
    of_targets = {}
    for target in targets:
        estimates, missing = estimate_set(every, target, reference, limits)
        of_targets[target.name] = _set_record(target, estimators, estimates, missing, failed)
    return Record(epoch, step, reference_record, of_targets, of_weights)


def with_correlations(record: Record, before: Sequence[Record]) -> Record:
    """Adds to each target how its values correlate with the generalisation gap over the run so far."""
    run = [*before, record]
    targets = {name: replace(target, correlations=gap_correlations(run, name)) for name, target in record.targets.items()}
    return replace(record, targets=targets)


def without(record: Record, estimators: Collection[str] = (), values: Collection[str] = ()) -> Record:
    """Returns a record without some estimators' estimates, and the scores with them, and without some values of measures."""

    def thinned(one: SetRecord) -> SetRecord:
        return replace(
            one,
            measures={key: replace(found, values=_others(found.values, values)) for key, found in one.measures.items()},
            scores={} if estimators else one.scores,
            estimates={quantity: _others(found, estimators) for quantity, found in one.estimates.items()},
        )

    targets = {name: thinned(target) for name, target in record.targets.items()}
    return replace(record, reference=thinned(record.reference), targets=targets)


def _others(found: Mapping[str, Value], names: Collection[str]) -> dict[str, Value]:
    return {name: value for name, value in found.items() if name not in names}


def _set_record(
    summary: SetSummary,
    estimators: Sequence[Estimator],
    estimates: Mapping[Quantity, Mapping[str, Estimate]],
    missing: Mapping[str, Missing],
    failed: Mapping[tuple[str, str], Exception],
) -> SetRecord:
    scores, _ = score_set(estimators, summary)
    raised = {
        key: Missing(f"{type(error).__name__}: {error}") for (name, key), error in failed.items() if name == summary.name
    }
    values = {key: _finite(found) for key, found in summary.values.items()}
    measures = {
        key: MeasureRecord(found, _finite(summary.parts.get(key, {})), _finite_or_none(summary.errors.get(key)))
        for key, found in values.items()
    }
    labelled = {f"{summary.name}_loss": summary.loss, f"{summary.name}_accuracy": summary.accuracy}
    of_labels = {name: value for name, value in labelled.items() if value is not None}
    return SetRecord(
        name=summary.name,
        samples=summary.samples,
        unusable=summary.unusable,
        whole=summary.whole,
        loss=_finite_or_none(summary.loss),
        loss_stderr=_finite_or_none(summary.loss_stderr),
        accuracy=_finite_or_none(summary.accuracy),
        accuracy_stderr=_finite_or_none(summary.accuracy_stderr),
        class_losses=_finite(summary.class_losses),
        measures=measures,
        scores=_finite(scores),
        estimates=estimates,
        missing={**missing, **_not_finite({"labels": of_labels, **summary.values}), **raised},
    )


def _not_finite(values: Mapping[str, Mapping[str, float]]) -> dict[str, Missing]:
    """Returns why values are missing, by name."""
    return {
        name: Missing(f"its value is {value}")
        for found in values.values()
        for name, value in found.items()
        if not math.isfinite(value)
    }


def _finite(values: Mapping[Key, float]) -> dict[Key, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

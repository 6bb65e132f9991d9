"""What is logged at one measurement: values and estimates under their keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimates import AccuracyForm, estimate_accuracy, estimate_loss
from lightning_tansens.keys import ACTUAL, TRIVIAL, Keys
from lightning_tansens.metrics.base import Measure, SensitivityMeasure
from lightning_tansens.peers import Peer
from lightning_tansens.reading import Reading
from lightning_tansens.uncertainty import Influence, relative_standard_error

Values = Mapping[str, Mapping[str, float]]


@dataclass
class Report:
    """What is logged at one measurement.

    Attributes:
        scalars: The values by key.
        histograms: One number per sample, shapes (N,), by tag.
        influences: For each set and measure that knows them, how far each sample moves it.
        undefined: Why a value is missing this time, by the measure's key or by its own.
        keys: How the values are named.

    """

    keys: Keys = field(default_factory=Keys)
    scalars: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Tensor] = field(default_factory=dict)
    influences: dict[str, dict[str, Influence]] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)


def make_report(
    measures: Sequence[Measure],
    reference_name: str,
    readings: Mapping[str, Reading],
    weights_now: Values,
    weights_before: Values,
    accuracy_form: AccuracyForm = "error",
    keys: Keys | None = None,
    peers: Sequence[Peer] = (),
) -> Report:
    """Gives every value its key, and computes the estimates of loss and accuracy.

    Args:
        measures: The measures, in the order in which they are logged.
        reference_name: Which of the readings is the reference.
        readings: For each set, by name, what was measured on it; estimates use the labels of the reference alone.
        weights_now: The values of the measures that need no data, by the measure's key.
        weights_before: The same at the previous measurement.
        accuracy_form: How the accuracy is estimated.
        keys: How the values are named; None for ``tansens/…``.
        peers: The estimators that work on outputs.

    Returns:
        The scalars, and the reasons for estimates that are missing.

    """
    keys = keys or Keys()
    report = Report(keys, influences={name: reading.influences for name, reading in readings.items()})
    scalars = report.scalars
    for measure in measures:
        for name, value in weights_now.get(measure.key, {}).items():
            scalars[keys.value(name)] = value
        for set_name, reading in readings.items():
            for name, value in reading.values.get(measure.key, {}).items():
                scalars[keys.value(name, set_name)] = value
            for part, value in reading.parts.get(measure.key, {}).items():
                scalars[keys.value(measure.key, set_name, part)] = value
            for part, numbers in reading.distributions.get(measure.key, {}).items():
                report.histograms[keys.value(f"{measure.key}_histogram", set_name, part)] = numbers
            if measure.key in reading.errors:
                scalars[keys.stderr(keys.value(measure.key, set_name))] = reading.errors[measure.key]

    for set_name, reading in readings.items():
        for label, loss in reading.class_losses.items():
            scalars[keys.value("class_loss", set_name, str(label))] = loss
        for scores in reading.scores.values():
            scalars |= {keys.value(name, set_name): score for name, score in scores.items()}
    estimating = {measure.key: measure for measure in measures if isinstance(measure, SensitivityMeasure)}
    reference = readings[reference_name]
    assert reference.loss is not None
    scalars[keys.labelled(reference_name, "loss")] = reference.loss
    if reference.accuracy is not None:
        scalars[keys.labelled(reference_name, "accuracy")] = reference.accuracy
    for set_name, reading in readings.items():
        if set_name == reference_name:
            continue
        ratios = {TRIVIAL: 0.0}
        for measure in estimating.values():
            try:
                ratios[measure.key] = _log_ratio(measure, reading, reference, weights_now, weights_before)
            except UndefinedEstimateError as error:
                report.undefined[measure.key] = str(error)
        for name, ratio in ratios.items():
            key = keys.estimate(set_name, "loss", name)
            scalars[key] = estimate_loss(ratio, reference.loss)
            spread = _relative_error(estimating.get(name), reading, reference)
            if spread is not None:
                scalars[keys.stderr(key)] = spread * abs(scalars[key])
            if reference.accuracy is not None:
                accuracy = estimate_accuracy(ratio, reference.accuracy, accuracy_form)
                scalars[keys.estimate(set_name, "accuracy", name)] = accuracy
        for peer in peers:
            _add_estimates_of_peer(report, peer, set_name, reading, reference)
        if reading.loss is not None:
            scalars[keys.estimate(set_name, "loss", ACTUAL)] = reading.loss
        if reading.accuracy is not None:
            scalars[keys.estimate(set_name, "accuracy", ACTUAL)] = reading.accuracy
    for key in [key for key, value in scalars.items() if not math.isfinite(value)]:
        report.undefined[key] = f"its value is {scalars.pop(key)}"
    return report


def precision_note(report: Report, set_name: str, samples: int) -> str | None:
    """Returns how well the empirical sensitivity of a set is known and what knowing it better costs, if that is known."""
    scalars, keys = report.scalars, report.keys
    key, seconds = keys.value("empirical", set_name), scalars[keys.value("seconds")]
    error = scalars.get(keys.stderr(key))
    if error is None or not scalars.get(key):
        return None
    return (
        f"{key} is known to {error / scalars[key]:.1%} with {samples} samples; four times as many would "
        f"halve that, at about {4 * seconds:.1f} s for a measurement instead of {seconds:.1f} s"
    )


def _log_ratio(
    measure: SensitivityMeasure, target: Reading, reference: Reading, weights_now: Values, weights_before: Values
) -> float:
    if measure.needs_data:
        return measure.log_ratio(target.values[measure.key], reference.values[measure.key])
    return measure.log_ratio(weights_now[measure.key], weights_before[measure.key])


def _add_estimates_of_peer(report: Report, peer: Peer, set_name: str, target: Reading, reference: Reading) -> None:
    try:
        estimates = peer.estimate(target.summaries[peer.key], reference.summaries[peer.key])
    except UndefinedEstimateError as error:
        report.undefined[peer.key] = str(error)
        return
    for quantity, estimate in estimates.items():
        key = report.keys.estimate(set_name, quantity, peer.key)
        report.scalars[key] = estimate.value
        if estimate.stderr is not None:
            report.scalars[report.keys.stderr(key)] = estimate.stderr


def _relative_error(measure: SensitivityMeasure | None, target: Reading, reference: Reading) -> float | None:
    """The relative standard error of an estimate of the loss; of the reference's own loss, without a measure."""
    terms, signs = [reference.loss_influence], [1.0]
    if measure is not None and measure.needs_data:
        terms += [target.influences.get(measure.key), reference.influences.get(measure.key)]
        signs += [1.0, -1.0]
    known = [term for term in terms if term is not None]
    return relative_standard_error(known, signs) if len(known) == len(terms) else None

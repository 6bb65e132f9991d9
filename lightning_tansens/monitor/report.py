"""What is logged at one measurement: values and estimates under their keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from torch import Tensor

from lightning_tansens.estimators import Peer
from lightning_tansens.estimators.estimated import Estimated, Undefined, Values, peer_estimates, ratio_estimates
from lightning_tansens.estimators.reading import Reading
from lightning_tansens.estimators.scaling import AccuracyForm
from lightning_tansens.estimators.trust import Limits, Reason, doubts
from lightning_tansens.metrics.base import Measure
from lightning_tansens.metrics.uncertainty import Influence
from lightning_tansens.show.keys import ACTUAL, Keys


@dataclass
class Report:
    """What is logged at one measurement.

    Attributes:
        scalars: The values by key.
        histograms: One number per sample, shapes (N,), by tag.
        influences: For each set and measure that knows them, how far each sample moves it.
        undefined: Why a value is missing this time, by the measure's key or by its own.
        doubts: For each estimate, by key, the reasons not to trust it; none if it is trusted.
        keys: How the values are named.
        limits: What is required of an estimate to be trusted.

    """

    keys: Keys = field(default_factory=Keys)
    scalars: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Tensor] = field(default_factory=dict)
    influences: dict[str, dict[str, Influence]] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, tuple[Reason, ...]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    def add(self, set_name: str, estimate: Estimated | Undefined) -> None:
        """Adds an estimate of a set's loss or accuracy, or the reason why there is none."""
        if isinstance(estimate, Undefined):
            self.undefined[estimate.name] = estimate.reason
            return
        key = self.keys.estimate(set_name, estimate.quantity, estimate.name)
        self.scalars[key] = estimate.value
        if estimate.stderr is not None:
            self.scalars[self.keys.stderr(key)] = estimate.stderr
        self.doubts[key] = doubts(estimate.evidence, self.limits)
        self.scalars[self.keys.trusted(key)] = float(not self.doubts[key])


def make_report(
    measures: Sequence[Measure],
    reference_name: str,
    readings: Mapping[str, Reading],
    weights_now: Values,
    weights_before: Values,
    accuracy_form: AccuracyForm = "error",
    keys: Keys | None = None,
    peers: Sequence[Peer] = (),
    limits: Limits | None = None,
    calibrated: Callable[[Reading, Reading], Iterable[Estimated | Undefined]] | None = None,
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
        limits: What is required of an estimate to be trusted; None for the defaults.
        calibrated: Given target and reference, the estimates that were fitted on copies of the reference; None for none.

    Returns:
        The scalars, and the reasons for estimates that are missing.

    """
    keys = keys or Keys()
    influences = {name: reading.influences for name, reading in readings.items()}
    report = Report(keys, influences=influences, limits=limits or Limits())
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
    reference = readings[reference_name]
    assert reference.loss is not None
    scalars[keys.labelled(reference_name, "loss")] = reference.loss
    if reference.accuracy is not None:
        scalars[keys.labelled(reference_name, "accuracy")] = reference.accuracy
    for set_name, reading in readings.items():
        if set_name == reference_name:
            continue
        for estimate in chain(
            ratio_estimates(measures, reading, reference, weights_now, weights_before, accuracy_form),
            peer_estimates(peers, reading, reference),
            calibrated(reading, reference) if calibrated is not None else (),
        ):
            report.add(set_name, estimate)
        if reading.loss is not None:
            scalars[keys.estimate(set_name, "loss", ACTUAL)] = reading.loss
        if reading.accuracy is not None:
            scalars[keys.estimate(set_name, "accuracy", ACTUAL)] = reading.accuracy
    for key in [key for key, value in scalars.items() if not math.isfinite(value)]:
        report.undefined[key] = f"its value is {scalars.pop(key)}"
        report.doubts.pop(key, None)
        scalars.pop(keys.trusted(key), None)
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

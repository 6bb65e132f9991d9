"""All estimates of a target set, from what was measured on it and on the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from lightning_tansens._peers import Peer
from lightning_tansens._peers.reading import Reading
from lightning_tansens._peers.scaling import AccuracyForm, estimate_accuracy, estimate_loss
from lightning_tansens._peers.trust import Evidence
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics.base import Measure, SensitivityMeasure
from lightning_tansens.metrics.uncertainty import relative_standard_error
from lightning_tansens.show.keys import TRIVIAL, Quantity

Values = Mapping[str, Mapping[str, float]]

#: The range of a measure that was seen is that between these quantiles of the reference's samples.
SEEN = (0.05, 0.95)


@dataclass(frozen=True)
class Estimated:
    """An estimate, and what speaks for or against it.

    Attributes:
        quantity: What is estimated.
        name: The estimator.
        value: The estimate.
        stderr: Its standard error over the draw of the samples, if that is known.
        evidence: What trust in it rests on.

    """

    quantity: Quantity
    name: str
    value: float
    stderr: float | None
    evidence: Evidence


@dataclass(frozen=True)
class Undefined:
    """An estimator without an estimate this time.

    Attributes:
        name: The estimator.
        reason: Why.

    """

    name: str
    reason: str


def ratio_estimates(
    measures: Sequence[Measure],
    target: Reading,
    reference: Reading,
    weights_now: Values,
    weights_before: Values,
    accuracy_form: AccuracyForm,
) -> Iterator[Estimated | Undefined]:
    """Yields the trivial estimates and those of each measure: the reference's loss and accuracy, scaled by a ratio.

    Args:
        measures: The measures, in the order in which they are logged.
        target: What was measured on the target; its labels are not used.
        reference: What was measured on the labelled reference.
        weights_now: The values of the measures that need no data, by the measure's key.
        weights_before: The same at the previous measurement.
        accuracy_form: How the accuracy is estimated.

    """
    estimating = [measure for measure in measures if isinstance(measure, SensitivityMeasure)]
    for measure in (None, *estimating):
        name = TRIVIAL if measure is None else measure.key
        try:
            ratio = 0.0 if measure is None else _log_ratio(measure, target, reference, weights_now, weights_before)
        except UndefinedEstimateError as error:
            yield Undefined(name, str(error))
            continue
        of_ratio = _relative_error(measure, target, reference, with_loss=False)
        of_loss = _relative_error(measure, target, reference, with_loss=True)
        evidence = Evidence(
            samples=min(target.samples, reference.samples),
            errors=reference.wrong,
            change=None if measure is None else ratio,
            change_stderr=of_ratio,
            relative_error=of_loss,
            inside=None if measure is None else _inside(measure, ratio, target, reference),
            of_target=measure is not None and measure.needs_data,
        )
        assert reference.loss is not None
        loss = estimate_loss(ratio, reference.loss)
        yield Estimated("loss", name, loss, None if of_loss is None else of_loss * abs(loss), evidence)
        if reference.accuracy is not None:
            yield Estimated("accuracy", name, estimate_accuracy(ratio, reference.accuracy, accuracy_form), None, evidence)


def peer_estimates(peers: Sequence[Peer], target: Reading, reference: Reading) -> Iterator[Estimated | Undefined]:
    """Yields the estimates of those who work on outputs.

    Args:
        peers: The estimators.
        target: What was measured on the target.
        reference: What was measured on the labelled reference.

    """
    for peer in peers:
        summaries = target.summaries[peer.key], reference.summaries[peer.key]
        try:
            estimates = peer.estimate(*summaries)
        except UndefinedEstimateError as error:
            yield Undefined(peer.key, str(error))
            continue
        for quantity, estimate in estimates.items():
            trivial = reference.loss if quantity == "loss" else reference.accuracy
            relative = estimate.stderr / abs(estimate.value) if estimate.stderr is not None and estimate.value else None
            evidence = Evidence(
                samples=min(int(summary["count"]) for summary in summaries),
                errors=reference.wrong,
                change=None if trivial is None else estimate.value - trivial,
                change_stderr=estimate.stderr,
                relative_error=relative,
            )
            yield Estimated(quantity, peer.key, estimate.value, estimate.stderr, evidence)


def _log_ratio(
    measure: SensitivityMeasure, target: Reading, reference: Reading, weights_now: Values, weights_before: Values
) -> float:
    if measure.needs_data:
        return measure.log_ratio(target.values[measure.key], reference.values[measure.key])
    return measure.log_ratio(weights_now[measure.key], weights_before[measure.key])


def _relative_error(
    measure: SensitivityMeasure | None, target: Reading, reference: Reading, with_loss: bool
) -> float | None:
    """The relative standard error of a ratio, or of the reference's loss times it; without a measure the ratio is one."""
    terms, signs = ([reference.loss_influence], [1.0]) if with_loss else ([], [])
    if measure is not None and measure.needs_data:
        terms += [target.influences.get(measure.key), reference.influences.get(measure.key)]
        signs += [1.0, -1.0]
    known = [term for term in terms if term is not None]
    return relative_standard_error(known, signs) if known and len(known) == len(terms) else None


def _inside(measure: SensitivityMeasure, ratio: float, target: Reading, reference: Reading) -> bool | None:
    """Whether the target's mean lies among the reference's samples; None where these are not known."""
    numbers = [reading.distributions.get(measure.key, {}).get("") for reading in (target, reference)]
    of_target, seen = (None if found is None else found.double() for found in numbers)
    if of_target is not None and seen is not None and len(of_target):
        value = float(of_target.mean())
    else:  # a mean m of numbers x_n is known by x_n/m − 1, if the ratio is that of the means
        influence = reference.influences.get(measure.key)
        means = [reading.values.get(measure.key, {}).get(measure.key, math.nan) for reading in (target, reference)]
        if influence is None or not min(means) > 0 or not math.isclose(ratio, math.log(means[0] / means[1]), abs_tol=1e-9):
            return None
        value, seen = math.exp(ratio), 1 + influence.values.double()
    if not len(seen) or not math.isfinite(float(seen.sum())):
        return None
    low, high = torch.quantile(seen.cpu(), torch.tensor(SEEN, dtype=torch.float64)).tolist()
    return bool(low <= value <= high)

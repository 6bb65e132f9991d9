"""What speaks against an estimate, and how it compares with the reference, as far as its own numbers tell."""

from dataclasses import dataclass, replace
from enum import Enum

from lightning_tansens.checks import check_counts, check_numbers
from lightning_tansens.estimators.base import Estimator, Need
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate, Quantity, Verdict


class Reason(Enum):
    """Why an estimate may be wrong; the value says it in words."""

    NO_DATA = "it does not look at the target"
    FEW_ERRORS = "the reference has too few errors to scale"
    OUT_OF_RANGE = "the target lies outside of the range seen"
    FEW_SAMPLES = "too few samples"
    NO_ERROR = "its standard error is not known"


@dataclass(frozen=True)
class Limits:
    """What is required of an estimate.

    An estimate may fulfil all of it and be wrong: these are grounds for doubt, not proofs.

    Args:
        errors: The fewest wrong predictions on the reference. With e errors the error rate is known to about 1/√e of its
            value; at 16 that is a quarter.
        samples: The fewest samples of each set.
        relative_error: The largest standard error, as a share of the estimate.
        deviations: By how many standard errors an estimate must differ from the trivial one to call the target better or
            worse than the reference.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> Limits(samples=100).errors
        16
    """

    errors: int = 16
    samples: int = 30
    relative_error: float = 0.2
    deviations: float = 1.0

    def __post_init__(self) -> None:
        check_counts(at_least=0, errors=self.errors, samples=self.samples)
        check_numbers(at_least=0, relative_error=self.relative_error, deviations=self.deviations)


def doubts(
    samples: int,
    errors: float | None = None,
    relative_error: float | None = None,
    inside: bool | None = None,
    of_target: bool = True,
    limits: Limits | None = None,
) -> tuple[Reason, ...]:
    """Returns the reasons not to rely on an estimate. None stands for what is not known.

    Args:
        samples: The number of samples of the smaller of the two sets.
        errors: The number of wrong predictions on the reference, if it is a classification.
        relative_error: The standard error as a share of the estimate; nan for an estimate of zero.
        inside: Whether the target lies within what the estimate rests on.
        of_target: Whether the estimate depends on the target at all.
        limits: What is required; None for the defaults.

    Example:
        >>> doubts(samples=1000, errors=300, relative_error=0.05)
        ()
        >>> [reason.value for reason in doubts(samples=1000)]
        ['its standard error is not known']
    """
    limits = limits or Limits()
    # a comparison with nan counts as a doubt
    uncertain = relative_error is not None and not relative_error <= limits.relative_error
    found = {
        Reason.NO_DATA: not of_target,
        Reason.FEW_ERRORS: errors is not None and errors < limits.errors,
        Reason.OUT_OF_RANGE: inside is False,
        Reason.FEW_SAMPLES: samples < limits.samples or uncertain,
        Reason.NO_ERROR: relative_error is None,
    }
    return tuple(reason for reason, applies in found.items() if applies)


def with_doubts(
    estimate: Estimate,
    quantity: Quantity,
    estimator: Estimator,
    target: SetSummary,
    reference: SetSummary,
    limits: Limits | None = None,
) -> Estimate:
    """Returns an estimate with the reasons against it and its verdict; those that it already has stay.

    An estimate with an interval has already judged its errors, so here only the number of samples can speak against it.
    """
    limits = limits or Limits()
    by_outputs = not estimator.needs.isdisjoint({Need.CLASSES, Need.OUTPUTS})
    sizes = [len(found.outputs) if by_outputs and found.outputs else found.samples for found in (target, reference)]
    judged = estimate.low is not None and estimate.high is not None
    found = doubts(
        samples=min(sizes),
        errors=None if judged else reference.wrong,
        relative_error=0.0 if judged else None if estimate.stderr is None else _share(estimate.stderr, estimate.value),
        inside=estimator.inside(target, reference),
        of_target=estimator.looks_at_target,
        limits=limits,
    )
    trivial = reference.loss if quantity == "loss" else reference.accuracy
    verdict = estimate.verdict
    if verdict is None and trivial is not None and estimator.looks_at_target:
        margin = None if estimate.stderr is None else limits.deviations * estimate.stderr
        verdict = _verdict(estimate.value - trivial if quantity == "loss" else trivial - estimate.value, margin)
    all_doubts = (*estimate.doubts, *(reason.value for reason in found))
    return replace(estimate, doubts=all_doubts, verdict=verdict)


def _share(error: float, value: float) -> float:
    return error / abs(value) if value else float("nan") if error else 0.0


def _verdict(worse_by: float, margin: float | None) -> Verdict:
    if margin is None:
        return "unsure"
    return "like the reference" if abs(worse_by) <= margin else "worse" if worse_by > 0 else "better"

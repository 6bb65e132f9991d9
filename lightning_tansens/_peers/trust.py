"""Whether an estimate can be trusted, or why not, as far as its own numbers tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lightning_tansens.checks import check_counts, check_numbers


class Reason(Enum):
    """Why an estimate is not to be trusted; the value says it in words."""

    NO_DATA = "it does not look at the target"
    FEW_ERRORS = "the reference has too few errors to scale"
    LIKE_TRIVIAL = "within its error of the trivial estimate"
    OUT_OF_RANGE = "the target lies outside of the range seen"
    FEW_SAMPLES = "too few samples"


@dataclass(frozen=True)
class Limits:
    """What is required of an estimate.

    An estimate may fulfil all of it and be wrong: these are grounds for doubt, not proofs.

    Args:
        errors: The fewest wrong predictions on the reference. With e errors the error rate is known to about 1/√e of its
            value; at 16 that is a quarter.
        samples: The fewest samples of each set.
        relative_error: The largest standard error, as a share of the estimate.
        deviations: By how many standard errors an estimate must differ from the trivial one to say anything of its own.

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


@dataclass(frozen=True)
class Evidence:
    """What is known of an estimate besides its value; None is what is not known.

    Attributes:
        samples: The number of samples of the smaller of the two sets.
        errors: The number of wrong predictions on the reference; None where it is no classification.
        change: The difference from the trivial estimate, or the logarithm of the ratio; None for the trivial one itself.
        change_stderr: The standard error of that.
        relative_error: The standard error of the estimate, as a share of it.
        inside: Whether what was measured of the target lies within the range that was seen before.
        of_target: Whether anything was measured of the target at all.

    """

    samples: int
    errors: float | None = None
    change: float | None = None
    change_stderr: float | None = None
    relative_error: float | None = None
    inside: bool | None = None
    of_target: bool = True


def doubts(evidence: Evidence, limits: Limits | None = None) -> tuple[Reason, ...]:
    """Returns the reasons not to trust an estimate; none if it is trusted.

    Args:
        evidence: What is known of it.
        limits: What is required; None for the defaults.

    Example:
        >>> doubts(Evidence(samples=1000, errors=300, change=0.5, change_stderr=0.05))
        ()
        >>> [reason.value for reason in doubts(Evidence(samples=1000, change=0.01, change_stderr=0.05))]
        ['within its error of the trivial estimate']

    """
    limits = limits or Limits()
    # what is compared with nan is a doubt
    found = {
        Reason.NO_DATA: not evidence.of_target,
        Reason.FEW_ERRORS: evidence.errors is not None and evidence.errors < limits.errors,
        Reason.LIKE_TRIVIAL: evidence.change is not None
        and not abs(evidence.change) > limits.deviations * (evidence.change_stderr or 0.0),
        Reason.OUT_OF_RANGE: evidence.inside is False,
        Reason.FEW_SAMPLES: evidence.samples < limits.samples
        or (evidence.relative_error is not None and not evidence.relative_error <= limits.relative_error),
    }
    return tuple(reason for reason, applies in found.items() if applies)

"""The typed record of a measurement, which console, tables, figures, loggers and the command line read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: What is estimated of a set without labels.
Quantity = Literal["loss", "accuracy"]

#: The estimate that repeats the reference's own value; every target has it.
TRIVIAL = "trivial"

#: The estimate that stands for a set.
HEADLINE = "estimate"

#: How a target compares with the reference, as far as its estimate tells.
Verdict = Literal["like the reference", "better", "worse", "unsure"]


@dataclass(frozen=True)
class Estimate:
    """An estimate of a set's loss or accuracy.

    Example:
        >>> estimate = Estimate(0.36, low=0.27, high=0.43, verdict="worse")
        >>> estimate.reliable, str(estimate)
        (True, '0.36 [0.27, 0.43], worse than the reference')
    """

    value: float  #: The estimate: nats or the criterion's units for the loss, a share for the accuracy.
    stderr: float | None = None  #: Its standard error over the draw of both sets' samples; None where it is not known.
    low: float | None = None  #: The lower end of its 95 % interval; None where there is none.
    high: float | None = None  #: The upper end.
    doubts: tuple[str, ...] = ()  #: What speaks against it, in words; empty if nothing does.
    verdict: Verdict | None = None  #: How the target compares with the reference; None for an estimator that gives none.
    basis: str = ""  #: What it assumes of the target, in words; empty where that is not known.
    has_flag: bool = True  #: Whether doubts were found to tell its estimator's bad estimates from good ones.

    @property
    def reliable(self) -> bool | None:
        """Whether nothing speaks against the estimate; None where doubts, or their absence, say nothing about its error."""
        return not self.doubts if self.has_flag else None

    def __str__(self) -> str:
        """Returns the value, its interval, the verdict and the doubts; :attr:`basis` is left to whoever wants it."""
        text = f"{self.value:.3g}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:.3g}, {self.high:.3g}]"
        if self.verdict is not None:
            text += f", {self.verdict}" + " than the reference" * (self.verdict in ("worse", "better"))
        said = "not reliable" if self.has_flag else "doubts"
        return text + (f" ({said}: {', '.join(self.doubts)})" if self.doubts else "")


@dataclass(frozen=True)
class SetEstimates:
    """The headline's estimates of one set at one measurement.

    Example:
        >>> print(SetEstimates("test", loss=Estimate(0.36, low=0.27, high=0.43, verdict="worse")))
        test: loss 0.36 [0.27, 0.43], worse than the reference
    """

    name: str  #: The set's name.
    loss: Estimate | None = None  #: The estimate of the loss; None where there is none.
    accuracy: Estimate | None = None  #: The estimate of the accuracy.

    def __str__(self) -> str:
        """Returns both, the accuracy first."""
        found = {"accuracy": self.accuracy, "loss": self.loss}
        known = [f"{quantity} {estimate}" for quantity, estimate in found.items() if estimate is not None]
        return f"{self.name}: {'; '.join(known) or 'no estimate yet'}"


@dataclass(frozen=True)
class Missing:
    """Why a measure or an estimator has no value at a measurement."""

    reason: str  #: The reason, in words.
    too_early: bool = False  #: Whether only earlier measurements are missing, so that the value comes later in the run.

    def __str__(self) -> str:
        """Returns the reason."""
        return self.reason


@dataclass(frozen=True)
class MeasureRecord:
    """The values of one measure on one set, or of the weights alone."""

    values: Mapping[str, float] = field(default_factory=dict)  #: Its scalars by name; one of them has the measure's key.
    parts: Mapping[str, float] = field(default_factory=dict)  #: Its values by part: a layer, an output, a class.
    stderr: float | None = None  #: The standard error of the main value, if the measure knows it.


@dataclass(frozen=True)
class SetRecord:
    """What one measurement found on one set."""

    name: str  #: The set's name.
    samples: int = 0  #: The number of samples that the measures saw.
    #: The labelled loss: always there for the reference; on a target it is the truth, where labels are compared.
    loss: float | None = None
    loss_stderr: float | None = None  #: Its standard error; None where it is not known, or where the whole set was used.
    accuracy: float | None = None  #: The accuracy, with labels of classes.
    accuracy_stderr: float | None = None  #: Its standard error, as for the loss.
    class_losses: Mapping[int, float] = field(default_factory=dict)  #: The mean loss by class.
    measures: Mapping[str, MeasureRecord] = field(default_factory=dict)  #: What each measure found, by the measure's key.
    scores: Mapping[str, float] = field(default_factory=dict)  #: Label-free scores by name (average confidence, ...).
    #: The estimates by quantity and estimator, TRIVIAL first; empty on the reference.
    estimates: Mapping[Quantity, Mapping[str, Estimate]] = field(default_factory=dict)
    #: Correlations over the run with the generalisation gap, by name.
    correlations: Mapping[str, float] = field(default_factory=dict)
    #: Why a value is missing this time, by the name of the measure or the estimator.
    missing: Mapping[str, Missing] = field(default_factory=dict)
    unusable: int = 0  #: The number of samples that were left out because their numbers are not finite.
    whole: bool = False  #: Whether the measures saw the whole set.

    @property
    def headline(self) -> SetEstimates:
        """The estimates that stand for the set."""
        found: dict[str, Estimate | None] = {of: names.get(HEADLINE) for of, names in self.estimates.items()}
        return SetEstimates(self.name, found.get("loss"), found.get("accuracy"))

    def labelled(self, quantity: Quantity) -> float | None:
        """Returns the loss or the accuracy that labels gave."""
        return self.loss if quantity == "loss" else self.accuracy

    def labelled_stderr(self, quantity: Quantity) -> float | None:
        """Returns its standard error."""
        return self.loss_stderr if quantity == "loss" else self.accuracy_stderr


@dataclass(frozen=True)
class Record:
    """One measurement of a run: the reference, the targets, the weights."""

    epoch: int  #: The epoch after which it was taken, from 0.
    step: int  #: The step at which the loggers show it.
    reference: SetRecord  #: What was found on the labelled reference.
    targets: Mapping[str, SetRecord]  #: What was found on the unlabelled sets, by name.
    #: The values of measures that need no data, by the measure's key.
    weights: Mapping[str, MeasureRecord] = field(default_factory=dict)
    #: How long parts of the measurement took, by name; ``total`` for all of it.
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def sets(self) -> Iterator[SetRecord]:
        """The reference, then the targets."""
        yield self.reference
        yield from self.targets.values()

    def state(self) -> dict[str, Any]:
        """Returns the record as dicts, lists, numbers and text, for a checkpoint.

        Example:
            >>> record = Record(0, 9, SetRecord("val", loss=1.5), {"test": SetRecord("test")})
            >>> Record.from_state(record.state()) == record
            True
        """
        return asdict(self, dict_factory=_with_lists)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Record:
        """Returns the record that :meth:`state` described."""
        return cls(
            state["epoch"],
            state["step"],
            _set_record(state["reference"]),
            {name: _set_record(target) for name, target in state["targets"].items()},
            {key: MeasureRecord(**measure) for key, measure in state["weights"].items()},
            state["seconds"],
        )


def _with_lists(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}


def _set_record(state: Mapping[str, Any]) -> SetRecord:
    measures = {key: MeasureRecord(**measure) for key, measure in state["measures"].items()}
    estimates = {
        quantity: {name: _estimate(name, estimate) for name, estimate in found.items()}
        for quantity, found in state["estimates"].items()
    }
    # earlier states of this version have the reason alone, and a flag for every estimate
    missing = {name: Missing(one) if isinstance(one, str) else Missing(**one) for name, one in state["missing"].items()}
    return SetRecord(**{**state, "measures": measures, "estimates": estimates, "missing": missing})


def _estimate(name: str, state: Mapping[str, Any]) -> Estimate:
    return Estimate(**{"has_flag": name == HEADLINE, **state, "doubts": tuple(state["doubts"])})

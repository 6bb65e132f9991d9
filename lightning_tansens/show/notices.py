"""Notes that a run prints once: what is missing and why, what a measurement costs, how precise it is."""

from collections.abc import Callable, Sequence
from textwrap import fill

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tqdm.auto import tqdm

from lightning_tansens.record import HEADLINE, TRIVIAL, Record
from lightning_tansens.show.console import WIDTH
from lightning_tansens.show.pictures import MEASURE

#: From how many seconds on a measurement's cost is told before.
_SLOW = 5.0

#: From how many seconds of all measurements on, and from which share of the run's time, their cost is told after.
_NOTICED, _MUCH = 60.0, 0.05

#: So many samples know an accuracy to half a percentage point.
_ENOUGH = 10_000

#: From which measurement on, counted from 0, earlier ones are missed.
_EARLY = 3


class Notices:
    """Says each thing once, from rank 0; ``before`` is the last measurement of the run that is resumed."""

    def __init__(self, before: Record | None = None) -> None:
        self._before = before
        self._said: set[str] = set()
        self._measurements = 0
        self._seconds = self._passed = 0.0

    def say(self, record: Record, notes: Sequence[str] = ()) -> None:
        """Prints the notes on a measurement that are new: one warning for each reason why values are missing."""
        for note in filter(self._is_new, notes):
            tell(note)
        if self._before is not None:
            for note in changes(self._before, record):
                tell(note)
            self._before = None
        lost = [
            f"{one.unusable} of {one.name}" for one in record.sets if one.unusable and self._is_new(f"samples/{one.name}")
        ]
        if lost:
            found = ", ".join(lost)
            rank_zero_warn(
                f"TangentSensitivityMonitor: samples whose numbers are not finite are left out: {found} (said once)"
            )
        reasons: dict[str, list[str]] = {}
        for one in record.sets:
            for name, missing in one.missing.items():
                # what comes with the second measurement or the third needs no warning before
                if not (missing.too_early and self._measurements < _EARLY) and self._is_new(name):
                    reasons.setdefault(missing.reason, []).append(name)
        for reason, names in reasons.items():
            verb = "is" if len(names) == 1 else "are"
            rank_zero_warn(f"TangentSensitivityMonitor: {', '.join(names)} {verb} left out of the log: {reason} (said once)")
        self._measurements += 1
        if self._measurements == 2 and (precision := precision_note(record)) is not None:
            tell(precision)  # the first one takes longer than those that follow

    def cost(self, seconds: float, since: float) -> None:
        """Says once what measurements cost, if a user may notice it.

        Args:
            seconds: How long a measurement took.
            since: How long ago the one before it ended.
        """
        self._seconds += seconds
        self._passed += since
        share = self._seconds / self._passed
        if self._seconds >= _NOTICED and share >= _MUCH and self._is_new("cost"):
            tell(
                f"measurements have taken {share:.0%} of the time so far, {self._seconds:.0f} s; Options(max_share=0.03) "
                "leaves out those that would take more than 3 %, and a larger every_n_epochs measures less often"
            )

    def _is_new(self, name: str) -> bool:
        new = name not in self._said
        self._said.add(name)
        return new


def tell(note: str, teller: str = "TangentSensitivityMonitor") -> None:
    """Logs a note on lines of its own, of at most 80 columns where words are no longer, also beside a bar of tqdm."""
    with tqdm.external_write_mode():
        rank_zero_info(
            fill(f"{teller}: {note}", WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        )


def changes(before: Record, now: Record) -> list[str]:
    """Returns what a resumed run's first measurement has and the last one before had not, and the other way round."""
    notes: list[str] = []
    for kind, names in _NAMES.items():
        old, new = names(before), names(now)
        for found, what in ((new - old, "starts now, as the checkpoint does not know it"), (old - new, "does not go on")):
            notes.extend(f"the {kind} '{name}' {what}" for name in sorted(found))
    sizes = {one.name: one.samples for one in before.sets}
    notes.extend(
        f"{one.samples} samples of the {one.name} set are measured and no longer {sizes[one.name]}, so its values jump, and "
        "what compares its samples with earlier ones starts anew"
        for one in now.sets
        if sizes.get(one.name, one.samples) != one.samples
    )
    return notes


def _estimators(record: Record) -> set[str]:
    found = {key for one in record.sets for estimates in one.estimates.values() for key in estimates}
    return found - {TRIVIAL, HEADLINE} - _measures(record)


def _measures(record: Record) -> set[str]:
    return {key for one in record.sets for key in one.measures} | set(record.weights)


_NAMES: dict[str, Callable[[Record], set[str]]] = {
    "reference": lambda record: {record.reference.name},
    "set": lambda record: set(record.targets),
    "measure": _measures,
    "estimator": _estimators,
}


def cost_note(seconds: float, truth: float = 0.0, samples: int = 0) -> str | None:
    """Returns how long a measurement will take and how to shorten it; None where it is quick.

    So many seconds in all, of which ``truth`` are only for the true losses of test sets, the largest of so many samples.
    """
    if seconds < _SLOW:
        return None
    note = f"a measurement will take about {seconds:.0f} s, judging by a few samples; "
    if truth > seconds / 2 and samples > _ENOUGH:
        return note + (
            f"{truth:.0f} s of it are for the true loss, on {samples:,} samples of a test set: with "
            f"Options(num_label_samples={_ENOUGH}) an accuracy is known to half a percentage point"
        )
    return note + (
        "smaller num_samples and Options(num_loss_samples=...) shorten it, every_n_epochs=2 measures half as often"
    )


def precision_note(record: Record) -> str | None:
    """Returns how precise the empirical sensitivities are and what half the error costs; None where that is not known."""
    found = []
    for one in record.sets:
        measure = one.measures.get(MEASURE)
        value = None if measure is None else measure.values.get(MEASURE)
        if measure is not None and measure.stderr is not None and value and not one.whole:
            found.append((measure.stderr / value, one.name, one.samples))
    seconds = record.seconds.get("total")
    if not found or seconds is None:
        return None
    error, name, samples = max(found)
    cost = f", at about {4 * seconds:.0f} s a measurement instead of {seconds:.0f} s" if seconds >= 1 else ""
    return (
        f"the error of tangent sensitivity is {error:.1%} or less ({samples} samples of {name}); num_samples={4 * samples} "
        f"would halve it{cost}"
    )

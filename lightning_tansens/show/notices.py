"""What is said once in a run: what is missing and why, and how precise the values are."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_tansens.record import Record, SetRecord

#: The measure whose precision is told.
_MEASURE = "empirical"


class Notices:
    """Says each thing once, from rank 0."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._measurements = 0

    def say(self, record: Record) -> None:
        """Says what has not been said of a measurement: one warning for each reason why values are missing.

        Args:
            record: The measurement.

        """
        reasons: dict[str, list[str]] = {}
        for one in record.sets:
            for name, reason in one.missing.items():
                if name not in self._said:
                    self._said.add(name)
                    reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            verb = "is" if len(names) == 1 else "are"
            rank_zero_warn(f"TangentSensitivityMonitor: {', '.join(names)} {verb} left out of the log: {reason} (said once)")
        self._measurements += 1
        if self._measurements == 2:  # the first one takes longer than those that follow
            for one in record.sets:
                note = precision_note(one, record.seconds.get("total"))
                if note is not None:
                    rank_zero_info(f"TangentSensitivityMonitor: {note}")


def precision_note(one: SetRecord, seconds: float | None) -> str | None:
    """Returns how well the empirical sensitivity of a set is known and what knowing it better costs, if that is known."""
    measure = one.measures.get(_MEASURE)
    value = None if measure is None else measure.values.get(_MEASURE)
    if measure is None or measure.stderr is None or not value or seconds is None:
        return None
    return (
        f"{_MEASURE} of {one.name} is known to {measure.stderr / value:.1%} with {one.samples} samples; four times as many "
        f"would halve that, at about {4 * seconds:.1f} s for a measurement instead of {seconds:.1f} s"
    )

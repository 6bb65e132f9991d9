"""What a run says once: what is missing and why, and how precise the values are."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_tansens.monitor.measurement import Measurement
from lightning_tansens.record import Record, SetRecord


class Notices:
    """Says each thing once in a fit, from rank 0."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Starts a new fit."""
        self._said: set[str] = set()
        self._measurements = 0

    def say(self, record: Record, measurement: Measurement) -> None:
        """Says what has not been said of a measurement's values.

        Args:
            record: The measurement.
            measurement: What was measured.

        """
        missing = {name: (found.name, why) for found in record.sets for name, why in found.missing.items()}
        for name, (set_name, why) in missing.items():
            if name not in self._said:
                self._said.add(name)
                rank_zero_warn(f"TangentSensitivityMonitor: {name} has no value on {set_name}: {why} (said once)")
        self._measurements += 1
        if self._measurements == 2:  # the first one takes longer than those that follow
            for found, measured in zip(record.sets, measurement.sets, strict=True):
                if found.samples < measured.subset.available:
                    self._say_precision(found, record.seconds["total"])

    def _say_precision(self, found: SetRecord, seconds: float) -> None:
        measure = found.measures.get("empirical")
        value = None if measure is None else measure.values.get("empirical")
        if measure is None or measure.stderr is None or not value:
            return
        rank_zero_info(
            f"TangentSensitivityMonitor: the empirical sensitivity of {found.name} is known to {measure.stderr / value:.1%} "
            f"with {found.samples} samples; four times as many would halve that, at about {4 * seconds:.1f} s for a "
            f"measurement instead of {seconds:.1f} s"
        )

"""What is said once in a run: what is missing and why, and how precise the values are."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_tansens.monitor.report import Report, precision_note
from lightning_tansens.monitor.sets import MeasuredSet


class Notices:
    """Says each thing once, from rank 0."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._measurements = 0

    def say(self, report: Report, sets: Sequence[MeasuredSet]) -> None:
        """Says what has not been said of a measurement's values.

        Args:
            report: The measurement.
            sets: What was measured.

        """
        for key, reason in report.undefined.items():
            if key not in self._said:
                self._said.add(key)
                rank_zero_warn(f"TangentSensitivityMonitor: {key} is left out of the log: {reason} (said once)")
        self._measurements += 1
        if self._measurements == 2:  # the first one takes longer than those that follow
            for measured in sets:
                precision = precision_note(report, measured.name, measured.subset.head)
                if precision is not None:
                    rank_zero_info(f"TangentSensitivityMonitor: {precision}")

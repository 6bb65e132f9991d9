"""What a monitor has found so far, for notebooks, other callbacks and loggers."""

from __future__ import annotations

from collections.abc import Collection

import lightning.pytorch as pl

from lightning_tansens.monitor.namespaces import OtherCallback
from lightning_tansens.monitor.records import without_estimators, without_values
from lightning_tansens.monitor.spawned import Mailbox
from lightning_tansens.monitor.state import MonitorState
from lightning_tansens.record import Record, SetEstimates
from lightning_tansens.show.keys import Keys, flat_row
from lightning_tansens.show.notebook import to_html
from lightning_tansens.show.scorecard import Scorecard


class Results(pl.Callback, OtherCallback):
    """A callback that keeps what it has found.

    Args:
        prefix: What the keys of its values begin with.
        brief: Whether loggers are sent the values that one looks at, and not all that :attr:`history` holds.
        unsent: The keys of the estimators whose estimates and scores loggers are not sent.
        details: The names of values of measures that loggers are not sent.

    """

    def __init__(self, prefix: str, brief: bool, unsent: Collection[str], details: Collection[str] = ()) -> None:
        super().__init__()
        self._keys, self._brief, self._unsent, self._details = Keys(prefix), brief, unsent, details
        self._state = MonitorState()
        self._mailbox = Mailbox()
        self._logged_step: int | None = None

    @property
    def records(self) -> list[Record]:
        """Everything that was computed, one record a measurement."""
        self._mailbox.receive(self._state)
        return self._state.records

    @property
    def estimates(self) -> dict[str, SetEstimates]:
        """The headline's estimates at the last measurement, by set: ``monitor.estimates["test"].loss.low``."""
        records = self.records
        return {name: target.headline for name, target in records[-1].targets.items()} if records else {}

    @property
    def history(self) -> list[dict[str, float]]:
        """Everything that was computed as flat rows, one a measurement, with ``epoch`` and ``step``."""
        return [flat_row(record, self._keys) for record in self.records]

    @property
    def scorecard(self) -> Scorecard:
        """How good the estimates were so far, where the truth is known."""
        return Scorecard.from_records(self.records)

    def _repr_html_(self) -> str:
        """Shows a table of the sets in a notebook."""
        return to_html(self.records)

    def is_fresh(self, trainer: pl.Trainer, key: str) -> bool:
        """Says whether a key was logged with a value of the current weights."""
        return self._logged_step == trainer.global_step and key in flat_row(self._state.records[-1], self._keys)

    def brief(self, record: Record) -> Record:
        """Returns a record as loggers are sent it.

        Without ``log="all"``, of the default estimators it has the headline alone, and of the default measures no values
        that look like others.
        """
        record = without_estimators(record, self._unsent) if self._unsent else record
        return without_values(record, self._details) if self._details else record

    def logged(self, record: Record) -> dict[str, float]:
        """Returns the scalars that loggers are sent of a record, by key."""
        row = flat_row(self.brief(record), self._keys, brief=self._brief)
        return {key: value for key, value in row.items() if key not in ("epoch", "step")}

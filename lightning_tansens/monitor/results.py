"""What a monitor has found so far, for notebooks, other callbacks and loggers."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_tansens.estimators import Estimator
from lightning_tansens.monitor.records import without_estimators
from lightning_tansens.monitor.spawned import Mailbox
from lightning_tansens.monitor.state import MonitorState
from lightning_tansens.record import HEADLINE, Record, SetEstimates
from lightning_tansens.show import Display
from lightning_tansens.show.keys import Keys, flat_row
from lightning_tansens.show.notebook import to_html
from lightning_tansens.show.scorecard import Scorecard


class Results(pl.Callback):
    """The results of the monitor, which sets these attributes."""

    estimators: list[Estimator]
    default_estimators: bool
    display: Display
    _keys: Keys
    _state: MonitorState
    _mailbox: Mailbox
    _logged_step: int | None

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
        """Returns a record as loggers are sent it: of the default estimators the headline alone, unless ``log="all"``."""
        if self._is_brief:
            return without_estimators(record, {estimator.key for estimator in self.estimators} - {HEADLINE})
        return record

    def logged(self, record: Record) -> dict[str, float]:
        """Returns the scalars that loggers are sent of a record, by key."""
        row = flat_row(self.brief(record), self._keys, brief=self.display.log == "default")
        return {key: value for key, value in row.items() if key not in ("epoch", "step")}

    @property
    def _is_brief(self) -> bool:
        """Whether the loggers are sent the headline alone of the default estimators."""
        return self.default_estimators and self.display.log == "default"

"""What a monitor has found so far, for notebooks, other callbacks and loggers."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from lightning_tansens.estimators import Estimator, default_estimators
from lightning_tansens.metrics import default_measures
from lightning_tansens.metrics.base import Measure
from lightning_tansens.monitor.namespaces import OtherCallback
from lightning_tansens.monitor.options import Options
from lightning_tansens.monitor.processes import together
from lightning_tansens.monitor.records import without
from lightning_tansens.monitor.state import Mailbox, MonitorState
from lightning_tansens.monitor.trainer_loggers import log_for_callbacks, run_folder, say, wanted, writers
from lightning_tansens.record import HEADLINE, Record, SetEstimates
from lightning_tansens.show import Display
from lightning_tansens.show.console import measurement_text
from lightning_tansens.show.keys import Keys, flat_row
from lightning_tansens.show.notebook import to_html
from lightning_tansens.show.notices import Notices
from lightning_tansens.show.page import Page
from lightning_tansens.show.scorecard import Scorecard


class Results(pl.Callback, OtherCallback):
    """A callback that keeps what it has found, and shows it."""

    def __init__(
        self,
        measures: list[Measure] | None,
        estimators: list[Estimator] | None,
        verbose: bool,
        display: Display | None,
        options: Options | None,
    ) -> None:
        super().__init__()
        self.measures = default_measures() if measures is None else measures
        self.estimators = default_estimators() if estimators is None else estimators
        #: Whether the measures, and the estimators, are the default ones.
        self.default_measures, self.default_estimators = measures is None, estimators is None
        self.verbose = verbose
        self.display = Display() if display is None else display
        self.options = Options() if options is None else options
        self._state = MonitorState()
        self._mailbox = Mailbox()
        self._notices = Notices()
        self._logged_step: int | None = None
        self._measured_at: float | None = None

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
        details = {name for measure in self.measures for name in measure.details}
        return without(record, self._unsent, details if self._is_brief and self.default_measures else ())

    def logged(self, record: Record) -> dict[str, float]:
        """Returns the scalars that loggers are sent of a record, by key."""
        row = flat_row(self.brief(record), self._keys, brief=self._is_brief)
        return {key: value for key, value in row.items() if key not in ("epoch", "step")}

    @property
    def _keys(self) -> Keys:
        return Keys(self.options.prefix)

    @property
    def _is_brief(self) -> bool:
        return self.display.log == "default"

    @property
    def _explained(self) -> Sequence[Measure | Estimator]:
        return [*self.measures, *self.estimators]

    @property
    def _unsent(self) -> set[str]:
        """The keys of the estimators whose estimates and scores loggers are not sent."""
        brief = self._is_brief and self.default_estimators
        return {estimator.key for estimator in self.estimators} - {HEADLINE} if brief else set()

    def _new_page(self, trainer: pl.Trainer) -> Page:
        folder = run_folder(trainer)  # all processes must ask for it together
        with together(trainer):
            return Page(
                self.display,
                self._keys,
                writers(trainer, folder),
                self._explained,
                self.options.correlate_with_gap,
                folder,
                self.options.on_failure == "raise",
                self.brief,
            )

    def _tell(self, trainer: pl.Trainer, record: Record, notes: Sequence[str]) -> None:
        """Prints a line for a measurement, and what is new to say of it."""
        if self.verbose:
            say(trainer, measurement_text(record))
        self._notices.say(record, notes)

    def _log(self, trainer: pl.Trainer, seconds: float) -> dict[str, float]:
        """Notes how long the last measurement took, makes its values known to callbacks, and returns those for loggers."""
        record = self._state.records[-1]
        record = self._state.records[-1] = replace(record, seconds={**record.seconds, "total": seconds})
        before, self._measured_at, self._logged_step = self._measured_at, time.perf_counter(), trainer.global_step
        if before is not None and trainer.state.fn == TrainerFn.FITTING and self.options.max_share is None:
            self._notices.cost(seconds, self._measured_at - before)
        scalars = self.logged(record)
        log_for_callbacks(trainer, wanted(trainer, flat_row(record, self._keys)) if self._is_brief else scalars)
        return scalars

    def _too_soon(self, share: float) -> bool:
        """Says whether a measurement as long as the last one would take more than its share of the time since then."""
        since = math.inf if self._measured_at is None else time.perf_counter() - self._measured_at
        return bool(self._state.records) and self._state.records[-1].seconds["total"] > share * since

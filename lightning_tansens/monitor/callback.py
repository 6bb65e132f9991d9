"""The callback: it decides when to measure, and hands the records to the loggers."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset

from lightning_tansens.estimators import Estimator
from lightning_tansens.metrics.base import Measure
from lightning_tansens.metrics.criteria import Criterion
from lightning_tansens.monitor.across_processes import measure, prepare, snapshot_is_due, take_snapshot
from lightning_tansens.monitor.data.batches import unpack_batch
from lightning_tansens.monitor.data.hold_out import HeldOut, hold_out
from lightning_tansens.monitor.data.reading import Unpack
from lightning_tansens.monitor.data.trainer_data import Data, has_validation
from lightning_tansens.monitor.failures import Failures
from lightning_tansens.monitor.measured_run import MeasuredRun
from lightning_tansens.monitor.notes import notes_on_fit
from lightning_tansens.monitor.options import Options, check_arguments
from lightning_tansens.monitor.processes import largest, together
from lightning_tansens.monitor.results import Results
from lightning_tansens.monitor.state import MonitorState
from lightning_tansens.monitor.trainer_loggers import hyperparameters, logging_step, say
from lightning_tansens.show import Display
from lightning_tansens.show.console import summary_table
from lightning_tansens.show.notices import Notices, tell
from lightning_tansens.show.page import Page
from lightning_tansens.tangent.batches import OutputPicker
from lightning_tansens.tangent.isolation import isolated_rng


class TangentSensitivityMonitor(Results):
    """Measures a network's sensitivity at epoch ends and estimates its loss and accuracy on data without labels.

    On a fixed random subset of the labelled reference and of each test set, the callback computes every measure and every
    estimate. Training is left bitwise as it was: weights, gradients, modes, buffers and random states. ``Trainer.validate``
    and ``Trainer.test`` measure once, at their end.

    Logged keys, for a measure ``m`` (``empirical``, ``layer_norm``, ``active_nodes``), a reference ``r`` (``train``,
    ``val`` or ``reference``) and a test set ``s`` (``test``, or the names of a dict):

    - ``tansens/<m>/<r>``, ``tansens/<m>/<s>``: the measure (``empirical``: mean ‖S‖_F²; ``active_nodes``: log ψ*);
      ``tansens/layer_norm``: log Π w_max, which needs no data.
    - ``tansens/<r>_loss``, ``tansens/<r>_accuracy``: the reference in eval mode, on the subset.
    - ``tansens/<s>_loss/estimate``, ``…/estimate_low``, ``…/estimate_high``, ``…/estimate_reliable`` (1 or 0), and the same
      for ``tansens/<s>_accuracy``: the one estimate to look at, with its 95 % interval.
    - ``tansens/<s>_loss/<e>``, ``tansens/<s>_accuracy/<e>``: the estimate of each estimator ``e``, a measure or another one;
      ``…/actual``: the truth, with ``compare_with_labels``.
    - ``tansens/seconds``: how long the measurement took. The documentation has a table of all keys.

    Args:
        test_dataloaders: The unlabelled data: a DataLoader, a Dataset, a dict of them by name, "val" for the validation
            data, or None for the datamodule's test set (after its own ``setup("test")``) or else the LightningModule's.
        reference: The labelled set to compare with: "val", "train", one of several loaders ("val:1", "train:name"), a
            DataLoader or a Dataset; "auto" takes the validation data if the Trainer has any, else the training data. The
            Trainer's own data pass through their own transforms; pass a Dataset to measure without them. A number between 0
            and 1 holds that share of the training data back.
        measures: The measures; None for EmpiricalSensitivity, LayerwiseNormSensitivity and ActiveNodeSensitivity, without
            those that do not suit the network.
        estimators: The estimators that do not come with a measure; None for ``estimators.default_estimators()``, without
            those that do not suit the outputs.
        num_samples: The number of samples of each set on which the measures are computed.
        every_n_epochs: Measure after every n-th epoch.
        unpack: A callable that splits a batch into (inputs, targets); None takes pairs, and finds labels by their names.
        output: A callable that picks the tensor of outputs from what the network returns; None finds a lone tensor and
            ``logits``.
        criterion: A callable on (outputs, targets) that returns the loss; None finds the one that the module trains on.
        network: The name of the LightningModule's submodule to measure; None measures its ``forward``, or without one its
            only part with weights.
        compare_with_labels: Whether to compute the true loss of test sets that have labels, and the measures that need
            labels on them. No estimate sees these labels.
        verbose: Whether to print a line for each measurement, and a table at the end of a fit.
        display: What the loggers are sent; None for the defaults.
        options: Further options; None for the defaults.

    Raises:
        ValueError: If an argument has a value that is not allowed.
        TypeError: If an argument has a type that is not allowed.

    Example:
        >>> monitor = TangentSensitivityMonitor(num_samples=256, every_n_epochs=2)
        >>> trainer = pl.Trainer(callbacks=[monitor], logger=False, enable_checkpointing=False, accelerator="cpu")
    """

    def __init__(
        self,
        test_dataloaders: Data | dict[str, Data] | str | None = None,
        reference: DataLoader | Dataset | float | str = "auto",
        measures: list[Measure] | None = None,
        estimators: list[Estimator] | None = None,
        num_samples: int = 128,
        every_n_epochs: int = 1,
        unpack: Unpack | None = None,
        output: OutputPicker | None = None,
        criterion: Criterion | None = None,
        network: str | None = None,
        compare_with_labels: bool = False,
        verbose: bool = True,
        display: Display | None = None,
        options: Options | None = None,
    ) -> None:
        super().__init__(measures, estimators, verbose, display, options)
        self.test_dataloaders = test_dataloaders
        self.reference = reference
        self.num_samples = num_samples
        self.every_n_epochs = every_n_epochs
        self.unpack = unpack_batch if unpack is None else unpack
        self.output = output
        self.criterion = criterion
        self.network = network
        self.compare_with_labels = compare_with_labels
        check_arguments(self)
        #: The sets of the last fit, or of the last of evaluations that follow one another.
        self._run: MeasuredRun | None = None
        self._page: Page | None = None
        self._snapshot_step: int | None = None
        self._failures = Failures(self.options.on_failure)
        self._stages = ExitStack()
        #: The samples that the last fit held back, if the reference is a number.
        self.held_out: HeldOut | None = None
        self._follows = False

    def follow_evaluations(self, state: Mapping[str, Any] | None = None) -> None:
        """Treats the evaluations from now on as one series, like the measurements of a fit.

        Each ``Trainer.validate`` or ``Trainer.test`` is compared with the one before, so that a folder of checkpoints
        becomes a trajectory; the first one has nothing to compare with. A failed measurement raises, nothing is printed, and
        :attr:`records` starts empty. The next fit ends the series.

        Args:
            state: The monitor's state in a checkpoint of the run, for measures that compare with the run's start; None
                makes the first evaluation the start.

        Raises:
            ValueError: If the state is not a monitor's; the message names the field.
        """
        self._state = MonitorState() if state is None else MonitorState.from_dict(state).at_start()
        self._run, self._follows, self._failures = None, True, Failures("raise")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forgets an earlier fit, and holds samples back for the reference."""
        if stage != TrainerFn.FITTING:
            return
        if isinstance(self.reference, float):
            self.held_out = hold_out(trainer, self.reference, self.options.seed, self._stages)
        self._run, self._follows = None, False
        self._state.loaded = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tells the loggers which values to compare runs by, before Lightning sends the hyperparameters."""
        targets = list(self.test_dataloaders) if isinstance(self.test_dataloaders, Mapping) else ["test"]
        self._page = self._new_page(trainer)
        with self._failures.handled(trainer), together(trainer):
            sent = [one.key for one in self._explained if one.key not in self._unsent]
            self._page.compare(targets, sent, hyperparameters(trainer), self.compare_with_labels)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the subsets and tries each measure on a first batch, before the first step."""
        if self.options.measure_at == "validation_epoch_end" and not has_validation(trainer):
            raise MisconfigurationException(
                "measure_at='validation_epoch_end': expected a validation loop, but the Trainer has none; add one or "
                "use measure_at='auto'"
            )
        if not self._state.loaded:
            self._state = MonitorState()
        self._notices = Notices(self._state.records[-1] if self._state.records else None)
        self._failures = Failures(self.options.on_failure)
        self._logged_step = self._measured_at = None
        self._snapshot_step = trainer.global_step
        if self._state.loaded and self._page is not None:  # before any monitor sends something
            with self._failures.handled(trainer), together(trainer):
                self._page.resume(logging_step(trainer) + 1)
        with isolated_rng():
            self._run = self._prepare(trainer, pl_module)
        subsets = {measured.name: measured.subset for measured in self._run.sets}
        on_fit = notes_on_fit(trainer, self.reference, subsets, self.num_samples, self.options)
        for note in [*self._run.notes(), *on_fit]:
            tell(note)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures after a validation, in time for checkpoints that are chosen by the values."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._evaluate(trainer, pl_module)
            return
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and self.options.measure_at != "train_epoch_end":
            self._measure_if_due(trainer, pl_module)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Takes a snapshot within an epoch, with ``Options.snapshots_per_epoch``, unless these weights already have one."""
        # at the start of the next batch, as a validation in between may measure the same weights
        due = batch_idx > 0 and snapshot_is_due(
            batch_idx - 1, trainer.num_training_batches, self.options.snapshots_per_epoch
        )
        if due and trainer.global_step not in (self._state.measured_step, self._snapshot_step):
            self._snapshot_step = trainer.global_step
            with self._failures.handled(trainer), isolated_rng():
                assert self._run is not None
                take_snapshot(trainer, pl_module, self._run)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures after an epoch, unless a validation has just done so."""
        if self.options.measure_at != "validation_epoch_end":
            self._measure_if_due(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the last figures and prints how the estimates did."""
        records = self._state.records
        if self.verbose and records:
            say(trainer, summary_table(records, None if self._page is None else self._page.scorecard_file))
        elif self.verbose and self._failures.last is not None:  # a warning may have been filtered
            say(trainer, f"TangentSensitivityMonitor: no measurement succeeded; the last one failed: {self._failures.last}")
        with self._failures.handled(trainer), isolated_rng(), together(trainer):
            if self._page is not None and self._run is not None:
                self._page.finish(records)
        self._mailbox.send(trainer, self._state)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tears down the stages of the datamodule that were set up to measure its data."""
        self._stages.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Tears them down after an error, too; prints the table of a fit that the user has interrupted."""
        fitting = trainer.state.fn == TrainerFn.FITTING and self._run is not None
        if self.verbose and fitting and isinstance(exception, KeyboardInterrupt):  # for which there is no on_train_end
            say(trainer, summary_table(self._state.records))
        self._stages.close()

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures once in ``Trainer.test``."""
        self._evaluate(trainer, pl_module)

    @property
    def state_key(self) -> str:
        """Tells the states of several monitors apart."""
        return self._generate_state_key(prefix=self.options.prefix)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs: the records, and what the next measurement is compared with."""
        return self._remembered().to_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where a checkpoint was taken, unless evaluations follow one another.

        Raises:
            ValueError: If the state is not a monitor's; the message names the field.
        """
        if not self._follows:
            self._state = MonitorState.from_dict(state_dict)

    def _measure_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and trainer.global_step != self._state.measured_step
        share = self.options.max_share
        if due and (share is None or not trainer.strategy.broadcast(self._too_soon(share))):
            self._state.measured_step = trainer.global_step
            with self._failures.handled(trainer), isolated_rng():
                assert self._run is not None
                assert self._page is not None
                self._measure(trainer, pl_module, self._run, self._page)

    def _evaluate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures weights outside a fit; leaves the fit's memory alone unless evaluations follow one another."""
        with self._failures.handled(trainer), isolated_rng(), torch.inference_mode(False):
            run = self._prepare(trainer, pl_module)
            self._measure(trainer, pl_module, run, self._new_page(trainer))
            if self._follows:
                self._run = run

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> MeasuredRun:
        return prepare(trainer, pl_module, self, self._stages, self._remembered(), self._run, self._follows)

    def _remembered(self) -> MonitorState:
        """Returns what the next measurement is compared with: from the run, or from a loaded checkpoint."""
        return self._state if self._run is None else replace(self._state, **self._run.remembered())

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, run: MeasuredRun, page: Page) -> None:
        start = time.perf_counter()
        record, summaries = measure(trainer, pl_module, self, run, self._state.records)
        with together(trainer):
            self._state.records.append(record)
            if not self._follows:
                self._tell(trainer, record, page.notes)
            distributions = {summary.name: summary.distributions for summary in summaries}
            page.show(record, self._state.records, distributions, run.shown(summaries))
        total = largest(trainer, time.perf_counter() - start)  # with the time that the page took on the writing process
        with together(trainer):
            page.scalars(self._state.records[-1], self._log(trainer, total))

"""The callback: it decides when to measure, draws the sets and hands values to the loggers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lightning_tansens.estimators import Peer
from lightning_tansens.estimators.calibration import Calibration, check_features
from lightning_tansens.estimators.scaling import AccuracyForm
from lightning_tansens.estimators.trust import Limits
from lightning_tansens.metrics import default_measures
from lightning_tansens.metrics.base import Measure
from lightning_tansens.metrics.labelled_loss import Criterion
from lightning_tansens.monitor.arguments import MeasureAt, check_options
from lightning_tansens.monitor.failures import Failures, OnFailure
from lightning_tansens.monitor.measurement import Measurement
from lightning_tansens.monitor.processes import slowest, together
from lightning_tansens.monitor.sets import Unpack, unpack_pair
from lightning_tansens.monitor.trainer_data import batch_transfer, find_network, has_validation
from lightning_tansens.monitor.trainer_sets import SetOptions, draw_copies, draw_sets
from lightning_tansens.show import Display
from lightning_tansens.show.console import measurement_line, say, scorecard_table, slow_progress, summary_table
from lightning_tansens.show.keys import Keys
from lightning_tansens.show.layout import compared_keys
from lightning_tansens.show.loggers import hyperparameters, log_scalars, logging_step, run_folder, writers
from lightning_tansens.show.notices import Notices
from lightning_tansens.show.page import Page
from lightning_tansens.show.scorecard import Scorecard
from lightning_tansens.tangent.isolation import isolated_rng, undisturbed


class TangentSensitivityMonitor(pl.Callback):
    """Measures a network's sensitivity at epoch ends and estimates its loss on data without labels.

    On a fixed random subset of the reference (the training set, by default) and of each test set, every measure is
    computed; the reference's labelled loss times the ratio of the two is the estimate of the test loss. Training is left
    bitwise as it was: weights, gradients, modes, buffers and random states. ``Trainer.validate`` and ``Trainer.test``
    measure once, at their end.

    Logged keys, for a measure ``m`` (``empirical``, ``layer_norm``, ``active_nodes``), a reference ``r`` (``train``,
    ``val`` or ``reference``) and a test set ``s`` (``test``, or the names of a dict):

    - ``tansens/<m>/<r>``, ``tansens/<m>/<s>``: the measure (``empirical``: mean ‖S‖_F²; ``active_nodes``: log ψ*);
      ``tansens/layer_norm``: log Π w_max, which needs no data.
    - ``tansens/<r>_loss``, ``tansens/<r>_accuracy``: the reference in eval mode, on the subset.
    - ``tansens/<s>_loss/<m>``, ``tansens/<s>_accuracy/<m>``: the estimates, with ``…/<m>_stderr`` and ``…/<m>_trusted``, 1
      or 0; ``…/trivial``: the reference's own, the baseline that an estimate should beat; ``…/actual``: the truth, with
      ``compare_with_labels``.
    - ``tansens/seconds``: what the measurement took. The documentation has a table of all keys.

    Args:
        test_dataloaders: The unlabelled data: a DataLoader, a Dataset, a dict of them by name, or None for the
            datamodule's test set (after its own ``setup("test")``) or else the LightningModule's.
        reference: The set whose labelled loss is scaled: "train", "val", a DataLoader or a Dataset. "train" passes through
            the training transforms; pass a Dataset to measure without them.
        measures: The measures; None for EmpiricalSensitivity, LayerwiseNormSensitivity and ActiveNodeSensitivity.
        peers: Other label-free estimators, for classifiers; None for none, ``peers.default_peers()`` has them all.
        num_samples: The number of samples of each set on which the measures are taken.
        num_loss_samples: The number of samples, these among them, on which the labelled loss and the peers are taken, which
            are noisier and cost less; at least ``num_samples``.
        batch_size: The number of samples measured at once; results do not depend on it.
        every_n_epochs: Measure after every n-th epoch.
        unpack: A callable that splits a batch into (inputs, targets); None takes tuples and lists.
        criterion: A callable on (outputs, targets) that returns the mean loss or one for each sample; None for
            cross-entropy.
        compare_with_labels: Whether to log the true loss of test sets that have labels, and the measures that need labels
            on them. No estimate sees these labels.
        by_class: Whether to log the loss of each class, where the labels are classes.
        correlate_with_gap: Whether to log the correlations, over the measurements so far, of all that is measured on a test
            set with the gap between its true loss and the reference's; needs ``compare_with_labels``.
        accuracy_form: "error" scales the reference's error rate, "ratio" its accuracy (as Daróczy 2022 does).
        network: The name of the LightningModule's submodule to measure; None measures its ``forward``.
        measure_at: The hook: "validation_epoch_end" suits checkpoints that are chosen after validation, "auto" takes it
            wherever there is a validation loop and "train_epoch_end" where not.
        on_failure: What to do when a measurement fails, on all processes alike: "raise", "warn" (once, with the cause; the
            epoch's values are left out and training goes on) or "ignore". What cannot be measured at all is refused before
            the first step, whatever is chosen.
        calibration: How the ``calibrated`` estimator is fitted, on perturbed copies of the reference; None for none.
        limits: What is required of an estimate to be trusted; None for the defaults.
        display: What the loggers are sent beside scalars: charts, texts, histograms, figures; None for all of them.
        verbose: Whether to print a line for each measurement, and a table at the end of a fit.
        seed: Seed of the subsets, of the transforms' randomness on them, and of random probes.
        prefix: What the logged keys begin with.

    Raises:
        ValueError: If an argument has a value that is not allowed.
        TypeError: If an argument has a type that is not allowed.

    Example:
        >>> monitor = TangentSensitivityMonitor(num_samples=256, every_n_epochs=2)
        >>> trainer = pl.Trainer(callbacks=[monitor], logger=False, enable_checkpointing=False, accelerator="cpu")

    """

    def __init__(
        self,
        test_dataloaders: DataLoader | Dataset | dict[str, DataLoader | Dataset] | None = None,
        reference: Literal["train", "val"] | DataLoader | Dataset = "train",
        measures: list[Measure] | None = None,
        peers: list[Peer] | None = None,
        num_samples: int = 256,
        num_loss_samples: int = 1024,
        batch_size: int = 256,
        every_n_epochs: int = 1,
        unpack: Unpack | None = None,
        criterion: Criterion | None = None,
        compare_with_labels: bool = False,
        by_class: bool = False,
        correlate_with_gap: bool = False,
        accuracy_form: AccuracyForm = "error",
        network: str | None = None,
        measure_at: MeasureAt = "auto",
        on_failure: OnFailure = "warn",
        calibration: Calibration | None = None,
        limits: Limits | None = None,
        display: Display | None = None,
        verbose: bool = False,
        seed: int = 0,
        prefix: str = "tansens",
    ) -> None:
        super().__init__()
        self.test_dataloaders = test_dataloaders
        self.reference = reference
        self.measures = default_measures() if measures is None else measures
        self.peers = [] if peers is None else peers
        self.num_samples = num_samples
        self.num_loss_samples = num_loss_samples
        self.batch_size = batch_size
        self.every_n_epochs = every_n_epochs
        self.unpack = unpack_pair if unpack is None else unpack
        self.criterion = criterion
        self.compare_with_labels = compare_with_labels
        self.by_class = by_class
        self.correlate_with_gap = correlate_with_gap
        self.accuracy_form = accuracy_form
        self.network = network
        self.measure_at = measure_at
        self.on_failure = on_failure
        self.calibration = calibration
        self.limits = Limits() if limits is None else limits
        self.display = Display() if display is None else display
        self.verbose = verbose
        self.seed = seed
        self.prefix = prefix
        check_options(vars(self))
        if calibration is not None:
            check_features(calibration.features, self.measures)
        self._keys = Keys(prefix)
        #: What was logged, one row a measurement, with ``epoch`` and ``step``.
        self.history: list[dict[str, float]] = []
        self._measurement: Measurement | None = None
        self._page: Page | None = None
        self._weights_before: dict[str, dict[str, float]] = {}
        self._memories: dict[str, dict[str, dict[str, torch.Tensor]]] = {}
        self._measured_step: int | None = None
        self._logged_step: int | None = None
        self._failures = Failures(on_failure)
        self._notices = Notices()

    # ------------------------------------------------------------------------------------------------ hooks

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses what cannot be measured, and forgets an earlier fit."""
        if stage != TrainerFn.FITTING:
            return
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
            raise MisconfigurationException(
                f"TangentSensitivityMonitor: expected every process to hold the whole network, but "
                f"{type(trainer.strategy).__name__} shards it; train with DDP or on one device, or take the callback out"
            )
        self.history, self._measurement, self._weights_before, self._memories = [], None, {}, {}
        self._measured_step = self._logged_step = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tells the loggers by which values runs are compared, before Lightning sends the hyperparameters."""
        sets = self.test_dataloaders if isinstance(self.test_dataloaders, Mapping) else ("test",)
        with self._failures.handled(trainer.current_epoch, trainer.is_global_zero), together(trainer):
            for writer in writers(trainer) if self.display.layout else ():
                writer.compare(compared_keys(sets, self.measures, self._keys), hyperparameters(trainer))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the subsets and tries each measure on one sample, before the first step."""
        if self.measure_at == "validation_epoch_end" and not has_validation(trainer):
            raise MisconfigurationException(
                "measure_at='validation_epoch_end': expected a validation loop, but the Trainer has none; add one or "
                "use measure_at='auto'"
            )
        with isolated_rng():
            self._measurement = self._prepare(trainer, pl_module)
        self._page = self._new_page(trainer)
        for note in self._measurement.notes():
            rank_zero_info(f"TangentSensitivityMonitor: {note}")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures after a validation, where its values are in time for checkpoints chosen then."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._evaluate(trainer, pl_module)
        elif trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and self.measure_at != "train_epoch_end":
            self._measure_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures after an epoch, unless a validation has just done so."""
        if self.measure_at != "validation_epoch_end":
            self._measure_if_due(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the last figures and, if asked to, prints how the estimates did."""
        if self.verbose and self.history:
            say(trainer, summary_table(self.history, self._keys))
            if self.scorecard.compute():
                say(trainer, "\n" + scorecard_table(self.scorecard))
        with self._failures.handled(trainer.current_epoch, trainer.is_global_zero), isolated_rng(), together(trainer):
            if self._page is not None and self._measurement is not None:
                self._page.finish(self.history, self._measurement.sets, self.scorecard)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures once in ``Trainer.test``."""
        self._evaluate(trainer, pl_module)

    @property
    def scorecard(self) -> Scorecard:
        """How good the estimates were so far, where the truth was logged."""
        return Scorecard.from_history(self.history, self._keys)

    def is_fresh(self, trainer: pl.Trainer, key: str) -> bool:
        """Says whether a key was logged with a value of the current weights."""
        return self._logged_step == trainer.global_step and key in self.history[-1]

    @property
    def state_key(self) -> str:
        """Tells the states of several monitors apart."""
        return self._generate_state_key(prefix=self.prefix)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs: the norms of the previous measurement, and the history."""
        memories, weights_before = self._remembered()
        return {
            "weights_before": weights_before,
            "memories": memories,
            "history": self.history,
            "measured_step": self._measured_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where a checkpoint was taken.

        Raises:
            ValueError: If the state is not that of a monitor.

        """
        for name in ("history", "weights_before", "measured_step"):
            if name not in state_dict:
                raise ValueError(
                    f"expected the state of a TangentSensitivityMonitor, but {name!r} is missing from it, which has "
                    f"{list(state_dict)}; pass weights alone, or take the state out of the checkpoint"
                )
        self._weights_before = state_dict["weights_before"]
        self._memories = state_dict.get("memories", {})  # older states have none
        self.history = list(state_dict["history"])
        self._measured_step = state_dict["measured_step"]

    # ------------------------------------------------------------------------------------------ measurement

    def _measure_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs or trainer.global_step == self._measured_step:
            return
        self._measured_step = trainer.global_step
        with self._failures.handled(trainer.current_epoch, trainer.is_global_zero), isolated_rng():
            assert self._measurement is not None
            assert self._page is not None
            self._measure(trainer, pl_module, self._measurement, self._page)

    def _evaluate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures weights outside of a fit, whose memory is left as it is."""
        policy = self._failures.handled(trainer.current_epoch, trainer.is_global_zero)
        with policy, isolated_rng(), torch.inference_mode(False):
            self._measure(trainer, pl_module, self._prepare(trainer, pl_module), self._new_page(trainer))

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Measurement:
        # what may fail on one process stands under `together`; what talks to the others stands outside of it
        with together(trainer), undisturbed(pl_module):
            options = self._set_options()
            sets = draw_sets(trainer, options, None if self._measurement is None else self._measurement.sets[0])
            measurement = Measurement(
                self.measures,
                sets,
                self._keys,
                self.accuracy_form,
                self.correlate_with_gap,
                self.peers,
                self.limits,
                draw_copies(sets[0], options),
                options.features,
            )
            network = find_network(pl_module, self.network)
            measurement.prepare(network, batch_transfer(trainer), pl_module.device, *self._remembered())
        measurement.remember_first()
        return measurement

    def _remembered(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is compared with: of the running fit, or else of a loaded checkpoint."""
        if self._measurement is None:
            return self._memories, self._weights_before
        return self._measurement.memories(), self._measurement.weights_before

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, measurement: Measurement, page: Page) -> None:
        start = time.perf_counter()
        shows_progress = trainer.is_global_zero and trainer.progress_bar_callback is not None
        progress = slow_progress(measurement.num_batches, "measuring sensitivities", enabled=shows_progress)
        with together(trainer), undisturbed(pl_module), progress:
            measurement.accumulate(find_network(pl_module, self.network), batch_transfer(trainer), progress.update)
        with measurement.synced(), together(trainer):
            report = measurement.report(self.history)
        report.scalars[self._keys.value("seconds")] = slowest(trainer, time.perf_counter() - start)
        if measurement.calibration_seconds is not None:
            report.scalars[self._keys.value("calibration_seconds")] = slowest(trainer, measurement.calibration_seconds)
        measurement.remember_weights()
        with together(trainer):
            log_scalars(trainer, report.scalars)
            self.history.append({"epoch": trainer.current_epoch, "step": logging_step(trainer), **report.scalars})
            self._logged_step = trainer.global_step
            if self.verbose:
                say(trainer, measurement_line(self.history[-1], self._keys, report.doubts))
            self._notices.say(report, measurement.sets)
            page.show(report, self.history, measurement.sets)

    def _new_page(self, trainer: pl.Trainer) -> Page:
        return Page(self.display, self._keys, writers(trainer), self.measures, self.correlate_with_gap, run_folder(trainer))

    def _set_options(self) -> SetOptions:
        return SetOptions(**{field.name: getattr(self, field.name) for field in fields(SetOptions)})

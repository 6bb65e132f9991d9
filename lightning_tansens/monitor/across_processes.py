"""Prepares, takes and keeps measurements together with the other processes: all take the same steps."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import lightning.pytorch as pl

from lightning_tansens.estimators import Estimator, Need, SetSummary
from lightning_tansens.monitor.data.drawn import agree
from lightning_tansens.monitor.measured_run import MeasuredRun
from lightning_tansens.monitor.processes import any_process, largest, together
from lightning_tansens.monitor.records import make_record, with_correlations
from lightning_tansens.monitor.set_factory import Choices, SetFactory
from lightning_tansens.monitor.sharding import sharding_of
from lightning_tansens.monitor.state import MonitorState
from lightning_tansens.monitor.trainer_loggers import logging_step
from lightning_tansens.record import Record
from lightning_tansens.show.console import slow_progress
from lightning_tansens.show.notices import cost_note, tell
from lightning_tansens.tangent.isolation import undisturbed

# Code that may fail on one process runs inside `together`; code that talks to the other processes runs outside it.


def prepare(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    monitor: Choices,
    stages: ExitStack,
    state: MonitorState,
    before: MeasuredRun | None,
    follows: bool,
) -> MeasuredRun:
    """Draws the sets, finds the criterion and tries each measure on a first batch.

    Args:
        trainer: The Trainer.
        pl_module: The module.
        monitor: What is measured on which samples.
        stages: Where to register the callables that tear down the datamodule's other stages.
        state: Earlier results that the measurement is compared with.
        before: The sets of an earlier fit, whose criterion is taken over, and whose reference is in case the Trainer has
            loaded another loop's data since then.
        follows: Whether to compare with the weights in ``state`` instead of the present ones.
    """
    with together(trainer), undisturbed(pl_module):
        factory = SetFactory(trainer, monitor, stages)
        sets = factory.sets(None if before is None or follows else before.sets[0])
    agree(trainer, [measured.subset for measured in sets])
    sharding = sharding_of(trainer, monitor.network, monitor.options.gathered_bytes)
    with together(trainer), sharding.reached(pl_module) as reached:
        reads = {measured.name: measured.batches.first for measured in sets}
        reached = sharding.settle(pl_module, reached, reads, monitor.output)
        if sharding.lockstep is not None:  # processes that call the network together share the samples differently
            for measured in sets:
                measured.subset.share(*sharding.lockstep.share)
        criterion = factory.find_criterion(*reached, sets, None if before is None else before.criterion, sharding.lockstep)
    if before is None and criterion.note is not None:
        tell(criterion.note)
    # in a single isolation, so that lazy modules are initialised only once
    with together(trainer), sharding.reached(pl_module) as (_, network):
        with together(trainer):
            run = MeasuredRun(factory.measures, sets, factory.copies(sets[0], criterion), criterion, sharding)
        with together(trainer):
            every = len(sets) + len(run.copies)
            with slow_progress(every, "trying the measures on a few samples", enabled=_shows_progress(trainer)) as bar:
                misfits = run.prepare(network, pl_module.device, monitor.default_measures, bar.update)
        run.leave_out(any_process(trainer, misfits))
        if not follows and (note := cost_note(run.expected_seconds(), *run.cost_of_truth())) is not None:
            tell(note)
        with together(trainer):
            run.resume(state)
            if not follows:
                run.start(network)
    if not follows:
        run.remember_first()
    return run


def snapshot_is_due(batch_idx: int, batches: int | float, per_epoch: int) -> bool:
    """Says whether to take a snapshot after this batch; the epoch's last one is the measurement itself.

    The number of batches may be infinite.

    Example:
        >>> [batch_idx for batch_idx in range(10) if snapshot_is_due(batch_idx, 10, 4)]
        [2, 4, 7]
    """
    done = batch_idx + 1
    return done < batches < math.inf and done * per_epoch // batches > batch_idx * per_epoch // batches


def take_snapshot(trainer: pl.Trainer, pl_module: pl.LightningModule, run: MeasuredRun) -> None:
    """Keeps the network's present outputs on the samples, for the estimators that use the run so far."""
    with together(trainer), run.sharding.reached(pl_module) as (_, network):
        run.accumulate_outputs(network)
    with run.synced(outputs_alone=True), together(trainer):
        outputs = run.outputs()
    with together(trainer):
        run.keep(outputs)


def measure(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    monitor: Choices,
    run: MeasuredRun,
    records: Sequence[Record],
) -> tuple[Record, list[SetSummary]]:
    """Takes a measurement; returns its record, the same on every process, and what was found on each set."""
    start = time.perf_counter()
    options = monitor.options
    progress = slow_progress(run.num_batches, "measuring sensitivities", enabled=_shows_progress(trainer))
    with together(trainer), run.sharding.reached(pl_module) as (_, network), progress:
        run.accumulate(network, progress.update)
    run.fail(any_process(trainer, run.failures()))
    with run.synced(), together(trainer), undisturbed(pl_module):  # a criterion may be a method of the module
        summaries = run.summaries()
    with together(trainer):
        run.keep([found.outputs for found in (*summaries, *summaries[0].copies)])
        for error in run.failed().values() if options.on_failure == "raise" else ():
            raise error
        record = make_record(
            trainer.current_epoch,
            logging_step(trainer),
            summaries,
            run.measures,
            _suitable(monitor, summaries[0]),
            run.weights_now,
            run.failed(),
            options.accuracy_form,
            options.limits,
        )
        if options.correlate_with_gap:
            record = with_correlations(record, records)
    seconds = {"total": time.perf_counter() - start}
    if run.seconds_of_copies is not None:
        seconds["copies"] = run.seconds_of_copies
    record = replace(record, seconds={name: largest(trainer, taken) for name, taken in seconds.items()})
    run.remember_weights()
    # all processes must log the same keys, even if something failed on only one of them
    return trainer.strategy.broadcast(record), summaries


def _shows_progress(trainer: pl.Trainer) -> bool:
    return trainer.is_global_zero and trainer.progress_bar_callback is not None


def _suitable(monitor: Choices, reference: SetSummary) -> list[Estimator]:
    """Returns the estimators, without the default ones that need classes if the outputs are not class scores."""
    classes = reference.outputs is None or reference.outputs.is_classifier
    if classes or not monitor.default_estimators:
        return monitor.estimators
    return [estimator for estimator in monitor.estimators if Need.CLASSES not in estimator.needs]

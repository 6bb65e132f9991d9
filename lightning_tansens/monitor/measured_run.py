"""All sets of one run, which are measured again and again, and what they are compared with."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightning_tansens.errors import FailedElsewhereError, TooLargeError
from lightning_tansens.estimators import Outputs, SetSummary, Trajectory
from lightning_tansens.metrics.base import Measure
from lightning_tansens.metrics.states import copied
from lightning_tansens.monitor.costs import Cost
from lightning_tansens.monitor.criterion import KnownCriterion
from lightning_tansens.monitor.failures import check_finite
from lightning_tansens.monitor.processes import agreed, calling
from lightning_tansens.monitor.reach import Unsharded
from lightning_tansens.monitor.sets import MeasuredSet
from lightning_tansens.monitor.state import MonitorState
from lightning_tansens.monitor.summaries import floats
from lightning_tansens.show.pictures import ShownSamples
from lightning_tansens.tangent.random_forward import is_random

#: The name under which the weights alone are measured.
WEIGHTS = "the weights"


class MeasuredRun:
    """Measures the same sets again and again; it knows no Trainer.

    The first set is the reference, of which there are perturbed copies for the estimators that are fitted on them. Where
    processes call the network together there are no measures.

    Every process must call :meth:`remember_first` and :meth:`synced`, which talk to the others; all other methods concern
    this process alone.
    """

    def __init__(
        self,
        measures: Sequence[Measure],
        sets: Sequence[MeasuredSet],
        copies: Sequence[MeasuredSet],
        criterion: KnownCriterion,
        sharding: Unsharded,
    ) -> None:
        self.measures = list(measures)
        self.sets, self.copies = sets, copies
        self.criterion, self.sharding = criterion, sharding
        #: How long this process took for the copies of the reference; None without copies.
        self.seconds_of_copies: float | None = None
        self.weights_now: dict[str, dict[str, float]] = {}
        #: The values of the measures that need no data at the previous measurement, or before the first step.
        self.weights_before: dict[str, dict[str, float]] = {}
        self._failed_weights: dict[str, Exception] = {}
        self._notes = [] if sharding.note is None else [sharding.note]
        self._lockstep = sharding.lockstep
        if self._lockstep is not None:
            self.leave_out([True for _ in self.measures])

    def prepare(
        self, network: nn.Module, device: torch.device, keep_going: bool, tick: Callable[[], object] = lambda: None
    ) -> list[bool]:
        """Tries every measure on a first batch, and calls ``tick`` after each set.

        A measure that cannot be taken is left out, or raises its error unless ``keep_going`` is set.

        Returns:
            For each measure whether it cannot be taken on this process; :meth:`leave_out` takes the flags of all processes.

        Raises:
            ValueError: If the labels are missing from a set whose loss is needed.
            UnsupportedNetworkError: If a measure does not cover the network.
        """
        with agreed(self._lockstep):
            labelled = [measured for measured in self.sets[1:] if measured.of_outputs.loss is not None]
            blind = [measured for measured in labelled if not measured.batches.has_labels()]
            for measured in blind if len(blind) < len(labelled) else ():
                measured.forget_labels()
                self._notes.append(f"the {measured.name} set has no labels, so its true loss is left out")
            first, *_ = self.sets[0].batches.first()
        tried: dict[Hashable, Cost] = {}
        misfits: dict[str, Exception] = {}
        for measured in self._every():
            found = measured.prepare(network, device, self._lockstep, tried)
            misfits |= {} if measured in self.copies else {**found, **misfits}
            tick()
        for measure in self.measures:
            if not measure.needs_data:
                try:
                    measure.prepare(network, self.sets[0].batches.first()[0])
                    copied(measure).update(network)
                except Exception as error:
                    misfits[measure.key] = error
        for key, misfit in misfits.items():
            if not keep_going and not isinstance(misfit, TooLargeError):
                raise misfit
            self._notes.append(f"the measure '{key}' is left out, because it does not suit this network: {misfit}")
        with calling(self._lockstep):
            random = is_random(network, first)
        if random:
            self._notes.append(
                "the network is random in eval mode too (dropout that stays on, sampled latent variables), so its values "
                "are of one draw each and do not repeat"
            )
        return [measure.key in misfits for measure in self.measures]

    def expected_seconds(self) -> float:
        """Returns how long a measurement takes, about, from the few samples on which :meth:`prepare` has tried it."""
        return sum(measured.expected_seconds() for measured in self._every())

    def cost_of_truth(self) -> tuple[float, int]:
        """Returns how many of these seconds only the true losses of the targets take, and on how many samples at most."""
        targets = self.sets[1:]
        seconds = sum(measured.expected_seconds(truth_alone=True) for measured in targets)
        return seconds, max((len(measured.subset) for measured in targets), default=0)

    def leave_out(self, flags: Sequence[bool]) -> None:
        """Leaves out measures that cannot be taken on some process: the flags of :meth:`prepare`, joined over processes."""
        keys = [measure.key for measure, misfit in zip(self.measures, flags, strict=True) if misfit]
        for measured in self._every():
            measured.forget_measures(keys)
        self.measures = [measure for measure in self.measures if measure.key not in keys]

    def remembered(self) -> dict[str, Any]:
        """Returns what the next measurement is compared with, by its name in the monitor's state."""
        trajectories = {
            measured.name: {"samples": measured.subset.fingerprint, **measured.trajectory.state()}
            for measured in self._every()
            if measured.trajectory is not None
        }
        memories = {measured.name: measured.memories() for measured in self.sets}
        return {"weights_before": self.weights_before, "memories": memories, "trajectories": trajectories}

    def resume(self, state: MonitorState) -> None:
        """Takes over what :meth:`remembered` returned in an earlier part of the run.

        The earlier outputs of a set whose samples changed are forgotten; a note says so.
        """
        for measured in self.sets:
            measured.load_memories(state.memories.get(measured.name, {}))
        self.weights_before = {key: dict(values) for key, values in state.weights_before.items()}
        for measured in self._every():
            trajectory = dict(state.trajectories.get(measured.name, {}))
            if trajectory and trajectory.pop("samples") != measured.subset.fingerprint:
                self._notes.append(
                    f"the samples of the {measured.name} set are not those of the checkpoint, so its earlier outputs are "
                    "forgotten"
                )
            elif trajectory:
                measured.trajectory = Trajectory.from_state(trajectory)

    def start(self, network: nn.Module) -> None:
        """Measures the network before the first step, for measures that compare with it, unless a resumed run has."""
        for measured in self.sets:
            measured.update_first(network)
        now = self._measure_weights(network)
        self.weights_before = {key: self.weights_before.get(key, values) for key, values in now.items()}

    def remember_first(self) -> None:
        """Keeps the values before the first step."""
        for measured in self.sets:
            measured.remember_first()

    @property
    def num_batches(self) -> int:
        """The number of batches that this process measures."""
        return sum(len(measured.batches.positions()) for measured in self._every())

    def accumulate(self, network: nn.Module, tick: Callable[[], object]) -> None:
        """Takes every measure on this process's share of the sets, and calls ``tick`` after each batch.

        A measure that fails loses only its own values.

        Raises:
            NonFiniteWeightsError: If the network has diverged.
        """
        with agreed(self._lockstep):
            check_finite(network)
        for measured in self.sets:
            measured.update(network, tick)
        if self.copies:
            start = time.perf_counter()
            for copy in self.copies:
                copy.update(network, tick)
            self.seconds_of_copies = time.perf_counter() - start
        self.weights_now = self._measure_weights(network)

    def accumulate_outputs(self, network: nn.Module) -> None:
        """Takes the outputs alone on this process's share of the sets."""
        for measured in self._every():
            measured.update_outputs(network)

    def failures(self) -> list[bool]:
        """Returns for each set and measure whether it failed on this process, in the same order on all processes."""
        return [measure.key in measured.failed for measured in self._every() for measure in measured.measures]

    def fail(self, flags: Sequence[bool]) -> None:
        """Leaves out measures that failed on any process: the flags of :meth:`failures`, joined over the processes."""
        every = [(measured, measure.key) for measured in self._every() for measure in measured.measures]
        for (measured, key), failed in zip(every, flags, strict=True):
            if failed:
                measured.failed.setdefault(key, FailedElsewhereError("it failed on another process, whose output says why"))

    def failed(self) -> dict[tuple[str, str], Exception]:
        """Returns the errors of the measures that failed this time, by set and measure."""
        of_weights = {(WEIGHTS, key): error for key, error in self._failed_weights.items()}
        of_sets = {(measured.name, key): error for measured in self.sets for key, error in measured.failed.items()}
        return of_sets | of_weights

    @contextmanager
    def synced(self, outputs_alone: bool = False) -> Iterator[None]:
        """Gathers what the processes have accumulated, and restores each one's own share afterwards."""
        with ExitStack() as stack:
            for measured in self._every():
                stack.enter_context(measured.synced(outputs_alone))
            yield

    def outputs(self) -> list[Outputs | None]:
        """Returns the outputs on every set and copy, inside :meth:`synced`."""
        return [measured.found_outputs() for measured in self._every()]

    def keep(self, outputs: Sequence[Outputs | None]) -> None:
        """Adds what :meth:`outputs` returned to the earlier measurements', for all sets or, after an error, for none."""
        every = self._every()
        kept = [
            measured.trajectory if found is None else (measured.trajectory or Trajectory()).updated(found)
            for measured, found in zip(every, outputs, strict=True)
        ]
        for measured, trajectory in zip(every, kept, strict=True):
            measured.trajectory = trajectory

    def summaries(self) -> list[SetSummary]:
        """Returns what was found on the reference and on each target, inside :meth:`synced`."""
        reference, *targets = (measured.summary() for measured in self.sets)
        copies = tuple(replace(copy.summary(), weights=self.weights_now) for copy in self.copies)
        return [
            replace(reference, copies=copies, weights=self.weights_before),
            *(replace(target, weights=self.weights_now) for target in targets),
        ]

    def shown(self, summaries: Sequence[SetSummary]) -> dict[str, ShownSamples]:
        """Returns the samples of the targets with their sensitivities, by set, for pictures."""
        pairs = list(zip(self.sets, summaries, strict=True))[1:]
        return {one.name: shown for one, summary in pairs if (shown := one.shown(summary)) is not None}

    def remember_weights(self) -> None:
        """Keeps this measurement's weights' values, with which the next one is compared."""
        self.weights_before = {**self.weights_before, **self.weights_now}

    def notes(self) -> list[str]:
        """Returns notes to the user on how the network is measured."""
        reference = self.sets[0]
        loss = reference.of_outputs.loss
        of_loss = None if loss is None else loss.note()
        found = [*(measure.note() for measure in reference.measures), of_loss]
        return list(dict.fromkeys([*(note for note in found if note), *self._notes]))

    def _every(self) -> list[MeasuredSet]:
        return [*self.sets, *self.copies]

    def _measure_weights(self, network: nn.Module) -> dict[str, dict[str, float]]:
        values, self._failed_weights = {}, {}
        for measure in self.measures:
            if not measure.needs_data:
                try:
                    fresh = copied(measure)
                    fresh.update(network)
                    values[measure.key] = floats(fresh.values())
                except Exception as error:
                    self._failed_weights[measure.key] = error
        return values

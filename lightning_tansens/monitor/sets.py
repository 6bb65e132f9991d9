"""One set that is measured: its subset, its own copies of the metrics, and the summary of what they found."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.estimators import Outputs, SetSummary, Trajectory
from lightning_tansens.metrics.base import LabelledMeasure, Measure
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.metrics.states import copied
from lightning_tansens.monitor.costs import Batch, Cost, SetCosts, cost_of
from lightning_tansens.monitor.data.reading import Reading
from lightning_tansens.monitor.data.set_batches import SetBatches
from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.monitor.data.transfer import Transfer
from lightning_tansens.monitor.output_metrics import OutputMetrics
from lightning_tansens.monitor.processes import Lockstep, agreed
from lightning_tansens.monitor.summaries import with_measure
from lightning_tansens.show.pictures import MEASURE, ShownSamples
from lightning_tansens.tangent.tracing import tensors_in


class MeasuredSet:
    """A subset of a set, and the metrics that accumulate on it.

    Args:
        name: The set's name.
        subset: The samples; the measures see its head, the estimators the first ``num_outputs``, the loss all of it.
        transfer: Moves a batch to the device, through the hooks of the stage that the set belongs to.
        measures: The measures; each set has copies of its own, and those that need labels only with a loss.
        loss: Where to accumulate the labelled loss; None leaves the labels alone.
        reading: How batches are read.
    """

    def __init__(
        self,
        name: str,
        subset: Subset,
        transfer: Transfer,
        measures: Sequence[Measure],
        loss: LabelledLoss | None,
        reading: Reading,
    ) -> None:
        self.name, self.subset = name, subset
        self.batches = SetBatches(name, subset, transfer, reading)
        self.of_outputs = OutputMetrics(loss, self.batches, reading)
        self.measures = [
            copied(measure)
            for measure in measures
            if measure.needs_data and (loss is not None or not isinstance(measure, LabelledMeasure))
        ]
        #: What earlier measurements said of the same samples; None before the first.
        self.trajectory: Trajectory | None = None
        #: Why a measure has no values this time, by its key.
        self.failed: dict[str, Exception] = {}
        #: The keys of the estimators that need this set, a copy of the reference; empty for any other.
        self.made_for: tuple[str, ...] = ()
        #: Whether this is a copy that was changed strongly.
        self.strong = False
        self._reading = reading
        self._lockstep: Lockstep | None = None
        self._costs = SetCosts()

    def prepare(
        self,
        network: nn.Module,
        device: torch.device,
        lockstep: Lockstep | None = None,
        tried: dict[Hashable, Cost] | None = None,
    ) -> dict[str, Exception]:
        """Tries everything on a first batch, so that a misfit shows before the training starts.

        Each measure is tried only once for all sets whose inputs have the same shapes and types, as a large network takes
        long: ``tried`` has what was tried on other sets, and its cost, and what is tried on this one is added.

        Returns:
            The error of each measure that cannot be taken, by its key.

        Raises:
            ValueError: If the labels are missing from a set whose loss is needed.
            TypeError: If samples do not lie one by one in a batch.
            UnsupportedNetworkError: If the network does not run on the inputs, and a measure knows why.
        """
        self._lockstep, self._costs = lockstep, SetCosts()
        with agreed(lockstep):
            for metric in self._metrics():
                # sums are in double precision, which MPS does not have
                metric.to("cpu" if device.type == "mps" else device)
            inputs, targets, positions = first = self.batches.first()
            batches = (first if self.made_for else self.batches.first(2)), first
            if not self.made_for:  # copies change samples that are kept, each of them once
                self._costs.add(cost_of(lambda batch: self.subset.samples(batch[2]), batches))
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors_in([inputs]))
        misfits: dict[str, Exception] = {}
        tried = {} if tried is None else tried
        for measure in self.measures:
            try:
                measure.prepare(network, inputs)
                if (measure.key, shapes) not in tried:
                    tried[measure.key, shapes] = cost_of(partial(self._try, measure, network), batches)
                self._costs.add(tried[measure.key, shapes], head_alone=True)
            except Exception as error:  # whatever the user's network raises: the others are measured without it
                misfits[measure.key] = error
        if self.of_outputs.metrics():
            try:
                seen = self._reading.forward(network, inputs, lockstep)
            except Exception as error:
                self._explain(error, inputs, misfits.values())
                raise
            with agreed(lockstep):
                self.of_outputs.prepare(seen, inputs, targets, positions)
            if lockstep is None:  # elsewhere each call talks to the other processes
                if ("", shapes) not in tried:
                    tried["", shapes] = cost_of(lambda batch: self._reading.forward(network, batch[0]), batches)
                self._costs.add(tried["", shapes])
        return misfits

    def _explain(self, error: Exception, inputs: Any, misfits: Iterable[Exception]) -> None:
        """Raises what says better why the network does not run on the inputs, if anything does."""
        for misfit in misfits:
            if isinstance(misfit, UnsupportedNetworkError):  # it says why the network cannot be measured
                raise misfit from error
        if type(error) is RuntimeError:
            came = " and ".join(str(tuple(tensor.shape)) for tensor in tensors_in(inputs))
            raise RuntimeError(
                f"the {self.name} set cannot be measured: expected inputs that the network takes, but on inputs of "
                f"shape {came} it raises: {error}; if these are not its inputs, pass unpack=callable that takes a batch "
                "and returns (inputs, targets)"
            ) from error

    def expected_seconds(self, truth_alone: bool = False) -> float:
        """Returns how long this process's share takes, or what only the true loss needs, judging by :meth:`prepare`."""
        start = max(self.subset.head, self._reading.num_outputs) if truth_alone else 0
        return self._costs.seconds([part for part in self.batches.positions() if part[0] >= start], self.subset.head)

    def forget_labels(self) -> None:
        """Leaves out what needs labels."""
        self.measures = [measure for measure in self.measures if not isinstance(measure, LabelledMeasure)]
        self.of_outputs.loss = None

    def forget_measures(self, keys: Sequence[str]) -> None:
        """Leaves out measures that cannot be taken."""
        self.measures = [measure for measure in self.measures if measure.key not in keys]

    def update(self, network: nn.Module, tick: Callable[[], object] = lambda: None) -> None:
        """Forgets what was accumulated before, and accumulates this process's share of the samples.

        It calls ``tick`` after each batch. A measure that fails loses only its own values; :attr:`failed` has the error.
        """
        self.failed = {}
        self._accumulate(self.measures, network, tick, self.of_outputs.update)

    def update_outputs(self, network: nn.Module) -> None:
        """Accumulates this process's share of the outputs alone."""
        if self.of_outputs.outputs is not None:
            self._accumulate([], network, lambda: None, self.of_outputs.update_outputs, self._reading.num_outputs)

    def update_first(self, network: nn.Module) -> None:
        """Accumulates for the measures that compare with the network before the first step, unless they remember it."""
        fresh = self._without_memory()
        if fresh:
            self._accumulate(fresh, network)

    def remember_first(self) -> None:
        """Keeps the values before the first step; every process must call it, as it syncs."""
        for measure in self._without_memory():
            with measure.sync_context():
                measure.remember()

    def _accumulate(
        self,
        measures: list[Measure],
        network: nn.Module,
        tick: Callable[[], object] = lambda: None,
        add: Callable[..., None] | None = None,
        last: float = math.inf,
    ) -> None:
        """Accumulates measures, and outputs if there is what adds them, on the samples before a position."""
        lockstep, of_outputs = self._lockstep, [] if add is None else self.of_outputs.metrics()
        with agreed(lockstep):
            for metric in [*measures, *of_outputs]:
                metric.reset()
            if not any(part[0] < self.subset.head for part in self.subset.positions()):
                self._learn_shapes(measures, network)
        for inputs, targets, positions in self.batches if lockstep is None else self.batches.in_step(lockstep):
            if lockstep is None and positions[0] >= last:
                break
            for measure in measures if positions and positions[0] < self.subset.head else ():
                if measure.key not in self.failed:
                    try:
                        self._add(measure, network, inputs, targets, positions)
                    except Exception as error:
                        self.failed[measure.key] = error
            seen = self._reading.forward(network, inputs, lockstep) if of_outputs else None
            with agreed(lockstep):
                if add is not None and seen is not None and positions and (lockstep is None or lockstep.speaks):
                    add(seen, targets, positions)
                tick()

    def _try(self, measure: Measure, network: nn.Module, batch: Batch) -> None:
        """Adds a batch to a copy of a measure."""
        self._add(copied(measure), network, *batch[:2])

    def _learn_shapes(self, measures: list[Measure], network: nn.Module) -> None:
        """Tells the measures the shapes to sync, on a process without a sample."""
        for measure in measures:
            try:
                measure.prepare(network, self.batches.first()[0])
            except Exception as error:
                self.failed[measure.key] = error

    def _add(
        self, measure: Measure, network: nn.Module, inputs: Any, targets: Any, positions: Sequence[int] | None = None
    ) -> None:
        """Adds a batch to a measure; only a labelled measure gets the labels."""
        if isinstance(measure, LabelledMeasure):
            measure.update(network, inputs, self.batches.labels(targets), positions)
        else:
            measure.update(network, inputs, positions=positions)  # type: ignore[call-arg]

    @contextmanager
    def synced(self, outputs_alone: bool = False) -> Iterator[None]:
        """Gathers what the processes have accumulated, for a block; every process must call it."""
        with ExitStack() as stack:
            outputs = self.of_outputs.outputs
            for metric in ([] if outputs is None else [outputs]) if outputs_alone else self._metrics():
                if getattr(metric, "key", None) not in self.failed:
                    metric.sync()
                    stack.callback(_unsync, metric)  # torchmetrics' own context manager leaves it synced after an error
            yield

    def summary(self) -> SetSummary:
        """Returns what was found, inside :meth:`synced`; it talks to no other process."""
        head = self.subset.head
        whole = head == self.subset.available
        summary = SetSummary(self.name, head, whole=whole, made_for=self.made_for, strong=self.strong)
        for measure in self.measures:
            if measure.key not in self.failed:
                try:
                    summary = with_measure(summary, measure)
                except Exception as error:  # states are synced: it fails on every process alike
                    self.failed[measure.key] = error
        unusable = max([0, *(int(measure.unusable) for measure in self.measures)])
        return self.of_outputs.added_to(replace(summary, unusable=unusable, outputs=self.found_outputs()))

    def found_outputs(self) -> Outputs | None:
        """Returns the outputs, inside :meth:`synced`; None where no estimator needs them."""
        return self.of_outputs.found(self.trajectory)

    def shown(self, summary: SetSummary) -> ShownSamples | None:
        """Returns the samples with their sensitivities, for pictures; None where these are not known."""
        influence = summary.influences.get(MEASURE)
        if influence is None:
            return None
        squares = (influence.values.double().cpu() + 1) * summary.values[MEASURE][MEASURE]
        positions = influence.positions.cpu().long().tolist()
        numbers = [self.subset.indices[position] for position in positions]
        return ShownSamples(squares, numbers, lambda places: self.batches.inputs([positions[place] for place in places]))

    def memories(self) -> dict[str, dict[str, Tensor]]:
        """Returns what the measures remember, by key."""
        return {measure.key: measure.memory() for measure in self.measures if measure.memory()}

    def load_memories(self, memories: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes what :meth:`memories` returned."""
        for measure in self.measures:
            if measure.key in memories:
                measure.load_memory(memories[measure.key])

    def _metrics(self) -> list[Metric]:
        return [*self.measures, *self.of_outputs.metrics()]

    def _without_memory(self) -> list[Measure]:
        return [measure for measure in self.measures if measure.remembers and not measure.memory()]


def _unsync(metric: Metric) -> None:
    metric.unsync(should_unsync=metric._is_synced)

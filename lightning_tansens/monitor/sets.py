"""One set that is measured: its subset, its own copies of the measures, and what was read from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_tansens.estimators import Peer
from lightning_tansens.estimators.reading import Reading
from lightning_tansens.metrics.base import LabelledMeasure, Measure, SensitivityMeasure
from lightning_tansens.metrics.copies import copied
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.metrics.uncertainty import Influence
from lightning_tansens.monitor.batches import check_samples, unpack_batch
from lightning_tansens.monitor.outputs import OutputMetrics
from lightning_tansens.monitor.subsets import Subset
from lightning_tansens.monitor.transfer import Transfer

#: The size of the batch whose shapes are checked.
_TRIED = 5

#: Splits a batch into inputs and targets (None where there are none).
Unpack = Callable[[Any], tuple[Any, Any]]


class MeasuredSet:
    """A subset of a set together with what is accumulated on it.

    Args:
        name: The set's name in the logged keys.
        subset: The samples; the measures see its head, the loss all of it.
        measures: The measures; each set has copies of its own, and those that need labels only with a loss.
        loss: Where to accumulate the labelled loss; None leaves the labels alone.
        unpack: Splits a batch into inputs and targets.
        peers: The estimators that work on outputs; each set has copies of its own.
        peers_see_labels: Whether they get the labels, which is for the reference alone.
        perturb: Changes the inputs of a batch, given the samples' positions; None leaves them as they are.

    """

    def __init__(
        self,
        name: str,
        subset: Subset,
        measures: Sequence[Measure],
        loss: LabelledLoss | None,
        unpack: Unpack,
        peers: Sequence[Peer] = (),
        peers_see_labels: bool = False,
        perturb: Callable[[Any, Sequence[int]], Any] | None = None,
    ) -> None:
        self.name = name
        self.subset = subset
        self.measures = [
            copied(measure)
            for measure in measures
            if measure.needs_data and (loss is not None or not isinstance(measure, LabelledMeasure))
        ]
        self.outputs = OutputMetrics(loss, [copied(peer) for peer in peers], peers_see_labels)
        self._unpack = unpack
        self._perturb = perturb

    def prepare(self, network: nn.Module, transfer: Callable[[Any], Any], device: torch.device) -> None:
        """Tries everything on one sample, which every process has, so that a misfit shows before the training does.

        Raises:
            ValueError: If the labels are missing from a set whose loss is needed.
            UnsupportedNetworkError: If a measure does not cover the network.

        """
        for metric in self._metrics():
            # sums are in double precision, which MPS does not have
            metric.to("cpu" if device.type == "mps" else device)
        several = range(min(_TRIED, len(self.subset)))
        check_samples(self._unpack(self._moved(transfer, self.subset.samples(several)))[0], len(several), self.name)
        inputs, targets = self._inputs_and_targets(self._moved(transfer, self.subset.first()), [0])
        for measure in self.measures:
            measure.prepare(network, inputs)
            self._add(copied(measure), network, inputs, targets)
        self.outputs.prepare(network, inputs)
        tried = self.outputs.copy()
        tried.update(network, inputs, self._labels(targets) if tried.loss is not None else None)

    def has_labels(self, transfer: Callable[[Any], Any]) -> bool:
        """Whether the set's samples come with labels."""
        return self._unpack(self._moved(transfer, self.subset.first()))[1] is not None

    def forget_labels(self) -> None:
        """Leaves out what needs labels."""
        self.measures = [measure for measure in self.measures if not isinstance(measure, LabelledMeasure)]
        self.outputs.loss = None

    def first_inputs(self, transfer: Callable[[Any], Any]) -> Any:
        """Returns the inputs of a batch of one sample, the same on every process."""
        return self._inputs_and_targets(self._moved(transfer, self.subset.first()), [0])[0]

    def samples(self, positions: Sequence[int]) -> Any:
        """Returns the inputs of some samples, on the CPU, also of those that are another process's share."""
        return self._unpack(self.subset.samples(positions))[0]

    def update(self, network: nn.Module, transfer: Callable[[Any], Any], tick: Callable[[], object] = lambda: None) -> None:
        """Accumulates this process's share of the samples; what was accumulated before is forgotten.

        Args:
            network: The network.
            transfer: Brings a batch to the device.
            tick: Called after each batch.

        """
        self._accumulate(self.measures, self.outputs, network, transfer, tick)

    def update_first(self, network: nn.Module, transfer: Callable[[Any], Any]) -> None:
        """Accumulates for the measures that compare with what was before the first step, unless they remember it."""
        fresh = self._without_memory()
        if fresh:
            self._accumulate(fresh, OutputMetrics(None), network, transfer)

    def remember_first(self) -> None:
        """Syncs with the other processes, all of which must call it, and keeps what was there before the first step."""
        for measure in self._without_memory():
            with measure.sync_context():
                measure.remember()

    def memories(self) -> dict[str, dict[str, Tensor]]:
        """Returns what the measures remember, by key."""
        return {measure.key: measure.memory() for measure in self.measures if measure.memory()}

    def load_memories(self, memories: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes what :meth:`memories` returned."""
        for measure in self.measures:
            if measure.key in memories:
                measure.load_memory(memories[measure.key])

    def _metrics(self) -> list[Metric]:
        return [*self.measures, *self.outputs.metrics]

    def _without_memory(self) -> list[Measure]:
        return [measure for measure in self.measures if measure.remembers and not measure.memory()]

    def _accumulate(
        self,
        measures: list[Measure],
        outputs: OutputMetrics,
        network: nn.Module,
        transfer: Callable[[Any], Any],
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        for metric in [*measures, *outputs.metrics]:
            metric.reset()
        if not any(part[0] < self.subset.head for part in self.subset.positions()):
            # without a sample, shapes that depend on the network are learnt anew all the same
            inputs = self.first_inputs(transfer)
            for measure in measures:
                measure.prepare(network, inputs)
            outputs.prepare(network, inputs)
        # the subset comes first and is exhausted: it keeps its samples for the next time only then
        for loaded, positions in zip(self.subset, self.subset.positions(), strict=True):
            inputs, targets = self._inputs_and_targets(self._moved(transfer, loaded), positions)
            if positions[0] < self.subset.head:
                for measure in measures:
                    self._add(measure, network, inputs, targets, positions)
            outputs.update(network, inputs, self._labels(targets) if outputs.loss is not None else None, positions)
            tick()

    @contextmanager
    def synced(self) -> Iterator[None]:
        """Gathers what the processes have accumulated, all of which must call it; their own shares are back afterwards."""
        with ExitStack() as stack:
            for metric in self._metrics():
                metric.sync()
                stack.callback(_unsync, metric)  # torchmetrics' own context manager leaves it synced where the block raises
            yield

    def read(self) -> Reading:
        """Returns the values, inside of :meth:`synced`; it talks to no other process."""
        values: dict[str, dict[str, float]] = {}
        parts: dict[str, dict[str, float]] = {}
        distributions: dict[str, dict[str, Tensor]] = {}
        influences: dict[str, Influence] = {}
        errors: dict[str, float] = {}
        for measure in self.measures:
            values[measure.key] = _floats(measure.values())
            parts[measure.key] = _floats(measure.part_values())
            distributions[measure.key] = {
                part: numbers.detach().cpu().clone() for part, numbers in measure.distributions().items()
            }
            influence = measure.influence() if isinstance(measure, SensitivityMeasure) else None
            if influence is not None:
                influences[measure.key] = influence
            error = measure.standard_error()
            if error is not None:
                errors[measure.key] = error
            measure.remember()
        return self.outputs.added_to(Reading(values, self.subset.head, parts, distributions, influences, errors))

    def _add(
        self, measure: Measure, network: nn.Module, inputs: Any, targets: Any, positions: Sequence[int] | None = None
    ) -> None:
        """Adds a batch to a measure; labels go to none but a labelled one."""
        if isinstance(measure, LabelledMeasure):
            measure.update(network, inputs, self._labels(targets), positions)
        else:
            measure.update(network, inputs, positions)

    def _moved(self, transfer: Callable[[Any], Any], batch: Any) -> Any:
        """The batch on the device, moved as in the stage that the set belongs to."""
        return (transfer.of(self.subset) if isinstance(transfer, Transfer) else transfer)(batch)

    def _inputs_and_targets(self, batch: Any, positions: Sequence[int]) -> tuple[Any, Any]:
        inputs, targets = self._unpack(batch)
        return (inputs if self._perturb is None else self._perturb(inputs, positions)), targets

    def _labels(self, targets: Any) -> Any:
        if targets is None:
            raise ValueError(
                f"expected the {self.name} set to have labels, because its loss is measured, but its batches hold inputs "
                "alone; pass a labelled set as the reference (for a test set, leave compare_with_labels out), or an unpack "
                "callable that returns (inputs, targets)"
            )
        return targets


def _unsync(metric: Metric) -> None:
    metric.unsync(should_unsync=metric._is_synced)


def measure_weights(measures: Sequence[Measure], network: nn.Module) -> dict[str, dict[str, float]]:
    """Returns the values of the measures that need no data, by the measure's key."""
    values = {}
    for measure in measures:
        if not measure.needs_data:
            fresh = copied(measure)
            fresh.update(network)
            values[measure.key] = _floats(fresh.values())
    return values


#: Splits a batch unless the user says how.
unpack_pair = unpack_batch


def _floats(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}

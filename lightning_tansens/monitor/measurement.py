"""The measuring of one run: its sets, what they are compared with, and the report of each measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.estimators import Peer
from lightning_tansens.estimators.calibration import Feature, calibrated_estimates
from lightning_tansens.estimators.estimated import Estimated, Undefined
from lightning_tansens.estimators.reading import Reading
from lightning_tansens.estimators.scaling import AccuracyForm
from lightning_tansens.estimators.trust import Limits
from lightning_tansens.metrics.base import Measure
from lightning_tansens.monitor.correlations import gap_correlations
from lightning_tansens.monitor.failures import check_finite
from lightning_tansens.monitor.report import Report, make_report
from lightning_tansens.monitor.sets import MeasuredSet, measure_weights
from lightning_tansens.show.keys import Keys

Transfer = Callable[[Any], Any]


class Measurement:
    """Measures the same sets again and again; it knows no Trainer.

    Under several processes, :meth:`prepare`, :meth:`accumulate` and :meth:`report` concern this process alone, while
    :meth:`remember_first` and :meth:`synced` talk to the others, all of which must call them.

    Args:
        measures: The measures, in the order in which they are logged.
        sets: The reference, and the test sets.
        keys: How the values are named.
        accuracy_form: How the accuracy is estimated.
        correlate_with_gap: Whether a report has the correlations with the generalisation gap.
        peers: The estimators that work on outputs.
        limits: What is required of an estimate to be trusted; None for the defaults.
        copies: Perturbed copies of the reference, on which the calibrated estimator is fitted.
        features: What that is fitted on.

    """

    def __init__(
        self,
        measures: Sequence[Measure],
        sets: Sequence[MeasuredSet],
        keys: Keys,
        accuracy_form: AccuracyForm,
        correlate_with_gap: bool = False,
        peers: Sequence[Peer] = (),
        limits: Limits | None = None,
        copies: Sequence[MeasuredSet] = (),
        features: Sequence[Feature] = (),
    ) -> None:
        self.measures = measures
        self._peers, self._limits = peers, limits
        self._copies, self._features = copies, features
        #: What it took to measure the copies in this process; None without copies.
        self.calibration_seconds: float | None = None
        self.sets = sets
        self._keys = keys
        self._accuracy_form: AccuracyForm = accuracy_form
        self._correlate_with_gap = correlate_with_gap
        self._notes: list[str] = []
        self._weights_now: dict[str, dict[str, float]] = {}
        #: The values of the measures that need no data at the previous measurement, or before the first step.
        self.weights_before: dict[str, dict[str, float]] = {}

    def prepare(
        self, network: nn.Module, transfer: Transfer, device: torch.device, memories: Mapping[str, Any], weights_before: Any
    ) -> None:
        """Tries every measure on one sample, and takes those that compare with what was before the first step.

        Args:
            network: The network.
            transfer: Brings a batch to the device.
            device: The device.
            memories: What :meth:`memories` returned in an earlier part of the run; empty for a new one.
            weights_before: Likewise, :attr:`weights_before`.

        Raises:
            ValueError: If the labels are missing from a set whose loss is needed.
            UnsupportedNetworkError: If a measure does not cover the network.

        """
        labelled = [measured for measured in self.sets[1:] if measured.outputs.loss is not None]
        blind = [measured for measured in labelled if not measured.has_labels(transfer)]
        for measured in blind if len(blind) < len(labelled) else ():
            measured.forget_labels()
            self._notes.append(f"the {measured.name} set has no labels, so that its true loss is left out")
        for copy in self._copies:
            copy.prepare(network, transfer, device)
        for measured in self.sets:
            measured.prepare(network, transfer, device)
            measured.load_memories(memories.get(measured.name, {}))
            measured.update_first(network, transfer)
        for measure in [measure for measure in self.measures if not measure.needs_data]:
            measure.prepare(network, self.sets[0].first_inputs(transfer))
        self.weights_before = weights_before or measure_weights(self.measures, network)

    def remember_first(self) -> None:
        """Keeps what was there before the first step."""
        for measured in self.sets:
            measured.remember_first()

    @property
    def num_batches(self) -> int:
        """The number of batches that this process measures."""
        return sum(len(measured.subset.positions()) for measured in (*self.sets, *self._copies))

    def accumulate(self, network: nn.Module, transfer: Transfer, tick: Callable[[], object]) -> None:
        """Takes every measure on this process's share of the sets.

        Args:
            network: The network.
            transfer: Brings a batch to the device.
            tick: Called after each batch.

        Raises:
            NonFiniteWeightsError: If the network has diverged.

        """
        check_finite(network)
        for measured in self.sets:
            measured.update(network, transfer, tick)
        if self._copies:
            start = time.perf_counter()
            for copy in self._copies:
                copy.update(network, transfer, tick)
            self.calibration_seconds = time.perf_counter() - start
        self._weights_now = measure_weights(self.measures, network)

    @contextmanager
    def synced(self) -> Iterator[None]:
        """Gathers what the processes have accumulated; their own shares are back afterwards."""
        with ExitStack() as stack:
            for measured in (*self.sets, *self._copies):
                stack.enter_context(measured.synced())
            yield

    def report(self, history: Sequence[Mapping[str, float]]) -> Report:
        """Returns values and estimates, inside of :meth:`synced`.

        Args:
            history: The rows of earlier measurements, for correlations over time.

        """
        names = [measured.name for measured in self.sets]
        readings = {measured.name: measured.read() for measured in self.sets}
        copies = [copy.read() for copy in self._copies]

        def calibrated(target: Reading, reference: Reading) -> Iterator[Estimated | Undefined]:
            return calibrated_estimates(self._features, reference, copies, target)

        report = make_report(
            self.measures,
            names[0],
            readings,
            self._weights_now,
            self.weights_before,
            self._accuracy_form,
            self._keys,
            self._peers,
            self._limits,
            calibrated if copies else None,
        )
        if self._correlate_with_gap:
            report.scalars |= gap_correlations([*history, report.scalars], names[0], names[1:], self._keys)
        return report

    def remember_weights(self) -> None:
        """Compares the next measurement with this one."""
        self.weights_before = self._weights_now

    def memories(self) -> dict[str, dict[str, dict[str, Tensor]]]:
        """Returns what the measures remember, by set and measure."""
        return {measured.name: measured.memories() for measured in self.sets}

    def notes(self) -> list[str]:
        """Returns what a user should know about how the network is measured."""
        of_measures = [note for measure in self.sets[0].measures if (note := measure.note())]
        return list(dict.fromkeys([*of_measures, *self._notes]))

"""The batches of one set on the device: its inputs as the network gets them, and its labels."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lightning_tansens.monitor.data.batches import check_samples
from lightning_tansens.monitor.data.reading import Reading
from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.monitor.data.transfer import Transfer
from lightning_tansens.monitor.processes import Lockstep, largest
from lightning_tansens.tangent.batches import map_tensors
from lightning_tansens.tangent.tracing import bytes_in

#: The size of the batch whose shapes are checked; networks that squeeze their outputs lose the first dimension with one.
_TRIED = 5


class SetBatches:
    """Iterates over this process's share of a set, as (inputs, targets, positions)."""

    def __init__(self, name: str, subset: Subset, transfer: Transfer, reading: Reading) -> None:
        self.name, self.subset, self.transfer = name, subset, transfer
        self._reading = reading
        #: Perturbed batches with their labels, made once: they are the same at every measurement.
        self._kept: dict[tuple[int, ...], tuple[Any, Any]] = {}
        self._device: torch.device | None = None

    def __iter__(self) -> Iterator[tuple[Any, Any, list[int]]]:
        every, wanted = self.subset.positions(), self.positions()
        if all(tuple(positions) in self._kept for positions in wanted):
            yield from ((*self._copied(positions), positions) for positions in wanted)
            return
        # the subset comes first and is exhausted: it keeps its samples for the next time only then
        for number, (loaded, positions) in enumerate(zip(self.subset, every, strict=True), 1):
            yield *self._read(loaded, positions), positions
            if number == len(wanted) < len(every):
                return

    def in_step(self, lockstep: Lockstep) -> Iterator[tuple[Any, Any, list[int]]]:
        """Yields as many batches as the process with most of them has; the further ones have no positions."""
        batches, count = iter(self), len(self.positions())
        with lockstep.together():
            spare, *_ = self.first()
        for number in range(largest(lockstep.trainer, count)):
            with lockstep.together():
                batch = next(batches) if number < count else (spare, None, [])
            yield batch
        with lockstep.together():
            next(batches, None)  # a subset keeps its samples once it is exhausted

    def positions(self) -> list[list[int]]:
        """Returns the samples' positions for each batch that this process reads."""
        last = self._reading.num_read
        return [part for part in self.subset.positions() if last is None or part[0] < last]

    def first(self, samples: int = _TRIED) -> tuple[Any, Any, list[int]]:
        """Returns a batch of so many first samples, or of all if there are fewer, the same on every process.

        Raises:
            TypeError: If samples do not lie one by one in it.
        """
        positions = list(range(min(samples, len(self.subset))))
        loaded = self.subset.samples(positions)
        check_samples(self._reading.split(self.transfer(loaded))[0], len(positions), self.name)
        return *self._read(loaded, positions), positions

    def unsplit(self, samples: int) -> Any:
        """Returns a batch of the first samples as the loader makes it, on the device, the same on every process."""
        return self.transfer(self.subset.samples(range(min(samples, len(self.subset)))))

    def has_labels(self) -> bool:
        """Whether the samples come with labels."""
        return self._reading.split(self.unsplit(1))[1] is not None

    def inputs(self, positions: Sequence[int]) -> Any:
        """Returns the inputs of some samples on the CPU, whichever process's share they are."""
        return self._reading.split(self.subset.samples(positions))[0]

    def labels(self, targets: Any) -> Any:
        """Returns the targets of a batch.

        Raises:
            ValueError: If there are none.
        """
        if targets is None:
            raise ValueError(
                f"expected the {self.name} set to have labels, because its loss is measured, but its batches hold inputs "
                "alone; pass a labelled set as the reference (for a test set, leave compare_with_labels out), or an unpack "
                "callable that returns (inputs, targets)"
            )
        return targets

    def _read(self, loaded: Any, positions: Sequence[int]) -> tuple[Any, Any]:
        perturb, budget, key = self._reading.perturb, self._reading.budget, tuple(positions)
        if key in self._kept:
            return self._copied(positions)
        inputs, targets = self._reading.split(self.transfer(loaded))
        if perturb is None:
            return inputs, targets
        inputs = perturb(inputs, positions)
        self._device = inputs.device
        if budget is not None and budget.take(bytes_in((inputs, targets))):
            self._kept[key] = map_tensors(lambda tensor: tensor.detach().cpu().clone(), (inputs, targets))
        return inputs, targets

    def _copied(self, positions: Sequence[int]) -> tuple[Any, Any]:
        """Returns what was kept, on the device, for a network that may work in place."""
        inputs, targets = map_tensors(lambda tensor: tensor.to(self._device, copy=True), self._kept[tuple(positions)])
        return inputs, targets

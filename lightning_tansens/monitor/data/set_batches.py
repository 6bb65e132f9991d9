"""The batches of one set on the device: its inputs as the network gets them, and its labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lightning_tansens.monitor.data.batches import check_samples
from lightning_tansens.monitor.data.reading import Reading, Transfer
from lightning_tansens.monitor.data.subsets import Subset

#: The size of the batch whose shapes are checked; networks that squeeze their outputs lose the first dimension with one.
_TRIED = 5


class SetBatches:
    """Iterates over this process's share of a set, as (inputs, targets, positions).

    Args:
        name: The set's name, for messages.
        subset: The samples.
        transfer: Moves a batch to the device, through the hooks of the stage that the set belongs to.
        reading: How a batch is split, and what is done to its inputs.

    """

    def __init__(self, name: str, subset: Subset, transfer: Transfer, reading: Reading) -> None:
        self.name, self.subset = name, subset
        self._transfer, self._reading = transfer, reading

    def __iter__(self) -> Iterator[tuple[Any, Any, list[int]]]:
        every, wanted = self.subset.positions(), self.positions()
        if not wanted:
            return
        # the subset comes first and is exhausted: it keeps its samples for the next time only then
        for number, (loaded, positions) in enumerate(zip(self.subset, every, strict=True), 1):
            yield *self._read(loaded, positions), positions
            if number == len(wanted) < len(every):
                return

    def positions(self) -> list[list[int]]:
        """Returns the samples' positions for each batch that this process reads."""
        last = self._reading.num_read
        return [part for part in self.subset.positions() if last is None or part[0] < last]

    def first(self, samples: int = _TRIED) -> tuple[Any, Any, list[int]]:
        """Returns a small batch of the first samples, the same on every process.

        Args:
            samples: How many, if there are as many.

        Raises:
            TypeError: If samples do not lie one by one in it.

        """
        positions = list(range(min(samples, len(self.subset))))
        loaded = self.subset.samples(positions)
        check_samples(self._reading.split(self._transfer(loaded))[0], len(positions), self.name)
        return *self._read(loaded, positions), positions

    def unsplit(self, samples: int) -> Any:
        """Returns a batch of the first samples as the loader makes it, on the device, the same on every process."""
        return self._transfer(self.subset.samples(range(min(samples, len(self.subset)))))

    def has_labels(self) -> bool:
        """Whether the samples come with labels."""
        return self._reading.split(self._transfer(self.subset.first()))[1] is not None

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
        inputs, targets = self._reading.split(self._transfer(loaded))
        return (inputs if self._reading.perturb is None else self._reading.perturb(inputs, positions)), targets

"""What a measurement will cost, from a few samples on which it is tried."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch

#: A batch as :class:`~lightning_tansens.monitor.data.set_batches.SetBatches` yields it: inputs, targets, positions.
Batch = tuple[Any, Any, list[int]]

#: The seconds that a batch takes, and those that each of its samples takes.
Cost = tuple[float, float]

# seconds below which the difference of two batches is noise
_CHEAP = 0.02


def cost_of(call: Callable[[Batch], object], batches: tuple[Batch, Batch]) -> Cost:
    """Calls something on a smaller and on a larger batch, which tell the cost of a batch and of each sample.

    What is too quick to tell them apart counts for the batch alone.

    Example:
        >>> of_batch, of_sample = cost_of(lambda batch: None, ((None, None, [0]), (None, None, [0, 1, 2])))
        >>> of_sample
        0.0
    """
    seconds = [0.0, 0.0]
    for number, batch in enumerate(batches):  # each once, on all processes alike, in case the call talks to the others
        start = _now()
        with nullcontext() if number else suppress(Exception):  # some networks take no batch as small
            call(batch)
            seconds[number] = _now() - start
    if seconds[1] < _CHEAP or not seconds[0]:
        return seconds[1], 0.0
    smaller, larger = (len(positions) for _, _, positions in batches)
    each = max(0.0, seconds[1] - seconds[0]) / max(1, larger - smaller)
    return max(0.0, seconds[1] - each * larger), each


class SetCosts:
    """What a set's batches cost: some things are done with each of them, and some with those that measures see alone."""

    def __init__(self) -> None:
        self._of_all: list[Cost] = []
        self._of_head: list[Cost] = []

    def add(self, cost: Cost, head_alone: bool = False) -> None:
        """Takes what one thing costs, done with every batch or with those of the head."""
        (self._of_head if head_alone else self._of_all).append(cost)

    def seconds(self, batches: Sequence[Sequence[int]], head: int) -> float:
        """Returns how long batches of these positions take, of which those before the head's end are its own."""
        of_head = [*self._of_all, *self._of_head]
        costs = ((cost, len(part)) for part in batches for cost in (of_head if part[0] < head else self._of_all))
        return sum(fixed + each * samples for (fixed, each), samples in costs)


def _now() -> float:
    """Returns the time once an accelerator has done what it was told."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()

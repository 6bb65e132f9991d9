"""What a measurement will cost, from a few samples on which it is tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: A batch as :class:`~lightning_tansens.monitor.data.set_batches.SetBatches` yields it: inputs, targets, positions.
Batch = tuple[Any, Any, list[int]]

#: The seconds that a batch takes, and those that each of its samples takes.
Cost = tuple[float, float]

# seconds: below the first the difference of two batches is noise, from the second on noise makes no difference
_CHEAP, _SURE = 0.02, 0.2


def cost_of(call: Callable[[Batch], object], batches: tuple[Batch, Batch]) -> Cost:
    """Calls something on a smaller and on a larger batch, which tell the cost of a batch and of each sample.

    What is too quick to tell them apart counts for the batch alone.

    Args:
        call: What is called.
        batches: The batches.

    Example:
        >>> batch, sample = cost_of(lambda batch: time.sleep(0.01 * len(batch[2])), ((0, 0, [0]), (0, 0, [0, 1, 2])))
        >>> 0.01 < sample < 0.02
        True

    """
    seconds = [_timed(call, batch) for batch in batches]
    if seconds[1] < _CHEAP:
        return seconds[1], 0.0
    if seconds[1] < _SURE:
        seconds = [min(once, _timed(call, batch)) for once, batch in zip(seconds, batches, strict=True)]
    smaller, larger = (len(positions) for _, _, positions in batches)
    each = max(0.0, seconds[1] - seconds[0]) / max(1, larger - smaller)
    return max(0.0, seconds[1] - each * larger), each


def _timed(call: Callable[[Batch], object], batch: Batch) -> float:
    start = time.perf_counter()
    call(batch)
    return time.perf_counter() - start

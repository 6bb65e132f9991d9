"""Says how long a pass over a set takes, while it goes on."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

#: From how many seconds on a pass is told, and after how many of them.
SLOW, KNOWN = 5.0, 1.0


def timed(
    items: Iterable[Item], total: int, say: Callable[[float], object], clock: Callable[[], float] | None = None
) -> Iterator[Item]:
    """Yields items, and says once how many seconds all of them take, as soon as those before tell that it is long.

    At most ``total`` items are taken. The clock is the computer's own unless a function is given that returns the present
    second.

    Example:
        >>> list(timed("abcd", 4, print, iter([0.0, 2.0, 4.0, 6.0, 8.0]).__next__))
        8.0
        ['a', 'b', 'c', 'd']
    """
    clock = time.monotonic if clock is None else clock
    start, first, said = clock(), 0.0, False  # the first item may wait until something is opened
    for number, item in enumerate(items, 1):
        yield item
        if not said:
            passed = clock() - start
            first = first if number > 1 else passed
            whole = first + (passed - first) * (total - 1) / max(1, number - 1)
            said = passed >= KNOWN and whole >= SLOW
            if said:
                say(whole)

"""Finds files that a data set opens outside itself, and that workers would share."""

from __future__ import annotations

import fcntl
import gc
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

#: Where the operating system lists the files that the process has open.
_LISTS = ("/proc/self/fd", "/dev/fd")


@contextmanager
def no_file_left_open(among_workers: bool) -> Iterator[None]:
    """Refuses data that keep a file open after their copy is gone: in a module, or in the cache of a function.

    Args:
        among_workers: Whether workers will read the data; without them nobody shares the file.

    Raises:
        ValueError: If the block leaves a file open for reading.

    """
    before = _open_files() if among_workers else {}
    yield
    if not among_workers or _open_files().keys() <= before.keys():
        return
    gc.collect()  # objects that refer to themselves are closed only now
    left = [path for file, path in _open_files().items() if file not in before]
    if left:
        raise ValueError(
            f"expected data that keep their open files themselves, but reading a sample left {left[0]} open elsewhere (in a "
            "module, a class or the cache of a function), where the workers would share it; keep the file in an attribute "
            "of the data set, or pass the monitor a Dataset of its own for this set (reference=..., test_dataloaders=...)"
        )


def _open_files() -> dict[tuple[int, int, int], str]:
    """Returns the regular files that are open for reading, by number and identity; none if the system lists none."""
    found = {}
    folder = next((folder for folder in _LISTS if os.path.isdir(folder)), None)
    for name in os.listdir(folder) if folder else ():
        try:
            number = int(name)
            status = os.fstat(number)
            reads = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            path = os.readlink(f"{folder}/{name}") if folder == _LISTS[0] else f"file {name}"
        except OSError:  # the folder itself, which was open while it was listed
            continue
        if stat.S_ISREG(status.st_mode) and reads:
            found[number, status.st_dev, status.st_ino] = path
    return found

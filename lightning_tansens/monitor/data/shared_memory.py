"""Memory that a data set and its copy share, which nobody may write to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class SharedWriteError(RuntimeError):
    """A data set writes into an array that its copy shares with it."""


class _NoWriting(TorchDispatchMode):
    def __init__(self, shared: list[tuple[int, int]]) -> None:
        super().__init__()
        self._shared = shared

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[place] if place < len(args) else kwargs.get(argument.name)
                for tensor in written if isinstance(written, (list, tuple)) else [written]:
                    if isinstance(tensor, Tensor) and self._is_shared(tensor.data_ptr()):
                        raise SharedWriteError(f"{func} writes into a tensor that a data set and its copy share")
        return func(*args, **kwargs)

    def _is_shared(self, address: int) -> bool:
        return any(first <= address < last for first, last in self._shared)


@contextmanager
def unwritten(shared: list[tuple[int, int]]) -> Iterator[None]:
    """Lets a block read shared memory, but not write to it.

    Raises:
        SharedWriteError: Before the block writes.

    """
    if not shared:
        yield
        return
    try:
        with _NoWriting(shared), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            yield
    except ValueError as error:
        if "read-only" not in str(error):  # NumPy's words for an array that is not writable
            raise
        raise SharedWriteError(f"{error}: a data set and its copy share that array") from error

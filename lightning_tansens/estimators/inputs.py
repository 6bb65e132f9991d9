"""The inputs of a set, or some of their entries, as the estimators see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Inputs:
    """The same few entries of every sample's input, in the order of the samples' positions."""

    rows: NDArray[np.floating]  #: The entries, shape (N, D).
    is_table: bool  #: Whether each entry is a quantity of its own, as in a table; the entries of an image have one scale.
    #: Of a sample's whole input; entries of other shapes lie at other places and are not compared.
    shape: tuple[int, ...] = ()
    channels: NDArray[np.int64] | None = None  #: The channel of each entry of an image, shape (D,).

    def __len__(self) -> int:
        return len(self.rows)

    def same_as(self, other: Inputs | None) -> bool:
        """Returns whether these are the same numbers."""
        return other is not None and np.array_equal(self.rows, other.rows, equal_nan=True)

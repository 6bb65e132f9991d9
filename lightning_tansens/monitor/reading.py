"""How batches are read: what is input, what is target, which tensor holds the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_tansens.tangent.network import OutputPicker

#: Splits a batch into inputs and targets (None where there are none).
Unpack = Callable[[Any], tuple[Any, Any]]

#: Moves a batch to the device.
Transfer = Callable[[Any], Any]


@dataclass(frozen=True)
class Reading:
    """How batches of a set are read, and what is gathered of their outputs.

    Attributes:
        unpack: Splits a batch into inputs and targets.
        output: Picks the tensor of outputs; None where the network returns one.
        num_outputs: The number of samples whose outputs the estimators get; 0 for none.
        class_scores: Whether outputs are class scores; None to find out from the first batch.
        features: Whether they get the features too.
        labelled: Whether they get the labels, which is for the reference and its copies alone.
        perturb: Changes the inputs of a batch, given the samples' positions; None leaves them as they are.

    """

    unpack: Unpack
    output: OutputPicker | None = None
    num_outputs: int = 0
    class_scores: bool | None = None
    features: bool = False
    labelled: bool = False
    perturb: Callable[[Any, Sequence[int]], Any] | None = None


def unpack_pair(batch: Any) -> tuple[Any, Any]:
    """Splits a batch that is (inputs, targets), (inputs,) or a lone tensor of inputs.

    Args:
        batch: What the data loader yields.

    Returns:
        Inputs and targets; the targets are None where there are none.

    Raises:
        TypeError: If the batch is anything else.

    Example:
        >>> unpack_pair([torch.zeros(2, 3), torch.ones(2)])[1]
        tensor([1., 1.])

    """
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and len(batch) in (1, 2):
        return batch[0], batch[1] if len(batch) == 2 else None
    came = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list, dict)) else type(batch).__name__
    raise TypeError(
        f"batch: expected a tuple or list (inputs, targets) or (inputs,), but got {came}; pass unpack=callable that takes "
        "a batch and returns (inputs, targets), for example lambda batch: (batch['image'], batch.get('label'))"
    )

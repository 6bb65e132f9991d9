"""Which scalar of the outputs is differentiated: their sum, a weighting, or each output by itself."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

#: "sum" takes the paths to any output (u = 1), "each" one output at a time (u = e_c), a tensor weights them (u).
Outputs = Literal["sum", "each"] | Tensor


def check_outputs(outputs: object) -> None:
    """Raises ValueError unless ``outputs`` is "sum", "each" or a vector."""
    if isinstance(outputs, Tensor):
        if outputs.dim() != 1:
            raise ValueError(f"outputs: expected a weighting of shape (C,), but got shape {tuple(outputs.shape)}")
    elif outputs not in ("sum", "each"):
        raise ValueError(f"outputs: expected 'sum', 'each' or a weighting of shape (C,), but got {outputs!r}")


def output_weightings(outputs: Outputs, output: Tensor) -> Tensor:
    """Returns the weightings u of outputs (N, C) as rows, shape (U, C), in at least single precision.

    U is C for "each", else 1. Raises ValueError if a weighting does not have one entry for each output.
    """
    count = output.shape[1]
    dtype = torch.promote_types(output.dtype, torch.float32)
    if isinstance(outputs, Tensor):
        if len(outputs) != count:
            raise ValueError(
                f"outputs: expected a weighting of shape ({count},), one for each output of the network, but got shape "
                f"{tuple(outputs.shape)}"
            )
        return outputs.to(output.device, dtype).unsqueeze(0)
    if outputs == "each":
        return torch.eye(count, device=output.device, dtype=dtype)
    return torch.ones(1, count, device=output.device, dtype=dtype)

"""The papers' measures of every sample, by the network of the last epoch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_tansens.metrics import ActiveNodeSensitivity, EmpiricalSensitivity, InputOutputSensitivity

#: Samples that are measured at once.
BATCH = 250


def measured(network: nn.Module, inputs: Tensor) -> Tensor:
    """Returns ‖∂²f/∂θ∂x‖², ‖∂f/∂x‖² and the number of active nodes of each sample, shape (N, 3)."""
    measures = EmpiricalSensitivity(), InputOutputSensitivity(), ActiveNodeSensitivity()
    rows, start = [], 0
    for part in inputs.split(BATCH):
        places = range(start, start + len(part))
        numbers = [measure.of_samples(network, part, places).reshape(len(part), -1).sum(1) for measure in measures]
        rows.append(torch.stack([one.detach().double().cpu() for one in numbers], 1))
        start += len(part)
    return torch.cat(rows)

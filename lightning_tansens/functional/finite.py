"""Which samples of a batch give finite numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.tangent.batches import OutputPicker, batch_length, pick_output
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import call_on_copies
from lightning_tansens.tangent.tracing import tensors_in


def finite_samples(tensor: Tensor) -> Tensor:
    """Returns for which samples a tensor of shape (N, ...) is finite, as booleans of shape (N,)."""
    flat = tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)
    if not flat.is_floating_point():
        return torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    return flat.sum(1, dtype=torch.promote_types(flat.dtype, torch.float32)).isfinite()  # faster than to look at each


def finite_outputs(model: nn.Module, inputs: Any, output: OutputPicker | None = None) -> Tensor | None:
    """Finds the samples with finite outputs in a batch in which something is not finite, as booleans of shape (N,).

    A derivative may be finite where the function is not: ReLU hides a nan. Returns None where all inputs are finite, which
    costs no forward pass.
    """
    samples = batch_length(inputs)
    if all(bool(finite_samples(tensor).all()) for tensor in tensors_in(inputs) if tensor.dim() and len(tensor) == samples):
        return None
    with evaluation(model), torch.no_grad():
        result = call_on_copies(model, inputs)
    found = tensors_in(pick_output(result, output))
    masks = [finite_samples(tensor) for tensor in found if tensor.dim() and len(tensor) == samples]
    return torch.stack(masks).all(0) if masks else None

"""Finds out whether a network is random in eval mode too."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.tangent.batches import call_model, map_tensors
from lightning_tansens.tangent.isolation import undisturbed
from lightning_tansens.tangent.isolation.randomness import Randomness, attributes
from lightning_tansens.tangent.tracing import tensors_in


def is_random(network: nn.Module, inputs: Any) -> bool:
    """Says whether two forward passes in eval mode differ by the random numbers that they draw.

    Monte Carlo dropout and reparametrised sampling do; their sensitivities belong to one draw and do not repeat. A network
    that only counts its calls, or whose kernels round differently from call to call, is not random.

    Example:
        >>> is_random(nn.Sequential(nn.Linear(3, 2), nn.Dropout()), torch.ones(1, 3))
        False
    """
    first, again, other = (_outputs(network, inputs, seed) for seed in (0, 0, 1))
    rounding = max((_distance(a, b) for a, b in zip(first, again)), default=0.0)
    moved = max((_distance(a, b) for a, b in zip(first, other)), default=0.0)
    return moved > 10 * rounding


def _outputs(network: nn.Module, inputs: Any, seed: int) -> list[Tensor]:
    with undisturbed(network), torch.no_grad():
        Randomness(*attributes(network)).seed(seed)
        return [tensor.clone() for tensor in tensors_in(call_model(network, map_tensors(Tensor.clone, inputs)))]


def _distance(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a.nan_to_num().double() - b.nan_to_num().double()).abs().max()) if a.numel() else 0.0

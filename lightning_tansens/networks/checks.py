"""Checks of what every function is given first."""

from __future__ import annotations

from torch import nn


def check_model(model: object) -> None:
    """Refuses what is no network.

    Raises:
        TypeError: If it is no module.

    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, but got {type(model).__name__}")


def check_seed(seed: object) -> None:
    """Refuses what names no stream of random numbers.

    Raises:
        ValueError: If it is no integer of 64 bits.

    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed: expected an integer between -2^63 and 2^63 - 1, but got {seed!r}")

"""Finds the part of the user's module that is measured, and the hooks that it defines."""

from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.overrides import is_overridden
from torch import nn


def find_network(pl_module: pl.LightningModule, name: str | None) -> nn.Module:
    """Returns the submodule of that name; for None the LightningModule, or without ``forward`` its one part with weights.

    Raises:
        MisconfigurationException: If there is no such submodule, or the LightningModule has no ``forward`` and several
            parts with weights, or none.
    """
    names = [child for child, _ in pl_module.named_children()]
    if name is None:
        if defines(pl_module, "forward"):
            return pl_module
        parts = [child for child in pl_module.children() if any(True for _ in child.parameters())]
        if len(parts) == 1:
            return parts[0]
        raise MisconfigurationException(
            f"network: expected {type(pl_module).__name__} to define forward, but it does not; name the submodule to "
            f"measure, TangentSensitivityMonitor(network=...), for example one of {names}"
        )
    try:
        return pl_module.get_submodule(name)
    except AttributeError:
        raise MisconfigurationException(
            f"network={name!r}: expected the name of a submodule of {type(pl_module).__name__}, whose children are {names}"
        ) from None


def defines(owner: Any, hook: str) -> bool:
    """Whether a module or datamodule of either namespace defines a hook."""
    names = ("LightningModule", "LightningDataModule")
    parent = next((cls for cls in reversed(type(owner).__mro__) if cls.__name__ in names and hasattr(cls, hook)), None)
    return parent is not None and is_overridden(hook, owner, parent)

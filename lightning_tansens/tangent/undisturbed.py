"""What a LightningModule may change or log while it is measured, kept from the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import lightning.pytorch as pl

from lightning_tansens.tangent.randomness import Randomness


@contextmanager
def undisturbed(pl_module: pl.LightningModule) -> Iterator[None]:
    """Puts back generators that modules hold, and drops what the module logs, as a ``forward`` may do.

    Args:
        pl_module: The module whose network is called within the block.

    """
    with ExitStack() as stack:
        for module in pl_module.modules():
            own = [value for name, value in vars(module).items() if not name.startswith("_")]
            stack.enter_context(Randomness(own).isolated_generators())
        stack.enter_context(_silenced(pl_module))
        yield


@contextmanager
def _silenced(pl_module: pl.LightningModule) -> Iterator[None]:
    own = vars(pl_module)
    before = own.get("log")
    own["log"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        if before is None:
            del own["log"]
        else:
            own["log"] = before

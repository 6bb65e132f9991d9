"""The command ``lightning-tansens``, which measures saved checkpoints."""

from lightning_tansens.command_line.main import main

__all__ = ["main"]

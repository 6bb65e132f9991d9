"""The callbacks: they alone know the Trainer."""

from lightning_tansens.monitor.callback import TangentSensitivityMonitor
from lightning_tansens.monitor.options import Options

__all__ = ["Options", "TangentSensitivityMonitor"]

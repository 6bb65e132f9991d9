"""The callbacks: they alone know the Trainer."""

from lightning_tansens.monitor.callback import TangentSensitivityMonitor

__all__ = ["TangentSensitivityMonitor"]

"""Label-free estimates of loss and accuracy while a network trains, and its tangent sensitivity."""

from lightning_tansens import functional, metrics
from lightning_tansens.monitor.callback import TangentSensitivityMonitor
from lightning_tansens.monitor.fresh import FreshEarlyStopping, FreshModelCheckpoint
from lightning_tansens.monitor.generalization import GeneralizationBoundMonitor
from lightning_tansens.show import Display, figures
from lightning_tansens.tangent.regulariser import TangentSensitivityRegulariser
from lightning_tansens.version import __version__

__all__ = [
    "Display",
    "FreshEarlyStopping",
    "FreshModelCheckpoint",
    "GeneralizationBoundMonitor",
    "TangentSensitivityMonitor",
    "TangentSensitivityRegulariser",
    "__version__",
    "figures",
    "functional",
    "metrics",
]

"""Label-free estimates of the test loss while a network trains, from its tangent sensitivity."""

from lightning_tansens import figures, functional, metrics
from lightning_tansens.display import Display
from lightning_tansens.fresh import FreshEarlyStopping, FreshModelCheckpoint
from lightning_tansens.generalization_monitor import GeneralizationBoundMonitor
from lightning_tansens.monitor import TangentSensitivityMonitor
from lightning_tansens.regulariser import TangentSensitivityRegulariser
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

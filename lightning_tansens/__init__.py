"""Label-free estimates of loss and accuracy while a network trains, and its tangent sensitivity."""

import sys
from importlib import import_module

try:
    import_module("lightning.pytorch")
except ModuleNotFoundError as error:
    found = getattr(sys.modules.get("lightning"), "__file__", None)
    if error.name != "lightning.pytorch" or found is None:
        raise
    raise ImportError(
        f"expected the package lightning, but {found} hides it; rename that file, or start with 'python -m PACKAGE.MODULE' "
        "from outside its folder"
    ) from error

from lightning_tansens import functional, metrics
from lightning_tansens.monitor.callback import TangentSensitivityMonitor
from lightning_tansens.monitor.fresh import FreshEarlyStopping, FreshModelCheckpoint
from lightning_tansens.monitor.generalization import GeneralizationBoundMonitor
from lightning_tansens.monitor.options import Options
from lightning_tansens.show import Display, figures
from lightning_tansens.tangent.regulariser import TangentSensitivityRegulariser
from lightning_tansens.version import __version__

__all__ = [
    "Display",
    "FreshEarlyStopping",
    "FreshModelCheckpoint",
    "GeneralizationBoundMonitor",
    "Options",
    "TangentSensitivityMonitor",
    "TangentSensitivityRegulariser",
    "__version__",
    "figures",
    "functional",
    "metrics",
]

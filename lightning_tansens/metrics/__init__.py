"""The measures as torchmetrics Metrics: they accumulate over batches and sync across processes."""

from lightning_tansens.metrics.active_nodes import ActiveNodeSensitivity
from lightning_tansens.metrics.base import SensitivityMeasure
from lightning_tansens.metrics.empirical import EmpiricalSensitivity
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.metrics.layerwise_norm import LayerwiseNormSensitivity

__all__ = [
    "ActiveNodeSensitivity",
    "EmpiricalSensitivity",
    "LabelledLoss",
    "LayerwiseNormSensitivity",
    "SensitivityMeasure",
]


def default_measures() -> list[SensitivityMeasure]:
    """Returns the measures that a monitor computes unless told otherwise."""
    return [EmpiricalSensitivity(), LayerwiseNormSensitivity(), ActiveNodeSensitivity()]

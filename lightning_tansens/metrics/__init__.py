"""The measures as torchmetrics Metrics: they accumulate over batches and sync across processes."""

from lightning_tansens.metrics.active_nodes import ActiveNodeSensitivity
from lightning_tansens.metrics.base import LabelledMeasure, Measure, SensitivityMeasure
from lightning_tansens.metrics.class_sensitivity import ClassSensitivity
from lightning_tansens.metrics.empirical import EmpiricalSensitivity
from lightning_tansens.metrics.fisher_rao import FisherRaoSensitivity
from lightning_tansens.metrics.input_output import InputOutputSensitivity
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.metrics.layerwise_norm import LayerwiseNormSensitivity
from lightning_tansens.metrics.movement import SensitivityMovement
from lightning_tansens.metrics.output_sensitivity import OutputSensitivity
from lightning_tansens.metrics.region import RegionSensitivity
from lightning_tansens.metrics.spectral_norm import SpectralNormSensitivity

__all__ = [
    "ActiveNodeSensitivity",
    "ClassSensitivity",
    "EmpiricalSensitivity",
    "FisherRaoSensitivity",
    "InputOutputSensitivity",
    "LabelledLoss",
    "LabelledMeasure",
    "LayerwiseNormSensitivity",
    "Measure",
    "OutputSensitivity",
    "RegionSensitivity",
    "SensitivityMeasure",
    "SensitivityMovement",
    "SpectralNormSensitivity",
]


def default_measures() -> list[Measure]:
    """Returns the measures that a monitor computes unless told otherwise."""
    return [EmpiricalSensitivity(), LayerwiseNormSensitivity(), ActiveNodeSensitivity()]

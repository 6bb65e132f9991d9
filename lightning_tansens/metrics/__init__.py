"""The measures as torchmetrics Metrics: they accumulate over batches and sync across processes."""

from lightning_tansens.metrics.active_nodes import ActiveNodeSensitivity
from lightning_tansens.metrics.base import LabelledMeasure, Measure, SensitivityMeasure, TangentOptions
from lightning_tansens.metrics.class_sensitivity import ClassSensitivity
from lightning_tansens.metrics.empirical import EmpiricalSensitivity
from lightning_tansens.metrics.fisher_rao import FisherRaoSensitivity
from lightning_tansens.metrics.gradient_difference import GradientDifference
from lightning_tansens.metrics.input_output import InputOutputSensitivity
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.metrics.layerwise_norm import LayerwiseNormSensitivity
from lightning_tansens.metrics.mean_tangent import MeanTangentSensitivity
from lightning_tansens.metrics.movement import SensitivityMovement
from lightning_tansens.metrics.neuron_margins import NeuronMargins
from lightning_tansens.metrics.output_sensitivity import OutputSensitivity
from lightning_tansens.metrics.pattern_information import PatternInformation
from lightning_tansens.metrics.patterns import ActivationPatterns
from lightning_tansens.metrics.region import RegionSensitivity
from lightning_tansens.metrics.samples import MeanSensitivity, SampleMeasure
from lightning_tansens.metrics.spectral_norm import SpectralNormSensitivity
from lightning_tansens.metrics.tangent import FunctionMeasure, TangentMeasure

__all__ = [
    "ActivationPatterns",
    "ActiveNodeSensitivity",
    "ClassSensitivity",
    "EmpiricalSensitivity",
    "FisherRaoSensitivity",
    "FunctionMeasure",
    "GradientDifference",
    "InputOutputSensitivity",
    "LabelledLoss",
    "LabelledMeasure",
    "LayerwiseNormSensitivity",
    "MeanSensitivity",
    "MeanTangentSensitivity",
    "Measure",
    "NeuronMargins",
    "OutputSensitivity",
    "PatternInformation",
    "RegionSensitivity",
    "SampleMeasure",
    "SensitivityMeasure",
    "SensitivityMovement",
    "SpectralNormSensitivity",
    "TangentMeasure",
    "TangentOptions",
]


def default_measures() -> list[Measure]:
    """Returns the measures that a monitor computes unless told otherwise."""
    return [EmpiricalSensitivity(), LayerwiseNormSensitivity(), ActiveNodeSensitivity()]

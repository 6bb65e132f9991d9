"""The field's label-free estimators of a classifier's accuracy and loss, as torchmetrics Metrics."""

from lightning_tansens._peers.average_confidence import AverageConfidence
from lightning_tansens._peers.base import Estimate, Peer, Summary
from lightning_tansens._peers.confidence_based import ConfidenceBasedEstimation
from lightning_tansens._peers.difference_of_confidences import DifferenceOfConfidences
from lightning_tansens._peers.dispersion import DispersionScore
from lightning_tansens._peers.importance_weighting import ImportanceWeighting
from lightning_tansens._peers.mano import MaNo
from lightning_tansens._peers.nuclear_norm import NuclearNorm
from lightning_tansens._peers.optimal_transport import ConfidenceOptimalTransport
from lightning_tansens._peers.predictive_entropy import EntropyDifference, EntropyRatio
from lightning_tansens._peers.thresholded_confidence import ThresholdedConfidence

__all__ = [
    "AverageConfidence",
    "ConfidenceBasedEstimation",
    "ConfidenceOptimalTransport",
    "DifferenceOfConfidences",
    "DispersionScore",
    "EntropyDifference",
    "EntropyRatio",
    "Estimate",
    "ImportanceWeighting",
    "MaNo",
    "NuclearNorm",
    "Peer",
    "Summary",
    "ThresholdedConfidence",
    "default_peers",
]


def default_peers() -> list[Peer]:
    """Returns one of each, the thresholded confidence with both scores."""
    return [
        AverageConfidence(),
        DifferenceOfConfidences(),
        ImportanceWeighting(),
        ConfidenceBasedEstimation(),
        ThresholdedConfidence("confidence"),
        ThresholdedConfidence("entropy"),
        ConfidenceOptimalTransport(),
        NuclearNorm(),
        MaNo(),
        DispersionScore(),
        EntropyRatio(),
        EntropyDifference(),
    ]

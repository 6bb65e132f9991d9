"""Label-free estimators of loss and accuracy, on one protocol: :class:`Estimator`."""

from lightning_tansens.estimators.all import default_estimators, estimate_set, score_set
from lightning_tansens.estimators.averages import AverageConfidence, DifferenceOfConfidences, EntropyDifference, EntropyRatio
from lightning_tansens.estimators.base import Estimator, Need, Score
from lightning_tansens.estimators.calibrated import Calibrated
from lightning_tansens.estimators.confidence_based import ConfidenceBasedEstimation
from lightning_tansens.estimators.disagreement import AgreementOnTheLine, DisagreementRatio
from lightning_tansens.estimators.doubts import Limits, Reason
from lightning_tansens.estimators.headline import Headline
from lightning_tansens.estimators.importance_weighting import ImportanceWeighting
from lightning_tansens.estimators.inputs import Inputs
from lightning_tansens.estimators.optimal_transport import ConfidenceOptimalTransport, TransportLoss
from lightning_tansens.estimators.outputs import Outputs
from lightning_tansens.estimators.pseudo_label_loss import PseudoLabelLoss
from lightning_tansens.estimators.ratio import AccuracyForm, MeasureRatio, Trivial
from lightning_tansens.estimators.scores import DispersionScore, MaNo, NuclearNorm
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.estimators.temporal_ensemble import TemporalEnsemble
from lightning_tansens.estimators.thresholded_confidence import ThresholdedConfidence
from lightning_tansens.estimators.trajectory import Trajectory

__all__ = [
    "AccuracyForm",
    "AgreementOnTheLine",
    "AverageConfidence",
    "Calibrated",
    "ConfidenceBasedEstimation",
    "ConfidenceOptimalTransport",
    "DifferenceOfConfidences",
    "DisagreementRatio",
    "DispersionScore",
    "EntropyDifference",
    "EntropyRatio",
    "Estimator",
    "Headline",
    "ImportanceWeighting",
    "Inputs",
    "Limits",
    "MaNo",
    "MeasureRatio",
    "Need",
    "NuclearNorm",
    "Outputs",
    "PseudoLabelLoss",
    "Reason",
    "Score",
    "SetSummary",
    "TemporalEnsemble",
    "ThresholdedConfidence",
    "Trajectory",
    "TransportLoss",
    "Trivial",
    "default_estimators",
    "estimate_set",
    "score_set",
]

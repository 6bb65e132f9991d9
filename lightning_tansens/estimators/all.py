"""The default estimators, and all estimates of a target: the calls that the monitor makes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lightning_tansens.errors import TooEarlyError, UndefinedEstimateError
from lightning_tansens.estimators.averages import AverageConfidence, DifferenceOfConfidences, EntropyDifference, EntropyRatio
from lightning_tansens.estimators.base import Estimator
from lightning_tansens.estimators.confidence_based import ConfidenceBasedEstimation
from lightning_tansens.estimators.disagreement import AgreementOnTheLine, DisagreementRatio
from lightning_tansens.estimators.doubts import Limits, with_doubts
from lightning_tansens.estimators.headline import Headline
from lightning_tansens.estimators.importance_weighting import ImportanceWeighting
from lightning_tansens.estimators.optimal_transport import ConfidenceOptimalTransport, TransportLoss
from lightning_tansens.estimators.pseudo_label_loss import PseudoLabelLoss, PseudoLabels
from lightning_tansens.estimators.ratio import Trivial
from lightning_tansens.estimators.scores import DispersionScore, MaNo, NuclearNorm
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.estimators.temporal_ensemble import TemporalEnsemble
from lightning_tansens.estimators.thresholded_confidence import ThresholdedConfidence
from lightning_tansens.record import TRIVIAL, Estimate, Missing, Quantity


def default_estimators(
    criterion: Callable[[Any, Any], Any] | None = None, pseudo_labels: PseudoLabels = "outputs"
) -> list[Estimator]:
    """Returns the headline and one of each estimator that works on outputs; the thresholded one with every score.

    The ratios of measures come with the measures, and :class:`Calibrated` costs a forward pass for each of its own copies,
    so neither is among them.

    Args:
        criterion: For the pseudo-label loss, and for the headline of outputs that are not class scores; see
            :class:`PseudoLabelLoss`.
        pseudo_labels: As above.

    Example:
        >>> [estimator.key for estimator in default_estimators()][:3]
        ['estimate', 'average_confidence', 'difference_of_confidences']
    """
    return [
        Headline(criterion=criterion, pseudo_labels=pseudo_labels),
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
        TemporalEnsemble(),
        DisagreementRatio(),
        AgreementOnTheLine("S"),
        AgreementOnTheLine("D"),
        PseudoLabelLoss(criterion, pseudo_labels),
        ThresholdedConfidence("ensemble"),
        ConfidenceOptimalTransport("ensemble"),
        TransportLoss(),
    ]


def estimate_set(
    estimators: Iterable[Estimator], target: SetSummary, reference: SetSummary, limits: Limits | None = None
) -> tuple[dict[Quantity, dict[str, Estimate]], dict[str, Missing]]:
    """Returns all estimates of a target, with their doubts, and why some are missing.

    An estimator that fails loses only its own estimates.

    Args:
        estimators: The estimators; the trivial one is added in front.
        target: What was found on the target; what its labels gave is not used.
        reference: What was found on the labelled reference.
        limits: What is required of an estimate without doubts; None for the defaults.

    Returns:
        The estimates by quantity and estimator, and the reasons by estimator.

    Example:
        >>> estimates, missing = estimate_set([], SetSummary("test", 100), SetSummary("val", 100, loss=0.5))
        >>> estimates["loss"]["trivial"].value, estimates["loss"]["trivial"].doubts[0]
        (0.5, 'it does not look at the target')
    """
    target = target.unlabelled()
    found: dict[Quantity, dict[str, Estimate]] = {}
    missing: dict[str, Missing] = {}
    for estimator in (Trivial(), *(other for other in estimators if other.key != TRIVIAL)):
        try:
            estimates = estimator.estimate(target, reference)
            judged = {
                quantity: with_doubts(estimate, quantity, estimator, target, reference, limits)
                for quantity, estimate in estimates.items()
            }
        except Exception as error:  # whatever a user's own estimator may raise
            missing[estimator.key] = _missing(error)
        else:
            for quantity, estimate in judged.items():
                found.setdefault(quantity, {})[estimator.key] = estimate
    return found, missing


def score_set(estimators: Sequence[Estimator], summary: SetSummary) -> tuple[dict[str, float], dict[str, Missing]]:
    """Returns the estimators' scores of one set by name, and why some are missing, by estimator."""
    found: dict[str, float] = {}
    missing: dict[str, Missing] = {}
    for estimator in estimators:
        try:
            scores: Mapping[str, float] = estimator.scores(summary)
        except Exception as error:
            missing[estimator.key] = _missing(error)
        else:
            found |= scores
    return found, missing


def _missing(error: Exception) -> Missing:
    reason = str(error) if isinstance(error, UndefinedEstimateError) else f"it failed with {type(error).__name__}: {error}"
    return Missing(reason, isinstance(error, TooEarlyError))

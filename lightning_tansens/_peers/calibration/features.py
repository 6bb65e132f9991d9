"""What a calibration looks at: numbers of a set that need no labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from lightning_tansens._peers import AverageConfidence, EntropyRatio, Peer
from lightning_tansens._peers.reading import Reading
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.metrics.base import Measure

#: The mean predictive entropy, the mean of 1 − confidence, the mean ‖S‖_F², the mean number of active hidden units.
Feature = Literal["entropy", "confidence", "sensitivity", "active_nodes"]

#: Those that a measure gives, by its key.
_MEASURED: dict[Feature, str] = {"sensitivity": "empirical", "active_nodes": "active_nodes"}


def feature_peers() -> list[Peer]:
    """Returns the estimators whose sums the features are read from."""
    return [EntropyRatio(), AverageConfidence()]


def feature_measures(features: Sequence[Feature], measures: Sequence[Measure]) -> list[Measure]:
    """Returns those measures that the features are read from."""
    keys = [_MEASURED[name] for name in features if name in _MEASURED]
    return [measure for measure in measures if measure.key in keys]


def check_features(features: Sequence[Feature], measures: Sequence[Measure]) -> None:
    """Refuses features that need a measure that is not there.

    Args:
        features: Their names.
        measures: What is measured.

    Raises:
        ValueError: If a measure is missing.

    """
    keys = {measure.key for measure in measures}
    for name in features:
        if _MEASURED.get(name, "") not in {"", *keys}:
            raise ValueError(
                f"features: expected a measure with the key {_MEASURED[name]!r} for the feature {name!r}, but got the keys "
                f"{sorted(keys)}; add the measure, or leave the feature out"
            )


def log_features(reading: Reading, features: Sequence[Feature]) -> list[float]:
    """Returns the logarithms of a set's features.

    Args:
        reading: What was measured on it.
        features: The names.

    Raises:
        UndefinedEstimateError: If one is not positive or not finite.

    """
    logarithms = []
    for name in features:
        value = _READERS[name](reading)
        if not (math.isfinite(value) and value > 0):
            raise UndefinedEstimateError(f"expected a positive mean {name} on every set, but it is {value}")
        logarithms.append(math.log(value))
    return logarithms


def _entropy(reading: Reading) -> float:
    summary = reading.summaries[EntropyRatio.key]
    return float(summary["entropy"] / summary["count"])


def _doubt(reading: Reading) -> float:
    summary = reading.summaries[AverageConfidence.key]
    return 1 - float(summary["confidence"] / summary["count"])


_READERS: dict[Feature, Callable[[Reading], float]] = {
    "entropy": _entropy,
    "confidence": _doubt,
    "sensitivity": lambda reading: reading.values["empirical"]["empirical"],
    "active_nodes": lambda reading: reading.values["active_nodes"]["active_nodes_mean"],
}

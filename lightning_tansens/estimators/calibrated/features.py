"""What a calibration looks at: numbers of a set that need no labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.metrics.base import Measure

#: The mean predictive entropy, the mean of 1 − confidence, the mean ‖S‖_F², the mean number of active hidden units.
Feature = Literal["entropy", "confidence", "sensitivity", "active_nodes"]

#: Those that a measure gives: its key, and the name of the value.
_MEASURED: dict[Feature, tuple[str, str]] = {
    "sensitivity": ("empirical", "empirical"),
    "active_nodes": ("active_nodes", "active_nodes_mean"),
}


def measure_keys(features: Sequence[Feature]) -> frozenset[str]:
    """Returns the keys of the measures that the features are read from; they are taken on the copies too."""
    return frozenset(_MEASURED[name][0] for name in features if name in _MEASURED)


def check_features(features: Sequence[Feature], measures: Sequence[Measure]) -> None:
    """Raises ValueError if a feature needs a measure that is not taken."""
    keys = {measure.key for measure in measures}
    for name in features:
        if name in _MEASURED and _MEASURED[name][0] not in keys:
            raise ValueError(
                f"features: expected a measure with the key {_MEASURED[name][0]!r} for the feature {name!r}, but got the "
                f"keys {sorted(keys)}; add the measure, or leave the feature out"
            )


def log_features(summary: SetSummary, features: Sequence[Feature]) -> list[float]:
    """Returns the logarithms of a set's features; raises UndefinedEstimateError if one is not positive or not finite."""
    logarithms = []
    for name in features:
        value = _feature(summary, name)
        if not (math.isfinite(value) and value > 0):
            raise UndefinedEstimateError(f"expected a positive mean {name} on every set, but it is {value}")
        logarithms.append(math.log(value))
    return logarithms


def _feature(summary: SetSummary, name: Feature) -> float:
    if name in _MEASURED:
        key, value = _MEASURED[name]
        return summary.values.get(key, {}).get(value, math.nan)
    return float(summary.class_scores.entropies.mean() if name == "entropy" else 1 - summary.class_scores.confidences.mean())

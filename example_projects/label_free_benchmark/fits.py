"""Fits on known shifts, scored on an unseen one: what sensitivity adds to confidence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from results import TRAIN, Network, Row, Set

from lightning_tansens.estimators.calibrated.ridge import Ridge
from lightning_tansens.record import TRIVIAL

#: Each fit by name, with the features whose log ratios to the reference it is linear in.
FITS = {
    "fit: entropy": ("entropy",),
    "fit: confidence": ("confidence",),
    "fit: sensitivity": ("sensitivity",),
    "fit: entropy, confidence": ("entropy", "confidence"),
    "fit: entropy, sensitivity": ("entropy", "sensitivity"),
    "fit: entropy, confidence, sensitivity": ("entropy", "confidence", "sensitivity"),
    "fit: all four": ("entropy", "confidence", "sensitivity", "active_nodes"),
}

Numbers = dict[str, float]


def left_out_estimates(rows: Sequence[Row]) -> Iterator[Row]:
    r"""Yields, for each network and family, the estimates of fits on all other families of that network.

    .. math:: \log \frac{l(X)}{l(X_{ref})} \approx \sum_j \beta_j \log \frac{\phi_j(X)}{\phi_j(X_{ref})}

    and likewise for the error rate; a set without an error has no estimate of it and takes no part.

    Args:
        rows: The benchmark.

    """
    of_networks: dict[Network, dict[Set, Numbers]] = {}
    for row in rows:
        if row.on[0] != TRAIN:
            numbers = of_networks.setdefault(row.network, {}).setdefault(row.on, {})
            numbers[f"{row.estimator} {row.quantity}"] = row.estimate
            numbers[f"{'reference ' + row.estimator if row.quantity == 'feature' else 'actual'} {row.quantity}"] = row.actual
    for network, of_sets in of_networks.items():
        for quantity in ("loss", "accuracy"):
            points = {on: point for on, numbers in of_sets.items() if (point := _point(numbers, quantity)) is not None}
            for family in dict.fromkeys(on[0] for on in points):
                others = [point for on, point in points.items() if on[0] not in (family, "none")]
                for name, features in FITS.items():
                    if len(others) < 3 or not all(feature in others[0] for feature in features):
                        continue
                    fit = Ridge([[point[f] for f in features] for point in others], [point["change"] for point in others])
                    for on, point in points.items():
                        if on[0] == family:
                            change = fit.predict([point[f] for f in features]).value
                            yield _estimated(network, on, name, quantity, of_sets[on], change)


def _estimated(network: Network, on: Set, name: str, quantity: str, numbers: Numbers, change: float) -> Row:
    own = _wrong(numbers[f"{TRIVIAL} {quantity}"], quantity) * math.exp(change)
    estimate = own if quantity == "loss" else min(max(1 - own, 0.0), 1.0)
    return Row(network, on, name, quantity, estimate, numbers[f"actual {quantity}"])


def _point(numbers: Numbers, quantity: str) -> Numbers | None:
    wrongs = [_wrong(numbers[key], quantity) for key in (f"actual {quantity}", f"{TRIVIAL} {quantity}")]
    if min(wrongs) <= 0:
        return None
    confidence = [1 - numbers[key] for key in ("average_confidence feature", "reference average_confidence feature")]
    nodes = [numbers[key] for key in ("active_nodes_mean feature", "reference active_nodes_mean feature")]
    point = {"change": _log_ratio(*wrongs), "confidence": _log_ratio(*confidence), "active_nodes": _log_ratio(*nodes)}
    for feature, estimator in (("entropy", "entropy_ratio"), ("sensitivity", "empirical")):
        point[feature] = _log_ratio(numbers[f"{estimator} loss"], numbers[f"{TRIVIAL} loss"])
    return point


def _wrong(value: float, quantity: str) -> float:
    return value if quantity == "loss" else 1 - value


def _log_ratio(value: float, other: float) -> float:
    return math.log(value / other)

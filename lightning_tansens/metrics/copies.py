"""Independent copies of metrics."""

from __future__ import annotations

from typing import TypeVar, cast

from torchmetrics import Metric

AnyMetric = TypeVar("AnyMetric", bound=Metric)


def copied(metric: AnyMetric) -> AnyMetric:
    """Returns an independent copy with nothing accumulated."""
    copy = cast(AnyMetric, metric.clone())
    copy.reset()
    return copy

"""What one measurement of a set has found."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lightning_tansens._peers import Summary
from lightning_tansens.metrics.uncertainty import Influence


@dataclass(frozen=True)
class Reading:
    """What one measurement of a set has found, over all processes.

    Attributes:
        values: For each measure, by key, its named scalars.
        samples: The number of samples on which they were taken.
        parts: For each measure, by key, its values by part (a layer, an output, a class).
        distributions: For each measure, by key, and its parts, one number per sample; the whole is "".
        influences: For each measure that knows them, by key, how far each sample moves it.
        errors: For each measure that knows it, by key, its standard error.
        loss: The mean loss, where labels were used.
        loss_influence: How far each sample moves the loss, if that is known.
        accuracy: The accuracy, where labels were used and the task is a classification.
        wrong: The number of wrong predictions, likewise.
        class_losses: The mean loss of each class, likewise.
        summaries: For each estimator that works on outputs, by key, what it needs to know of the set.
        scores: For each of them, its named scalars.

    """

    values: dict[str, dict[str, float]]
    samples: int = 0
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    distributions: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    influences: dict[str, Influence] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    loss_influence: Influence | None = None
    accuracy: float | None = None
    wrong: float | None = None
    class_losses: dict[int, float] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

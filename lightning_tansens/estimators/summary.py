"""What one measurement found on one set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.outputs import Outputs
from lightning_tansens.metrics.uncertainty import Influence

#: Outputs give no estimate unless more than this share of a set's samples is usable.
USABLE = 0.5

Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class SetSummary:
    """What one measurement found on one set, over all processes."""

    name: str
    samples: int = 0  #: The number of samples that the measures saw.
    outputs: Outputs | None = None  #: The network's outputs; None where they are not gathered.
    loss: float | None = None  #: The mean loss, where labels were used.
    loss_influence: Influence | None = None  #: How far each sample moves the loss, if that is known.
    loss_stderr: float | None = None  #: The standard error of the loss, if that is known.
    accuracy: float | None = None  #: The accuracy, where labels of classes were used.
    accuracy_stderr: float | None = None  #: Its standard error, if that is known.
    wrong: float | None = None  #: The number of wrong predictions; None as for the accuracy.
    class_losses: Mapping[int, float] = field(default_factory=dict)  #: The mean loss of each class.
    values: Values = field(default_factory=dict)  #: For each measure, by key, its named scalars.
    parts: Values = field(default_factory=dict)  #: For each measure, by key, its values by layer, output or class.
    #: One number per sample, for each measure, by key, and its parts; the whole is "".
    distributions: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    influences: Mapping[str, Influence] = field(default_factory=dict)  #: How far each sample moves a measure, by key.
    errors: Mapping[str, float] = field(default_factory=dict)  #: The standard error of a measure, by its key, if known.
    #: The values of the measures that need no data, by key: now for a target, at the previous measurement for the reference.
    weights: Values = field(default_factory=dict)
    copies: tuple[SetSummary, ...] = ()  #: Labelled copies of the reference, perturbed or re-weighted.
    made_for: tuple[str, ...] = ()  #: The keys of the estimators that this copy was made for; empty for all.
    strong: bool = False  #: Whether this copy was changed strongly, see :class:`~.headline.copies.Strong`.
    unusable: int = 0  #: The number of samples that were left out because their numbers are not finite.
    whole: bool = False  #: Whether the measures saw the whole set.
    of_labels: tuple[str, ...] = ()  #: The keys of the measures that saw labels.

    def copies_of(self, key: str) -> list[SetSummary]:
        """Returns the copies that were made for the estimator of a key."""
        return [copy for copy in self.copies if not copy.made_for or key in copy.made_for]

    def unlabelled(self) -> SetSummary:
        """Returns the summary without everything that labels gave."""
        outputs = None if self.outputs is None else self.outputs.unlabelled()
        seen = (self.loss, self.loss_influence, self.accuracy, self.wrong)
        labelled = [*self.class_losses, *self.copies, *self.of_labels, *(value for value in seen if value is not None)]
        if outputs is self.outputs and not labelled:
            return self
        by_measure = {name: getattr(self, name) for name in ("values", "parts", "distributions", "influences", "errors")}
        left: dict[str, Any] = {
            name: {key: value for key, value in found.items() if key not in self.of_labels}
            for name, found in by_measure.items()
        }
        left |= dict.fromkeys(("loss", "loss_influence", "loss_stderr", "accuracy", "accuracy_stderr", "wrong"))
        return replace(self, **left, outputs=outputs, class_losses={}, copies=(), of_labels=())

    @property
    def loss_of_cross_entropy(self) -> float:
        """The loss over the cross-entropy of the outputs: 1 where the criterion is the cross-entropy."""
        cross_entropy = float(self.labelled.losses.mean())
        known = self.loss is not None and self.loss > 0 and cross_entropy > 0
        return self.loss / cross_entropy if known and self.loss is not None else 1.0

    @property
    def usable(self) -> Outputs:
        """The outputs; raises UndefinedEstimateError if there are none, or those of most samples are not finite."""
        outputs = self.outputs
        if outputs is None or not len(outputs.kept):
            raise UndefinedEstimateError(f"expected samples in the {self.name} set, but it is empty")
        if not len(outputs) > USABLE * len(outputs.kept):
            raise UndefinedEstimateError(
                f"expected finite outputs, but {outputs.unusable} of the {self.name} set's {len(outputs.kept)} samples have "
                "none"
            )
        return outputs

    @property
    def class_scores(self) -> Outputs:
        """The usable outputs; raises UndefinedEstimateError if they are no class scores."""
        outputs = self.usable
        if not outputs.is_classifier:
            raise UndefinedEstimateError(f"expected class scores of shape (N, C), but got shape {outputs.outputs.shape}")
        return outputs

    @property
    def labelled(self) -> Outputs:
        """The class scores; raises UndefinedEstimateError if they have no labels."""
        outputs = self.class_scores
        if outputs.labels is None:
            raise UndefinedEstimateError(f"expected labels for the {self.name} set's {len(outputs)} samples, but got none")
        return outputs

"""How much the activation patterns of a set say about its labels."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_choice
from lightning_tansens.functional.information import Correction, entropy, mutual_information
from lightning_tansens.functional.regions import pattern_hashes, patterns_and_finite
from lightning_tansens.metrics.base import LabelledMeasure, check_classes


class PatternInformation(LabelledMeasure):
    r"""The mutual information between labels and activation patterns, and between labels and the number of active nodes.

    .. math:: \hat I(A(x); y), \qquad \hat I(T(x); y), \qquad \hat H(y)

    with the pattern A(x) of active hidden units, their number T(x) and the labels' entropy, which is the ceiling of both
    (Daróczy 2022 leaves the mutual information between patterns and labels open). The estimates come from
    :func:`~lightning_tansens.functional.information.mutual_information`, in nats. They are biased high. Where every sample
    has a pattern of its own, the patterns' information equals the ceiling and says nothing about the labels. See how
    many there are with :class:`~lightning_tansens.metrics.patterns.ActivationPatterns`. T(x) has fewer values and is the one
    to watch in wide networks. The bias falls as the set grows, so compare sets of one size. It needs class indices as
    labels, describes a set and gives no estimate; ``compute`` returns the information of the patterns.

    Args:
        correction: "none", or "miller_madow" to take off the first term of the bias of each of the three.
        kwargs: Passed to :class:`torchmetrics.Metric`.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
        >>> measure = PatternInformation()
        >>> measure.update(net, torch.tensor([[3.0], [-3.0], [2.0], [-1.0]]), torch.tensor([0, 1, 0, 1]))
        >>> {name: f"{value:.3f}" for name, value in measure.values().items()}  # one unit is active everywhere
        {'pattern_information': '0.693', 'count_information': '0.000', 'label_entropy': '0.693'}
    """

    key = "pattern_information"

    hashes: list[Tensor]
    counts: list[Tensor]
    labels: list[Tensor]

    def __init__(self, correction: Correction = "none", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("correction", correction, get_args(Correction))
        self.correction: Correction = correction
        for name in ("hashes", "counts", "labels"):
            self._sample_state(name, torch.int64)

    def prepare(self, model: nn.Module, inputs: Any) -> None:
        """Refuses a network without activations."""
        patterns_and_finite(model, inputs)

    def update(self, model: nn.Module, inputs: Any, targets: Any, positions: Sequence[int] | None = None) -> None:
        """Adds the samples of a batch with labels of shape (N,); their positions do not matter.

        Raises:
            ValueError: If the labels are no class indices.
        """
        patterns, finite = patterns_and_finite(model, inputs)
        check_classes(targets, len(patterns), self)
        if len(targets) and int(targets.min()) < 0:
            raise ValueError(
                f"targets: expected class indices, none below 0, but got {int(targets.min())}; leave PatternInformation out "
                "where labels are missing, or take those samples out of the set"
            )
        self._append("hashes", pattern_hashes(patterns[finite]))
        self._append("counts", patterns.sum(1)[finite])
        self._append("labels", targets.to(finite.device)[finite])
        self.unusable += (~finite).sum()

    def values(self) -> dict[str, Tensor]:
        """Returns the information of the patterns and of the number of active nodes, and the labels' entropy, in nats."""
        labels = self._joined("labels")
        values = dict.fromkeys(("pattern_information", "count_information", "label_entropy"), math.nan)
        if len(labels):
            values["pattern_information"] = mutual_information(self._joined("hashes"), labels, self.correction)
            values["count_information"] = mutual_information(self._joined("counts"), labels, self.correction)
            values["label_entropy"] = entropy(labels, self.correction)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

"""The protocol of a label-free estimator."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, ClassVar

from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import Estimate, Quantity

#: The words of the protocol, which a file with an estimator imports from here.
__all__ = ["Estimate", "Estimates", "Estimator", "Need", "Quantity", "Score", "SetSummary"]

Estimates = Mapping[Quantity, Estimate]


class Need(Enum):
    """What an estimator needs besides the reference's loss; the monitor gathers what any of them needs."""

    OUTPUTS = "the network's outputs, of any kind"
    CLASSES = "outputs that are class scores"
    FEATURES = "the input of the network's last layer"
    EARLIER = "the outputs of earlier measurements"
    COPIES = "labelled copies of the reference"
    INPUTS = "some entries of the inputs"


class Estimator(ABC):
    """Estimates the loss or the accuracy of a set without labels, from what was found on it and on a labelled reference.

    An estimator is a plain object that holds its configuration and nothing of a run. To add one, subclass this in a file of
    its own, set the attributes below and write ``_estimate``; pass it to the monitor in ``estimators``. One whose number
    only ranks sets or networks leaves ``quantities`` empty and writes :meth:`scores`.
    """

    key: str  #: The name of its estimates and of its score.
    #: What it estimates, "loss" or "accuracy" or both; empty for a score alone.
    quantities: ClassVar[tuple[Quantity, ...]] = ()
    needs: frozenset[Need] = frozenset({Need.CLASSES})  #: What must be gathered for it.
    looks_at_target: bool = True  #: Whether its estimates depend on the target at all.
    #: Whether its estimates without doubts were found, on data that it was not made on, to have at most half the error of
    #: those with doubts. Estimates of any other estimator are called neither reliable nor unreliable.
    has_flag: ClassVar[bool] = False
    #: Whether its loss is the cross-entropy in nats. With another criterion (class weights, smoothing) the estimate is
    #: multiplied by the reference's loss over its cross-entropy, and so has the criterion's units.
    of_cross_entropy: ClassVar[bool] = False

    @property
    def measure_keys(self) -> frozenset[str]:
        """The keys of the measures that must be taken, on the copies too; none by default."""
        return frozenset()

    def copies_for(self, inputs: Any, class_scores: bool = True) -> Sequence[Callable[[Any], Any]]:
        """Returns the callables that make the copies of the reference, for ``Need.COPIES``; none by default.

        Args:
            inputs: The first inputs of the reference, as the network gets them.
            class_scores: Whether the network's outputs are class scores.
        """
        return ()

    def samples_of_copies(self, inputs: Any) -> int | None:
        """Returns how many samples of each copy are needed; None, the default, for whole copies with their losses."""
        return None

    def estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        """Estimates what the target's labels would give.

        Args:
            target: What was found on the target; what its labels gave is dropped here.
            reference: What was found on the labelled reference.

        Returns:
            An estimate for each of :attr:`quantities`, or for those that the reference has.

        Raises:
            UndefinedEstimateError: If the sets define none; the message says why.
        """
        estimates: dict[Quantity, Estimate] = {}
        for quantity, found in self._estimate(target.unlabelled(), reference).items():
            if not math.isfinite(found.value):
                raise UndefinedEstimateError(f"expected a finite {quantity}, but the estimate is {found.value}")
            value = min(max(found.value, 0.0), 1.0) if quantity == "accuracy" else found.value
            units = reference.loss_of_cross_entropy if quantity == "loss" and self.of_cross_entropy else 1.0
            error = found.stderr if found.stderr is not None and math.isfinite(found.stderr) else None
            scaled = None if error is None else units * error
            estimates[quantity] = replace(found, value=units * value, stderr=scaled, has_flag=self.has_flag)
        return estimates

    @abstractmethod
    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        """Estimates from a target without labels; its ``class_scores``, and ``reference.labelled``, are outputs or raise."""

    def scores(self, summary: SetSummary) -> Mapping[str, float]:
        """Returns numbers of one set to log, by name; nothing by default."""
        return {}

    def inside(self, target: SetSummary, reference: SetSummary) -> bool | None:
        """Returns whether the target lies within what the estimate rests on; None where that is not known."""
        return None


class Score(Estimator):
    """An estimator whose number ranks sets or networks and estimates neither loss nor accuracy."""

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Estimates:
        return {}

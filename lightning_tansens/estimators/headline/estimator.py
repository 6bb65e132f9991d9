"""The one estimate that stands for a set: loss and accuracy with intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np

from lightning_tansens.checks import check_callable, check_choice, check_counts, check_seed
from lightning_tansens.errors import UndefinedEstimateError
from lightning_tansens.estimators.base import Estimator, Need
from lightning_tansens.estimators.calibrated.perturbations import Transform, checked_transforms
from lightning_tansens.estimators.headline.copies import Shift, Strong, copies_for, samples_for
from lightning_tansens.estimators.headline.dense_fit import DenseFit
from lightning_tansens.estimators.headline.dense_samples import DenseSamples
from lightning_tansens.estimators.headline.fit import Fit
from lightning_tansens.estimators.headline.gated_heads import FEWEST_COPIES, Answer, ClassShares
from lightning_tansens.estimators.headline.without_classes import drawn_pseudo_label_loss, fit_of, squared_error
from lightning_tansens.estimators.outputs import Outputs
from lightning_tansens.estimators.pseudo_label_loss import PseudoLabelLoss, PseudoLabels
from lightning_tansens.estimators.summary import SetSummary
from lightning_tansens.record import HEADLINE, Estimate, Quantity, Verdict

#: The ends of a reliable interval lie within this factor's logarithm; an error rate's may instead be this narrow.
WIDEST, NARROW = 0.5, 0.1

#: With fewer earlier measurements than this the trajectory says little.
FEWEST_SNAPSHOTS = 3

#: Below this the gate takes one head's assumption, and above one minus this the other's.
LEANING = 0.25

#: Signatures further than this from all that the fit has seen are new to it.
FARTHEST = 2.0

#: Fits by reference and seed: one serves all targets of a measurement, and goes with its reference.
_FITS: WeakKeyDictionary[SetSummary, dict[int, Fit]] = WeakKeyDictionary()
_DENSE_FITS: WeakKeyDictionary[SetSummary, dict[Any, DenseFit | None]] = WeakKeyDictionary()


class Headline(Estimator):
    r"""Estimates loss and accuracy with 95 % intervals, from the network's outputs now and at earlier measurements.

    Two heads are each right under one assumption, and a gate weighs them (see :class:`~.gated_heads.GatedHeads`):

    * *The class shares are the reference's* (other images of the same things): a weighted mean of the disagreement with
      earlier snapshots, of transports onto the class shares, of a threshold and of pseudo-label losses.
    * *Another population*: the regression estimator, which re-weights the reference, and first moves the shares of its
      classes if that explains the set (:class:`~.moved_shares.MovedShares`).

    Weights and gate are fitted at each measurement to labelled, corrupted copies of the reference and to re-weightings of
    it, on which the truth is known. A set whose inputs look like a copy's is corrected by what the estimate was wrong by
    there (:class:`~.resemblance.Resemblance`). The interval holds the sampling of both sets, the errors on nearby copies
    whose kind is left out of the fit, and how far the estimates differ. Where outputs are not class scores the loss alone is
    estimated, by the same two heads on earlier outputs (:class:`~.dense_fit.DenseFit`), or by :class:`PseudoLabelLoss`
    without copies.

    Each copy costs a forward pass of some of the reference's samples at each measurement. The documentation says how good
    the estimate is and what it does not cover.

    Args:
        class_shares: What is known of the targets' class shares: "same" as the reference's (the same people, another
            scanner), "free" (other people, the same scanner), or "auto" to let the outputs decide.
        copies: Callables that change a sample; each makes one copy of the reference. None chooses by the inputs: noise,
            masked pixels, contrast, blur and translation for images, each once more as a :class:`Strong` one; noise, swapped
            and missing entries for tables, once more as well, and missing columns; none for anything else, where the gate is
            a fixed one.
        seed: Seed of the re-weightings.
        criterion: For outputs that are not class scores, see :class:`PseudoLabelLoss`; None for the squared error.
        pseudo_labels: As above.
        copied_samples: How many samples of each copy are looked at: "auto" for 1,024 of a table with rows of at most 1,000
            numbers and 256 of anything else, a number, or None for all.

    Raises:
        ValueError: If the class shares, the pseudo-labels, the number of samples or the seed is none of these.
        TypeError: If a copy or the criterion cannot be called.

    Example:
        >>> Headline(class_shares="same").key
        'estimate'
    """

    key = HEADLINE
    quantities = ("loss", "accuracy")
    has_flag = True
    needs = frozenset({Need.OUTPUTS, Need.EARLIER, Need.COPIES, Need.INPUTS})

    def __init__(
        self,
        class_shares: ClassShares = "auto",
        copies: Sequence[Transform] | None = None,
        seed: int = 0,
        criterion: Callable[[Any, Any], Any] | None = None,
        pseudo_labels: PseudoLabels = "outputs",
        copied_samples: int | Literal["auto"] | None = "auto",
    ) -> None:
        check_choice("class_shares", class_shares, get_args(ClassShares))
        check_choice("pseudo_labels", pseudo_labels, get_args(PseudoLabels))
        check_callable("criterion", criterion)
        check_seed(seed)
        self.class_shares: ClassShares = class_shares
        self.copies = None if copies is None else checked_transforms(copies)
        if isinstance(copied_samples, str):
            check_choice("copied_samples", copied_samples, ("auto",), "or a number or None")
        elif copied_samples is not None:
            check_counts(copied_samples=copied_samples)
        self.seed, self.criterion, self.pseudo_labels = seed, criterion, pseudo_labels
        self.copied_samples: int | Literal["auto"] | None = copied_samples

    def copies_for(self, inputs: Any, class_scores: bool = True) -> Sequence[Transform]:
        """Returns the callables that make the copies, see ``copies``.

        Args:
            inputs: The first inputs of the reference.
            class_scores: Whether outputs are class scores; images are not translated otherwise, because targets may lie at
                their pixels.
        """
        if self.copies is not None:
            return self.copies
        found = copies_for(inputs, self.seed)
        changes = [copy.transform if isinstance(copy, Strong) else copy for copy in found]
        return tuple(
            copy for copy, change in zip(found, changes, strict=True) if class_scores or not isinstance(change, Shift)
        )

    def samples_of_copies(self, inputs: Any) -> int | None:
        """Returns ``copied_samples``, or what it stands for with these inputs."""
        return samples_for(inputs) if self.copied_samples == "auto" else self.copied_samples

    def _estimate(self, target: SetSummary, reference: SetSummary) -> Mapping[Quantity, Estimate]:
        own, outputs = reference.usable, target.usable
        if not own.is_classifier:
            return {"loss": self._without_classes(target, reference)}
        fit = self._fit(reference)
        if target.class_scores.classes != fit.calibration.classes:
            raise UndefinedEstimateError(
                f"expected {fit.calibration.classes} classes, as in the reference, but got {outputs.classes}"
            )
        earlier, doubts = _earlier(own, outputs)
        if len(self._copies(reference)[0]) < FEWEST_COPIES:
            doubts += ("too few corrupted copies of the reference to be fitted on",)
        error, loss = fit.estimate(outputs, self.class_shares)
        own_error, own_loss = (float(level) for level in fit.calibration.level)
        rate = self._stated("error rate", error, own_error, doubts, sure=earlier > 0)
        assert rate.low is not None
        assert rate.high is not None
        accuracy = replace(rate, value=1 - rate.value, low=max(1 - rate.high, 0.0), high=1 - rate.low)
        scale = own_loss if reference.loss is None else reference.loss
        if not scale > 0:  # nothing to scale: the user has a criterion of their own
            return {"accuracy": accuracy}
        return {"loss": self._stated("loss", loss, scale, doubts, sure=earlier > 0), "accuracy": accuracy}

    def _without_classes(self, target: SetSummary, reference: SetSummary) -> Estimate:
        by_labels = PseudoLabelLoss(self.criterion or squared_error, self.pseudo_labels)
        fits = _DENSE_FITS.setdefault(reference, {})
        key = self.seed, self.criterion, self.pseudo_labels
        if key not in fits:
            mild, strong = self._copies(reference)
            fits[key] = fit_of(reference, mild, by_labels.losses, self.seed, strong)
        fit = fits[key]
        if fit is None or reference.loss is None:
            found = drawn_pseudo_label_loss(target, reference, by_labels)
            return replace(found, verdict="unsure")  # an interval that covers only the sampling decides nothing
        _, doubts = _earlier(reference.usable, target.usable)
        answer = fit.estimate(DenseSamples.of(target.usable, by_labels.losses), self.class_shares, target.usable)
        return self._stated("loss", answer, reference.loss, doubts, sure=True)

    def _stated(self, name: str, answer: Answer, own: float, doubts: tuple[str, ...], sure: bool) -> Estimate:
        """Returns the estimate of an error rate or a loss, and how it compares with the reference's own value."""
        value, low, high = own * answer.ratio, own * answer.low, own * answer.high
        # rounding must not push a tiny estimate out of its own interval
        found = Estimate(value, low=min(low, value), high=max(high, value))
        narrow = name == "error rate" and high - low <= NARROW
        if max(high / value, value / low) > math.exp(WIDEST) and not narrow:
            doubts += (f"the {name} may be off by more than a factor of {math.exp(WIDEST):.2g}",)
        if answer.distance > FARTHEST:
            doubts += ("unlike any copy of the reference",)
        basis = _basis(answer.population, self.class_shares)
        return replace(found, doubts=doubts, basis=basis, verdict=_verdict(found, own) if sure else "unsure")

    def _copies(self, reference: SetSummary) -> tuple[list[SetSummary], list[SetSummary]]:
        """Returns the labelled copies made for this estimator, with the reference's samples or the first of them.

        The second ones are strong.
        """
        assert reference.outputs is not None
        copies = [
            copy
            for copy in reference.copies_of(self.key)
            if copy.outputs is not None
            and (copy.outputs.labels is not None or not copy.outputs.is_classifier)
            and len(copy.outputs)
            and np.array_equal(copy.outputs.kept, reference.outputs.kept[: len(copy.outputs.kept)])
        ]
        mild, strong = ([copy for copy in copies if copy.strong is wanted] for wanted in (False, True))
        return mild, strong

    def _fit(self, reference: SetSummary) -> Fit:
        fits = _FITS.setdefault(reference, {})
        if self.seed not in fits:
            mild, strong = ([copy.class_scores for copy in some] for some in self._copies(reference))
            fits[self.seed] = Fit(reference.labelled, mild, self.seed, strong)
        return fits[self.seed]


def _verdict(found: Estimate, own: float | None) -> Verdict:
    if own is None or found.low is None or found.high is None:
        return "unsure"
    if found.low > own or found.high < own:
        return "worse" if found.low > own else "better"
    return "like the reference" if found.high < found.low * math.exp(2 * WIDEST) else "unsure"


def _earlier(*sets: Outputs) -> tuple[int, tuple[str, ...]]:
    """Returns the fewest earlier measurements of a set, and the doubt that follows if these are few."""
    earlier = min(0 if one.earlier is None else one.earlier.count for one in sets)
    few = earlier < FEWEST_SNAPSHOTS
    return earlier, (f"fewer than {FEWEST_SNAPSHOTS} earlier measurements",) if few else ()


def _basis(population: float, class_shares: ClassShares) -> str:
    same, other = "the class shares are the reference's", "the population may differ from the reference's"
    if class_shares != "auto":
        return same if class_shares == "same" else other
    if LEANING < population < 1 - LEANING:
        return "the population may differ a little from the reference's"
    return other if population > LEANING else same

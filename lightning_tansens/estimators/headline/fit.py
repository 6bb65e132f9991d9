"""The headline's fit on a labelled reference, its re-weightings and its corrupted copies."""

from collections.abc import Sequence

import numpy as np

from lightning_tansens.estimators.headline.calibration import Calibration
from lightning_tansens.estimators.headline.gate import DEFAULT
from lightning_tansens.estimators.headline.gated_heads import Answer, ClassShares, GatedHeads
from lightning_tansens.estimators.headline.heads import WeightedCandidates
from lightning_tansens.estimators.headline.interval import variance_of_sampling
from lightning_tansens.estimators.headline.resemblance import Views
from lightning_tansens.estimators.headline.reweighting import Reweightings, reweightings
from lightning_tansens.estimators.headline.samples import Samples, ensemble
from lightning_tansens.estimators.outputs import TINY, Array, Outputs
from lightning_tansens.estimators.temperature import fit_temperature


class Fit(GatedHeads):
    """Estimates error and loss of any number of sets from one labelled reference.

    Args:
        reference: Its class scores, with labels.
        copies: The same samples or the first of them, perturbed; each one is a kind of its own.
        seed: Seed of the re-weightings.
        strong: Further copies, see :class:`Strong`; each is of the kind of the copy at its place.
    """

    default_gate = DEFAULT
    _head = staticmethod(WeightedCandidates.fitted)

    def __init__(
        self, reference: Outputs, copies: Sequence[Outputs] = (), seed: int = 0, strong: Sequence[Outputs] = ()
    ) -> None:
        assert reference.labels is not None
        now = reference.earlier is None
        fitted = fit_temperature(np.log(ensemble(reference) + TINY), reference.labels) if now else reference.temperature
        self.temperature = fitted.value
        views = Views.of_reference(reference)
        samples = Samples.of(reference, self.temperature, views)
        moved = reweightings(reference.labels, samples.posterior.shape[1], samples.places, seed)
        self.calibration = calibration = Calibration(samples, reference.labels, moved.of("bootstrap"))
        outputs, weights = [reference, *copies, *strong], moved.with_copies(copies, strong)
        sets = [samples, *(Samples.of(copy, self.temperature, views) for copy in outputs[1:])]
        points = [calibration.points(one, of.weights) for one, of in zip(sets, weights, strict=True)]
        means = [of.weights @ calibration.truth(one) for one, of in zip(sets, weights, strict=True)]
        truth = calibration.log_ratios(np.concatenate(means))
        super().__init__(points, truth, weights, calibration.level, calibration.most, outputs)

    def estimate(self, outputs: Outputs, class_shares: ClassShares = "auto") -> tuple[Answer, Answer]:
        """Returns the answers for the error and the loss of a set, without looking at its labels."""
        samples = Samples.of(outputs, self.temperature, self._views)
        points = self.calibration.points(samples, Reweightings.none(len(samples)))
        error, loss = self._answers(points, len(samples), class_shares, outputs)
        return error, loss

    def _sampling(self, values: Array, count: int) -> Array:
        return variance_of_sampling(values, self.calibration, count)

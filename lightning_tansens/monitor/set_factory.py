"""Makes the sets of a run: the reference, the test sets, and the perturbed copies of the reference."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from lightning_tansens.estimators import Estimator, Need
from lightning_tansens.estimators.calibrated import Perturbed
from lightning_tansens.estimators.headline import Strong
from lightning_tansens.metrics.base import Measure
from lightning_tansens.metrics.criteria import Criterion
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.monitor.criterion import SAMPLES, KnownCriterion, find_criterion
from lightning_tansens.monitor.data.drawn import draw_subset
from lightning_tansens.monitor.data.hold_out import HeldOut
from lightning_tansens.monitor.data.reading import Reading, Unpack
from lightning_tansens.monitor.data.subsets import CacheBudget, Subset
from lightning_tansens.monitor.data.trainer_data import Data, Found, reference_data, test_data
from lightning_tansens.monitor.options import Options
from lightning_tansens.monitor.processes import Lockstep, calling
from lightning_tansens.monitor.sets import MeasuredSet
from lightning_tansens.tangent.batches import OutputPicker

#: How many samples are shown to an estimator that chooses its copies by the inputs.
_SEEN = 64


class Choices(Protocol):
    """The monitor's arguments that choose samples, measures and estimators."""

    test_dataloaders: Any
    reference: str | float | Data
    held_out: HeldOut | None
    measures: list[Measure]
    estimators: list[Estimator]
    num_samples: int
    unpack: Unpack
    output: OutputPicker | None
    criterion: Criterion | None
    network: str | None
    compare_with_labels: bool
    options: Options
    #: Whether the measures, and the estimators, are the default ones.
    default_measures: bool
    default_estimators: bool


def is_shared_alike(trainer: pl.Trainer, subset: Subset) -> bool:
    """Says whether all processes hold the same subset: a sampler that each has followed may show it other samples.

    Processes that try the training step on different batches may call it unequally often, and it may talk to the others.
    """
    return trainer.world_size == 1 or not subset.followed


class SetFactory:
    """Makes the sets of a monitor; what tears down the datamodule's other stages is registered with ``stages``."""

    def __init__(self, trainer: pl.Trainer, monitor: Choices, stages: ExitStack) -> None:
        self._trainer, self._monitor, self._stages = trainer, monitor, stages
        self._budget = CacheBudget()
        self.measures = [measure.with_output(monitor.output) for measure in monitor.measures]

    def sets(self, known: MeasuredSet | None = None) -> list[MeasuredSet]:
        """Returns the reference, which is labelled, and the test sets.

        The reference of an earlier fit is known in case the Trainer has loaded another loop's data since then.
        """
        monitor = self._monitor
        try:
            name, data = reference_data(self._trainer, self._reference(), self._stages)
        except MisconfigurationException:
            if known is None:
                raise
            sets = [known]
        else:
            sets = [self._set(name, data, is_reference=True)]
        targets = test_data(self._trainer, monitor.test_dataloaders, self._stages)
        return [*sets, *(self._set(name, data) for name, data in targets.items())]

    def find_criterion(
        self,
        module: pl.LightningModule,
        network: nn.Module,
        sets: Sequence[MeasuredSet],
        known: KnownCriterion | None,
        lockstep: Lockstep | None = None,
    ) -> KnownCriterion:
        """Finds the criterion unless it is known from the fit, tells the sets about it and returns it."""
        trainer, monitor = self._trainer, self._monitor
        batches, reading = self._batches(sets[0]), self._reading(labelled=True)
        if lockstep is not None:  # the same batch on all processes, as it decides how often they call the network
            same = lockstep.same(partial(sets[0].subset.samples, range(min(SAMPLES, len(sets[0].subset)))))
            with lockstep.together():
                batches = iter([sets[0].batches.transfer(same)])
        look = partial(calling, lockstep)
        found = known or find_criterion(trainer, module, network, reading, monitor.criterion, batches, look)
        for measured in sets:
            measured.of_outputs.know(found.criterion, found.class_scores)
        return found

    def _batches(self, reference: MeasuredSet) -> Iterator[Any]:
        """Yields a batch of the training data, if they can be read, and one of the reference."""
        trainer, options = self._trainer, self._monitor.options
        if trainer.state.fn == TrainerFn.FITTING and reference.name != "train":
            try:
                _, data = reference_data(trainer, "train", self._stages)
                subset = draw_subset(trainer, "train", data, SAMPLES, SAMPLES, options.seed, head=1)
            except MisconfigurationException:  # several loaders, or data that cannot be copied
                pass
            else:
                if is_shared_alike(trainer, subset):
                    yield data.transfer(trainer)(subset.samples(range(len(subset))))
        yield reference.batches.unsplit(SAMPLES)

    def copies(self, reference: MeasuredSet, known: KnownCriterion) -> list[MeasuredSet]:
        """Returns perturbed copies of the labelled reference, on the same samples, for the estimators that need them."""
        fitted = [one for one in self._monitor.estimators if Need.COPIES in one.needs]
        reading = replace(self._reading(labelled=True), class_scores=known.class_scores, budget=self._budget)
        inputs = reading.split(reference.batches.unsplit(_SEEN))[0] if fitted else None
        wanted: dict[Callable[[Any], Any], list[Estimator]] = {}
        for estimator in fitted:
            for transform in estimator.copies_for(inputs, known.class_scores is not False):
                wanted.setdefault(transform, []).append(estimator)
        found = []
        for number, (transform, estimators) in enumerate(wanted.items(), 1):
            own = replace(reading, perturb=Perturbed(transform, self._monitor.options.seed))
            samples = [estimator.samples_of_copies(inputs) for estimator in estimators]
            if None not in samples:
                losses = known.class_scores is False  # losses of classes follow from the outputs
                few = max(filter(None, samples))
                own = replace(own, features=False, with_loss=losses, num_outputs=few, num_read=few)
                reference.subset.divide(few)
            keys = {key for estimator in estimators for key in estimator.measure_keys}
            copy = MeasuredSet(
                f"{reference.name} (copy {number})",
                reference.subset,
                reference.batches.transfer,
                [measure for measure in self.measures if measure.key in keys],
                LabelledLoss(known.criterion, class_scores=known.class_scores),
                own,
            )
            copy.made_for, copy.strong = tuple(estimator.key for estimator in estimators), isinstance(transform, Strong)
            found.append(copy)
        return found

    def _reference(self) -> str | Data:
        """Returns what to compare with; "auto" does not take validation data that are the target."""
        monitor = self._monitor
        if isinstance(monitor.reference, float):
            if monitor.held_out is None or monitor.held_out.data is None:
                raise MisconfigurationException(
                    f"reference={monitor.reference}: expected a fit, which holds these samples out of the training, before "
                    "this evaluation; pass the labelled reference itself: TangentSensitivityMonitor(reference=...)"
                )
            return monitor.held_out.data
        if monitor.reference != "auto":
            return monitor.reference
        taken = isinstance(monitor.test_dataloaders, str) and monitor.test_dataloaders.startswith("val")
        return "train" if taken else "auto"

    def _set(self, name: str, data: Found, is_reference: bool = False) -> MeasuredSet:
        trainer, monitor, options = self._trainer, self._monitor, self._monitor.options
        labelled = is_reference or monitor.compare_with_labels
        count = max(monitor.num_samples, options.num_loss_samples if labelled or monitor.estimators else 0)
        subset = draw_subset(trainer, name, data, count, options.batch_size, options.seed, monitor.num_samples, self._budget)
        if labelled and not is_reference:
            subset.extend(options.num_label_samples)
        loss = LabelledLoss(monitor.criterion, options.by_class) if labelled else None  # find_criterion tells it more
        return MeasuredSet(name, subset, data.transfer(trainer), self.measures, loss, self._reading(labelled=is_reference))

    def _reading(self, labelled: bool) -> Reading:
        monitor = self._monitor
        return Reading(
            monitor.unpack,
            monitor.output,
            max(monitor.num_samples, monitor.options.num_loss_samples) if monitor.estimators else 0,
            features=any(Need.FEATURES in estimator.needs for estimator in monitor.estimators),
            entries=any(Need.INPUTS in estimator.needs for estimator in monitor.estimators),
            labelled=labelled,
        )

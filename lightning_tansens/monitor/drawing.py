"""The sets of a run: the reference, the test sets, and the perturbed copies of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_tansens.estimators import Need
from lightning_tansens.estimators.calibrated import Perturbed
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.monitor.options import Data
from lightning_tansens.monitor.reading import Reading
from lightning_tansens.monitor.sets import MeasuredSet
from lightning_tansens.monitor.trainer_data import batch_transfer, draw_subset, reference_data, test_data

if TYPE_CHECKING:
    from lightning_tansens.monitor.callback import TangentSensitivityMonitor


def draw_sets(
    trainer: pl.Trainer, monitor: TangentSensitivityMonitor, known: MeasuredSet | None = None
) -> list[MeasuredSet]:
    """Draws the reference, which is labelled, and the test sets.

    Args:
        trainer: The Trainer.
        monitor: The monitor, whose arguments say what is measured on which samples.
        known: The reference of an earlier fit, for a Trainer that got another loop's data since; None for none.

    """
    try:
        name, data = reference_data(trainer, monitor.reference)
    except MisconfigurationException:
        if known is None:
            raise
        sets = [known]
    else:
        sets = [_draw(trainer, monitor, name, data, is_reference=True)]
    for name, data in test_data(trainer, monitor.test_dataloaders).items():
        sets.append(_draw(trainer, monitor, name, data))
    return sets


def draw_copies(
    trainer: pl.Trainer, monitor: TangentSensitivityMonitor, reference: MeasuredSet
) -> list[MeasuredSet]:
    """Returns perturbed copies of the reference, labelled as it is, on the same samples, for the estimators that need them.

    Args:
        trainer: The Trainer.
        monitor: The monitor.
        reference: The reference.

    """
    transforms = dict.fromkeys(transform for estimator in monitor.estimators for transform in estimator.copies)
    return [
        MeasuredSet(
            f"{reference.name} under {transform}",
            reference.subset,
            batch_transfer(trainer),
            [],
            LabelledLoss(monitor.criterion),
            _reading(monitor, labelled=True, perturb=Perturbed(transform, monitor.options.seed)),
        )
        for transform in transforms
    ]


def _draw(
    trainer: pl.Trainer, monitor: TangentSensitivityMonitor, name: str, data: Data, is_reference: bool = False
) -> MeasuredSet:
    options, labelled = monitor.options, is_reference or monitor.compare_with_labels
    count = max(monitor.num_samples, options.num_loss_samples if labelled or monitor.estimators else 0)
    subset = draw_subset(trainer, name, data, count, options.batch_size, options.seed, head=monitor.num_samples)
    loss = LabelledLoss(monitor.criterion, options.by_class) if labelled else None
    return MeasuredSet(
        name, subset, batch_transfer(trainer), monitor.measures, loss, _reading(monitor, labelled=is_reference)
    )


def _reading(monitor: TangentSensitivityMonitor, labelled: bool, perturb: Perturbed | None = None) -> Reading:
    return Reading(
        monitor.unpack,
        monitor.output,
        max(monitor.num_samples, monitor.options.num_loss_samples) if monitor.estimators else 0,
        any(Need.FEATURES in estimator.needs for estimator in monitor.estimators),
        labelled,
        perturb,
    )

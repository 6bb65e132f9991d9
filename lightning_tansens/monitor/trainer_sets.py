"""The sets of a run: the reference, the test sets, and the perturbed copies of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_tansens.estimators import Peer
from lightning_tansens.estimators.calibration import (
    Calibration,
    Feature,
    Perturbed,
    feature_measures,
    feature_peers,
)
from lightning_tansens.metrics.base import Measure
from lightning_tansens.metrics.labelled_loss import Criterion, LabelledLoss
from lightning_tansens.monitor.sets import MeasuredSet, Unpack
from lightning_tansens.monitor.subsets import CacheBudget
from lightning_tansens.monitor.trainer_data import Found, draw_subset, reference_data, test_data


@dataclass(frozen=True)
class SetOptions:
    """Those options of a monitor that say what is measured on which samples; the monitor describes them."""

    test_dataloaders: Any
    reference: Any
    measures: list[Measure]
    peers: list[Peer]
    calibration: Calibration | None
    num_samples: int
    num_loss_samples: int
    batch_size: int
    unpack: Unpack
    criterion: Criterion | None
    compare_with_labels: bool
    by_class: bool
    seed: int

    @property
    def features(self) -> Sequence[Feature]:
        """What a calibration is fitted on; nothing without one."""
        return () if self.calibration is None else self.calibration.features

    @cached_property
    def all_peers(self) -> list[Peer]:
        """Those of the user, and those from whose sums a calibration reads."""
        keys = [peer.key for peer in self.peers]
        needed = feature_peers() if self.calibration is not None else []
        return [*self.peers, *(peer for peer in needed if peer.key not in keys)]


def draw_sets(
    trainer: pl.Trainer, options: SetOptions, known: MeasuredSet | None = None, stages: ExitStack | None = None
) -> list[MeasuredSet]:
    """Draws the reference, which is labelled, and the test sets.

    Args:
        trainer: The Trainer.
        options: What is measured.
        known: The reference of an earlier fit, for a Trainer that has been given another loop's data since; None for none.
        stages: Where to leave what tears the datamodule's other stages down.

    """
    budget = CacheBudget()
    try:
        name, data = reference_data(trainer, options.reference, stages)
    except MisconfigurationException:
        if known is None:
            raise
        sets = [known]
    else:
        sets = [_draw(trainer, options, name, data, budget, labelled=True, reference=True)]
    for name, data in test_data(trainer, options.test_dataloaders, stages).items():
        sets.append(_draw(trainer, options, name, data, budget, labelled=options.compare_with_labels))
    return sets


def draw_copies(reference: MeasuredSet, options: SetOptions) -> list[MeasuredSet]:
    """Returns perturbed copies of the reference, labelled as it is, on the same samples; none without a calibration.

    Args:
        reference: The reference.
        options: What is measured.

    """
    if options.calibration is None:
        return []
    return [
        MeasuredSet(
            f"{reference.name} (perturbed)",
            reference.subset,
            feature_measures(options.features, options.measures),
            LabelledLoss(options.criterion),
            options.unpack,
            feature_peers(),
            perturb=Perturbed(transform, options.seed),
        )
        for transform in options.calibration.copies()
    ]


def _draw(
    trainer: pl.Trainer,
    options: SetOptions,
    name: str,
    data: Found,
    budget: CacheBudget,
    labelled: bool,
    reference: bool = False,
) -> MeasuredSet:
    whole = labelled or bool(options.all_peers)
    count = max(options.num_samples, options.num_loss_samples) if whole else options.num_samples
    subset = draw_subset(trainer, name, data, count, options.batch_size, options.seed, options.num_samples, budget)
    loss = LabelledLoss(options.criterion, options.by_class) if labelled else None
    return MeasuredSet(name, subset, options.measures, loss, options.unpack, options.all_peers, peers_see_labels=reference)

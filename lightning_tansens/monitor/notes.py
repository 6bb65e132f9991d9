"""What a user should know of the data that a fit brings, before its first step."""

from collections.abc import Iterator, Mapping

import lightning.pytorch as pl

from lightning_tansens.monitor.data.drawn import small_note
from lightning_tansens.monitor.data.subsets import Subset
from lightning_tansens.monitor.options import Options


def notes_on_fit(
    trainer: pl.Trainer, reference: object, subsets: Mapping[str, Subset], num_samples: int, options: Options
) -> Iterator[str]:
    """Yields notes, in one line each; the first of the subsets is the reference."""
    if (small := small_note(subsets, num_samples)) is not None:
        yield small
    if reference == "auto" and next(iter(subsets)) == "train":
        yield (
            "for want of another labelled set, estimates start from the training data, on which a network does better than "
            "on new data, so they may be too good; reference=0.1 holds a tenth back"
        )
    if isinstance(reference, str) and reference.startswith("val") and trainer.limit_val_batches == 0:
        yield (
            "limit_val_batches=0 leaves the validation out, but not the reference, which is still read from the validation "
            "data after each epoch"
        )
    if options.snapshots_per_epoch > 1 and trainer.num_training_batches == float("inf"):
        yield (
            "Options(snapshots_per_epoch=...) needs an epoch of a known number of batches, which a stream does not have; "
            "pass the Trainer limit_train_batches to keep outputs within an epoch"
        )

"""What a user should know of the data that a fit brings, before its first step."""

from __future__ import annotations

from collections.abc import Iterator

import lightning.pytorch as pl

from lightning_tansens.monitor.options import Options


def notes_on_fit(trainer: pl.Trainer, reference: object, found: str, options: Options) -> Iterator[str]:
    """Yields notes, in one line each.

    Args:
        trainer: The Trainer.
        reference: The set to compare with, as the user named it.
        found: The name of the set that was found.
        options: The monitor's options.

    """
    if reference == "auto" and found == "train":
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

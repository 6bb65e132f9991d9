"""The training set in the place of the held-out reference: what the papers compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from results import TRAIN, Network, Row

from lightning_tansens.record import TRIVIAL

#: These multiply the reference's loss by a ratio of their own.
RATIOS = (TRIVIAL, "empirical", "input_output", "region", "active_nodes", "fisher_rao", "entropy_ratio")


def against_train(rows: Sequence[Row]) -> Iterator[Row]:
    r"""Yields the estimates of the loss that the ratios give with the training images as the reference.

    .. math:: l(X_{tr}) \frac{s(X)}{s(X_{tr})} = l(X_{tr}) \frac{s(X) / s(X_{ref})}{s(X_{tr}) / s(X_{ref})}

    Args:
        rows: The benchmark, with the training images among the sets.

    """
    of_train: dict[tuple[Network, str], Row] = {
        (row.network, row.estimator): row for row in rows if row.on[0] == TRAIN and row.quantity == "loss"
    }
    for row in rows:
        train = of_train.get((row.network, row.estimator))
        if train is not None and row.quantity == "loss" and row.on[0] != TRAIN and row.estimator in RATIOS:
            estimate = train.actual * row.estimate / train.estimate
            yield Row(row.network, row.on, row.estimator, row.quantity, estimate, row.actual)

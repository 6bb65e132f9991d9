"""Checks of the monitor's arguments; each message says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from torch.utils.data import DataLoader, Dataset

from lightning_tansens.checks import check_callable, check_choice, check_counts, check_seed, check_text
from lightning_tansens.estimators import Peer
from lightning_tansens.estimators.calibration import CALIBRATED, Calibration
from lightning_tansens.estimators.scaling import AccuracyForm
from lightning_tansens.estimators.trust import Limits
from lightning_tansens.metrics.base import Measure
from lightning_tansens.monitor.failures import OnFailure
from lightning_tansens.monitor.trainer_data import check_choice_of_set
from lightning_tansens.show import Display
from lightning_tansens.show.keys import REFERENCE_NAMES
from lightning_tansens.show.scorecard import ALL_SETS

#: The hook in which is measured; "auto" takes the validation's wherever there is one.
MeasureAt = Literal["auto", "train_epoch_end", "validation_epoch_end"]


def check_options(options: Mapping[str, Any]) -> None:
    """Refuses options of the monitor that are not allowed.

    Args:
        options: The monitor's attributes.

    Raises:
        ValueError: If an option has a value that is not allowed.
        TypeError: If an option has a type that is not allowed.

    """
    counts = ("num_samples", "num_loss_samples", "batch_size", "every_n_epochs")
    check_counts(**{name: options[name] for name in counts})
    check_seed(options["seed"])
    for name, choices in (("accuracy_form", AccuracyForm), ("measure_at", MeasureAt), ("on_failure", OnFailure)):
        check_choice(name, options[name], get_args(choices))
    check_sets(options["test_dataloaders"], options["reference"])
    check_measures(options["measures"])
    check_peers(options["peers"], options["measures"], options["criterion"])
    check_callable("unpack", options["unpack"])
    check_callable("criterion", options["criterion"])
    check_text("prefix", options["prefix"])
    if options["network"] is not None:
        check_text("network", options["network"])
    if not isinstance(options["display"], Display):
        raise TypeError(f"display: expected a Display or None, but got {options['display']!r}")
    if options["calibration"] is not None and not isinstance(options["calibration"], Calibration):
        raise TypeError(f"calibration: expected a Calibration or None, but got {options['calibration']!r}")
    if not isinstance(options["limits"], Limits):
        raise TypeError(f"limits: expected Limits or None, but got {options['limits']!r}")
    check_labels_used(options["compare_with_labels"], correlate_with_gap=options["correlate_with_gap"])


def check_sets(test_dataloaders: object, reference: object) -> None:
    """Refuses what is no test set or no reference."""
    if isinstance(reference, str):
        check_choice_of_set("reference", reference)
    elif not isinstance(reference, (DataLoader, Dataset)):
        check_choice("reference", reference, ("train", "val"), "or a DataLoader or a Dataset")
    if isinstance(test_dataloaders, str):
        check_choice_of_set("test_dataloaders", test_dataloaders)
        if test_dataloaders == reference:
            raise ValueError(
                f"test_dataloaders: expected other data than the reference's, but got {reference!r} for both; choose "
                "another reference, or pass data of their own"
            )
    elif isinstance(test_dataloaders, Mapping):
        _check_named_sets(test_dataloaders)
    elif not (test_dataloaders is None or isinstance(test_dataloaders, (DataLoader, Dataset))):
        raise TypeError(
            "test_dataloaders: expected a DataLoader, a Dataset, a dict of them by name, 'val' or None, but got "
            f"{type(test_dataloaders).__name__}"
        )


def _check_named_sets(sets: Mapping[str, object]) -> None:
    if not sets:
        raise ValueError(
            "test_dataloaders: expected at least one set, but got an empty dict; pass None for the Trainer's own"
        )
    for name, data in sets.items():
        if not isinstance(name, str) or name in (*REFERENCE_NAMES, ALL_SETS) or not name or "/" in name:
            raise ValueError(
                f"test_dataloaders: expected names without '/' other than {list(REFERENCE_NAMES)}, which are the "
                f"reference's, and {ALL_SETS!r}, which is all sets together, but got {name!r}; rename that set"
            )
        if not isinstance(data, (DataLoader, Dataset)):
            raise TypeError(f"test_dataloaders[{name!r}]: expected a DataLoader or a Dataset, but got {type(data).__name__}")


def check_labels_used(compare_with_labels: bool, **needing: bool) -> None:
    """Refuses an option that needs the labels of the test sets where they are not used."""
    for name, wanted in needing.items():
        if wanted and not compare_with_labels:
            raise ValueError(
                f"{name}: expected compare_with_labels=True beside {name}=True, which needs the true loss of the test sets, "
                "but got False"
            )


def check_measures(measures: object) -> None:
    """Refuses what is no measure, and two measures of one key."""
    if isinstance(measures, (str, bytes)) or not isinstance(measures, Sequence):
        raise TypeError(f"measures: expected a list of Measure objects or None, but got {measures!r}")
    for measure in measures:
        if not isinstance(measure, Measure):
            raise TypeError(f"measures: expected Measure objects, but got {type(measure).__name__}")
    keys = [measure.key for measure in measures if isinstance(measure, Measure)]
    if len(set(keys)) < len(keys):
        raise ValueError(f"measures: expected one measure for each key, but got the keys {keys}")


def check_peers(peers: object, measures: Sequence[Measure], criterion: object) -> None:
    """Refuses what is no estimator of outputs, a key that is taken, and estimates in units other than the criterion's."""
    if isinstance(peers, (str, bytes)) or not isinstance(peers, Sequence):
        raise TypeError(f"peers: expected a list of Peer objects or None, but got {peers!r}")
    for peer in peers:
        if not isinstance(peer, Peer):
            raise TypeError(f"peers: expected Peer objects, but got {type(peer).__name__}")
        if criterion is not None and "loss" in peer.estimates:
            raise ValueError(
                f"peers: expected estimators of the accuracy beside a criterion of one's own, but {type(peer).__name__} "
                "estimates the cross-entropy; leave one of the two out"
            )
    keys = [*(peer.key for peer in peers), *(measure.key for measure in measures), CALIBRATED]
    if len(set(keys)) < len(keys):
        raise ValueError(f"peers: expected one estimator for each key, but got the keys {keys}")

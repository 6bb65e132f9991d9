"""The monitor's further options, and the checks of its arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch.utils.data import DataLoader, Dataset

from lightning_tansens.checks import check_callable, check_choice, check_counts, check_seed, check_share, check_text
from lightning_tansens.estimators import AccuracyForm, Estimator, Limits
from lightning_tansens.metrics.base import Measure
from lightning_tansens.monitor.data.trainer_data import check_choice_of_set
from lightning_tansens.monitor.failures import OnFailure
from lightning_tansens.show import Display
from lightning_tansens.show.keys import check_set_names

#: The hook in which the monitor measures; "auto" takes the validation's wherever there is one.
MeasureAt = Literal["auto", "train_epoch_end", "validation_epoch_end"]


@dataclass(frozen=True)
class Options:
    """Options of the monitor that a first run does not need.

    Args:
        num_loss_samples: The number of samples, the measures' samples included, on which the reference's loss and the
            estimators are computed, which are noisier and cost less.
        num_label_samples: The number of samples on which the true loss of a test set is computed, with
            ``compare_with_labels``; None for all. With a number, the truth has a standard error.
        snapshots_per_epoch: How many times an epoch, evenly spaced, to keep the network's outputs for the estimators that
            use the run so far. The last time is the measurement at the epoch's end; each other one costs a forward pass on
            the samples of ``num_loss_samples``. Four make a dozen snapshots of a fine-tuning of three epochs.
        batch_size: The number of samples measured at once; results do not depend on it.
        seed: Seed of the subsets, of the transforms' randomness on them, and of resampling.
        measure_at: The hook: "validation_epoch_end" suits checkpoints that are chosen after validation, "auto" takes it
            wherever there is a validation loop and "train_epoch_end" where not.
        max_share: The largest share of a run's time that measurements may take, e.g. 0.03. A measurement is left out while
            one as long as the last would take more of the time since; the first is always taken. None measures whenever
            ``every_n_epochs`` says so.
        on_failure: What happens, on all processes, when a measurement fails: "raise", "warn" (once, with the cause; the
            epoch's values are left out and training goes on) or "ignore". A measure that fails loses only its own values,
            unless "raise" stops the training.
        accuracy_form: "error" scales the reference's error rate, "ratio" its accuracy (as Daróczy 2022 does).
        by_class: Whether to compute the loss of each class, where the labels are classes.
        correlate_with_gap: Whether to compute how each value correlates, over the measurements so far, with the gap between
            a test set's true loss and the reference's; needs ``compare_with_labels``.
        limits: What an estimate without doubts must fulfil.
        gathered_bytes: Up to this size of parameters and buffers, a sharded network (``ModelParallelStrategy``) is gathered
            into a copy on each process and measured there; the weights of a larger one are gathered as they are used, and a
            process keeps up to as many bytes of them.
        prefix: What the logged keys begin with; two monitors of a Trainer need different ones.

    Raises:
        ValueError: If a value is not allowed.
        TypeError: If a type is not allowed.

    Example:
        >>> Options(measure_at="train_epoch_end").batch_size
        256
    """

    num_loss_samples: int = 1024
    num_label_samples: int | None = None
    snapshots_per_epoch: int = 1
    batch_size: int = 256
    seed: int = 0
    measure_at: MeasureAt = "auto"
    max_share: float | None = None
    on_failure: OnFailure = "warn"
    accuracy_form: AccuracyForm = "error"
    by_class: bool = False
    correlate_with_gap: bool = False
    limits: Limits = field(default_factory=Limits)
    gathered_bytes: int = 4 * 2**30
    prefix: str = "tansens"

    def __post_init__(self) -> None:
        check_counts(
            num_loss_samples=self.num_loss_samples,
            snapshots_per_epoch=self.snapshots_per_epoch,
            batch_size=self.batch_size,
        )
        if self.num_label_samples is not None:
            check_counts(num_label_samples=self.num_label_samples)
        check_seed(self.seed)
        check_counts(at_least=0, gathered_bytes=self.gathered_bytes)
        if self.max_share is not None:
            check_share("max_share", self.max_share)
        for name, choices in (("accuracy_form", AccuracyForm), ("measure_at", MeasureAt), ("on_failure", OnFailure)):
            check_choice(name, getattr(self, name), get_args(choices))
        if not isinstance(self.limits, Limits):
            raise TypeError(f"limits: expected Limits, but got {self.limits!r}")
        check_text("prefix", self.prefix)


def check_arguments(monitor: Any) -> None:
    """Checks the arguments of the monitor.

    Raises:
        ValueError: If one has a value that is not allowed.
        TypeError: If one has a type that is not allowed.
    """
    check_counts(num_samples=monitor.num_samples, every_n_epochs=monitor.every_n_epochs)
    _check_sets(monitor.test_dataloaders, monitor.reference)
    _check_measures_and_estimators(monitor.measures, monitor.estimators)
    for name in ("unpack", "output", "criterion"):
        check_callable(name, getattr(monitor, name))
    if monitor.network is not None:
        check_text("network", monitor.network)
    for name, kind in (("display", Display), ("options", Options)):
        if not isinstance(getattr(monitor, name), kind):
            raise TypeError(f"{name}: expected {kind.__name__} or None, but got {getattr(monitor, name)!r}")
    if monitor.options.correlate_with_gap and not monitor.compare_with_labels:
        raise ValueError(
            "correlate_with_gap: expected compare_with_labels=True with correlate_with_gap=True, which needs the true loss "
            "of the test sets, but got False"
        )


def _check_sets(test_dataloaders: object, reference: object) -> None:
    """Checks the test sets and the reference."""
    if isinstance(reference, float):
        check_share("reference", reference)
    elif isinstance(reference, str) and reference != "auto":
        check_choice_of_set("reference", reference)
    elif not isinstance(reference, (DataLoader, Dataset)):
        check_choice("reference", reference, ("auto", "train", "val"), "or a DataLoader or a Dataset")
    if isinstance(test_dataloaders, str):
        check_choice_of_set("test_dataloaders", test_dataloaders)
        if test_dataloaders == reference:
            raise ValueError(
                f"test_dataloaders: expected other data than the reference's, but got {reference!r} for both; choose "
                "another reference, or pass data of their own"
            )
    elif isinstance(test_dataloaders, Mapping):
        if not test_dataloaders:
            raise ValueError(
                "test_dataloaders: expected at least one set, but got an empty dict; pass None for the Trainer's own"
            )
        check_set_names(list(test_dataloaders))
        for name, data in test_dataloaders.items():
            if not isinstance(data, (DataLoader, Dataset)):
                came = type(data).__name__
                raise TypeError(f"test_dataloaders[{name!r}]: expected a DataLoader or a Dataset, but got {came}")
    elif not (test_dataloaders is None or isinstance(test_dataloaders, (DataLoader, Dataset))):
        raise TypeError(
            "test_dataloaders: expected a DataLoader, a Dataset, a dict of them by name, 'val' or None, but got "
            f"{type(test_dataloaders).__name__}"
        )


def _check_measures_and_estimators(measures: object, estimators: object) -> None:
    """Checks that items are measures and estimators, each with a key of its own."""
    _check_items("measures", measures, Measure)
    _check_items("estimators", estimators, Estimator)
    keys = [item.key for items in (measures, estimators) for item in items]  # type: ignore[attr-defined]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(
            f"measures, estimators: expected each key once, but got {twice} more than once; leave one of them out"
        )
    for estimator in estimators:  # type: ignore[attr-defined]
        taken = [measure.key for measure in measures]  # type: ignore[attr-defined]
        if lacking := sorted(estimator.measure_keys.difference(taken)):
            raise ValueError(
                f"measures: expected measures with the keys {lacking}, which {estimator.key!r} looks at, but got the keys "
                f"{taken}; add the measures, or leave the features out that need them"
            )


def _check_items(name: str, items: object, kind: type) -> None:
    if isinstance(items, (str, bytes)) or not isinstance(items, Sequence):
        raise TypeError(f"{name}: expected a list of {kind.__name__} objects or None, but got {items!r}")
    room = {"measures": "metrics"}.get(name, name)
    for item in items:
        if not isinstance(item, kind):
            came = f"the class {item.__name__}; pass {item.__name__}()" if isinstance(item, type) else type(item).__name__
            came = f"{item!r}; pass an object from lightning_tansens.{room}" if isinstance(item, str) else came
            raise TypeError(f"{name}: expected {kind.__name__} objects, but got {came}")

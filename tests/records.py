"""Records made by hand."""

from dataclasses import replace

from lightning_tansens.record import Estimate, MeasureRecord, Record, SetRecord


def measure(key, value=None, parts=None, stderr=None, **values):
    """A measure's values by its key; further ones by their names."""
    own = {} if value is None else {key: value}
    return {key: MeasureRecord({**own, **values}, parts or {}, stderr)}


def estimates(**found):
    """Estimates by estimator, each a value, a pair with its standard error, or an Estimate."""
    return {name: _estimate(value) for name, value in found.items() if value is not None}


def _estimate(value):
    if isinstance(value, Estimate):
        return value
    return Estimate(*value) if isinstance(value, tuple) else Estimate(value)


def record(epoch=0, reference=1.0, step=None, name="train", targets=(), weights=None, seconds=None, **of_reference):
    """A measurement: the reference's loss (or its record), the targets' records, and the weights' measures."""
    if not isinstance(reference, SetRecord):
        reference = SetRecord(name, loss=reference, **of_reference)
    by_name = {target.name: target for target in targets}
    return Record(epoch, 10 * epoch if step is None else step, reference, by_name, weights or {}, seconds or {})


def target(name="test", loss=None, accuracy=None, losses=None, accuracies=None, measures=None, **rest):
    """A target's record: the truth, and the estimates by quantity."""
    found = {quantity: estimates(**of) for quantity, of in (("loss", losses), ("accuracy", accuracies)) if of}
    return SetRecord(name, loss=loss, accuracy=accuracy, estimates=found, measures=measures or {}, **rest)


def with_target(one, name, **changes):
    """The record with changes to one target."""
    return replace(one, targets={**one.targets, name: replace(one.targets[name], **changes)})

"""Finds the criterion: the loss function that agrees with the module's own training step on a batch."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_tansens.errors import FailedElsewhereError
from lightning_tansens.metrics.criteria import Criterion, are_class_scores
from lightning_tansens.metrics.labelled_loss import LabelledLoss
from lightning_tansens.monitor.candidates import STANDARD, candidates
from lightning_tansens.monitor.data.reading import Reading
from lightning_tansens.monitor.own_loss import NoLossError, own_loss
from lightning_tansens.tangent.batches import call_model, map_tensors, pick_output
from lightning_tansens.tangent.isolation.memory import plain_parts

#: Makes a context for a call of the network.
Calling = Callable[[], AbstractContextManager[None]]

#: A criterion reproduces a loss within this relative tolerance, or the outputs' own precision if that is coarser.
TOLERANCE = 1e-4

#: How many of the network's calls within a training step are looked at.
CALLS = 4

#: Layers with more weights than this are not changed to tell losses apart.
DISTURBED = 2**20

#: The number of samples on which the criterion is compared.
SAMPLES = 32


@dataclass(frozen=True)
class KnownCriterion:
    """The criterion of a run."""

    criterion: Criterion  #: The callable on (outputs, targets).
    #: Whether the outputs are scores of the labels' classes; None if no batch has shown it.
    class_scores: bool | None = None
    note: str | None = None  #: A note to the user, in one line; None for none.


@dataclass(frozen=True)
class _Seen:
    """A batch: the network's outputs, the targets, and the loss of the training step or why there is none.

    The training step may have changed the inputs, by noise for example; ``others`` are the outputs that the network returned
    there.
    """

    outputs: Any
    targets: Any
    loss: float | None
    others: tuple[Any, ...] = ()
    reason: str = ""

    def on_cpu(self) -> _Seen:
        """Moves the batch to the CPU, as labels that are not classes make a GPU unusable for the rest of the process."""
        outputs, targets, others = (map_tensors(Tensor.cpu, value) for value in (self.outputs, self.targets, self.others))
        return replace(self, outputs=outputs, targets=targets, others=tuple(others))

    @property
    def shapes(self) -> str:
        outputs, targets = (
            f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
            if isinstance(value, Tensor)
            else type(value).__name__
            for value in (self.outputs, self.targets)
        )
        return f"outputs {outputs}, targets {targets}"


def find_criterion(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    network: nn.Module,
    reading: Reading,
    criterion: Criterion | None,
    batches: Iterable[Any],
    calling: Calling = nullcontext,
) -> KnownCriterion:
    """Compares the criterion with the loss that ``training_step`` returns, or finds the one that gives this loss.

    Call it inside ``undisturbed``, which puts modules in eval mode and restores what the step changes. What the step logs
    goes nowhere, and no optimizer steps.

    Args:
        trainer: The Trainer.
        pl_module: The module.
        network: The part of it that is measured.
        reading: How a batch is split, and the outputs are picked.
        criterion: What the user has passed; None to find it.
        batches: Batches on the device, from the training data first; the first one that can be read is used.
        calling: Surrounds each call of the network and of the training step, and raises on all processes if one failed.

    Raises:
        MisconfigurationException: If there is no criterion, and none is found.
    """
    look = functools.partial(_look, trainer, pl_module, network, reading, calling)
    name = type(pl_module).__name__
    seen, batch, error = None, None, None
    for batch in batches:
        try:
            found = look(batch)
        except Exception as caught:  # training batches may differ from the reference's
            error = caught
            continue
        seen = found if seen is None or (seen.loss is None and found.loss is not None) else seen
        if seen is found and seen.loss is not None:
            break
    if seen is None:
        assert error is not None
        raise error
    if criterion is not None:
        note = _note_on_given(criterion, seen, name)
        return KnownCriterion(criterion, are_class_scores(criterion, seen.outputs, seen.targets), note)
    if seen.loss is None:
        return _certain(seen, name)
    matching = [pair for pair in candidates(pl_module, seen.outputs, seen.targets) if _reproduces(pair[1], seen)]
    if len(matching) > 1:  # a layer of zeros, for example, makes many losses equal: other weights tell them apart
        with _other_weights(pl_module):
            again = look(batch)
        matching = [pair for pair in matching if _reproduces(pair[1], again)] or matching
    if not matching and _is_random(seen, look(batch)):
        return _certain(replace(seen, loss=None, reason=f"{name}.training_step returns another loss each time"), name)
    if not matching and seen.targets is None:
        raise MisconfigurationException(
            f"criterion: expected one, because the batches of {name}.training_step have no targets; pass the loss of the "
            "reference, on (outputs, targets), and a reference with labels: TangentSensitivityMonitor(criterion=callable, "
            "reference=...)"
        )
    if not matching:
        raise MisconfigurationException(
            f"criterion: expected a loss of (outputs, targets) that gives what {name}.training_step returns on a batch, "
            f"{seen.loss:.5g} ({seen.shapes}), but no loss of {name} does, and none of {', '.join(STANDARD)}; pass the loss "
            "of the training, without regularising terms: TangentSensitivityMonitor(criterion=callable)"
        )
    said, chosen = matching[0]
    note = f"the criterion is {said}, which gives the loss that {name}.training_step returns"
    return KnownCriterion(chosen, are_class_scores(chosen, seen.outputs, seen.targets), note)


def _is_random(seen: _Seen, again: _Seen) -> bool:
    return seen.loss is not None and (again.loss is None or not math.isclose(again.loss, seen.loss, rel_tol=1e-5))


def _note_on_given(criterion: Criterion, seen: _Seen, name: str) -> str | None:
    if seen.loss is None:
        return f"the criterion is taken as it is given, not compared with the loss of the training: {seen.reason}"
    if seen.targets is None:
        return f"the criterion is taken as it is given: the batches of {name}.training_step have no targets"
    own = _value(criterion, seen.outputs, seen.targets)
    if own is None or _reproduces(criterion, seen):
        return None
    return (
        f"the criterion is taken as it is given: on a batch it is {own:.5g}, and {name}.training_step, which may have "
        f"further terms, returns {seen.loss:.5g}"
    )


def _certain(seen: _Seen, name: str) -> KnownCriterion:
    """Takes cross-entropy if the labels are classes, else raises."""
    if seen.targets is None:  # preparing the reference refuses it
        return KnownCriterion(F.cross_entropy)
    if are_class_scores(F.cross_entropy, seen.outputs, seen.targets):
        note = (
            f"the criterion is cross-entropy, as the labels are classes; it is not compared with the training: {seen.reason}"
        )
        return KnownCriterion(F.cross_entropy, True, note)
    raise MisconfigurationException(
        f"criterion: expected one, because {name} shows none: {seen.reason} ({seen.shapes}); pass the loss of the training: "
        "TangentSensitivityMonitor(criterion=callable on (outputs, targets))"
    )


def _look(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    network: nn.Module,
    reading: Reading,
    calling: Calling,
    batch: Any,
) -> _Seen:
    inputs, targets = reading.split(copy.deepcopy(batch))
    try:
        with torch.no_grad(), calling():
            outputs = map_tensors(Tensor.clone, pick_output(call_model(network, inputs), reading.output))
    except (AttributeError, KeyError, IndexError) as error:  # raised by a forward that looks for parts of the batch
        raise MisconfigurationException(
            f"unpack: expected inputs that {type(network).__name__}.forward takes, but with {type(inputs).__name__} it "
            f"raised {type(error).__name__}: {error}; a forward that takes the whole batch needs "
            "unpack=lambda batch: (batch, labels of the batch)"
        ) from error
    try:
        with calling():
            loss, returned = own_loss(trainer, pl_module, network, batch)
    except (NoLossError, FailedElsewhereError) as error:
        return _Seen(outputs, targets, None, reason=str(error))
    return _Seen(outputs, targets, loss, tuple(pick_output(value, reading.output) for value in returned[-CALLS:]))


@contextmanager
def _other_weights(pl_module: nn.Module) -> Iterator[None]:
    """Changes small layers' weights within a block and restores them: ``undisturbed`` copies no large network."""
    generator = torch.Generator()
    small = [one for one in pl_module.parameters() if one.is_floating_point() and one.numel() <= DISTURBED]
    parameters = [part for parameter in small for part in plain_parts(parameter)]  # this process's shard of it
    with torch.no_grad():
        saved = [parameter.clone() for parameter in parameters]
        for number, parameter in enumerate(parameters):
            generator.manual_seed(number)  # replicas agree, however their neighbours are sharded
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.1)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, own in zip(parameters, saved, strict=True):
                parameter.copy_(own)


def _reproduces(criterion: Criterion, seen: _Seen) -> bool:
    seen = seen.on_cpu() if any(criterion is standard for standard in STANDARD.values()) else seen
    values = (_value(criterion, outputs, seen.targets) for outputs in (seen.outputs, *seen.others))
    return any(value is not None and _same(value, seen) for value in values)


def _value(criterion: Criterion, outputs: Any, targets: Any) -> float | None:
    loss = LabelledLoss(criterion)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            loss.to(outputs.device if isinstance(outputs, Tensor) else "cpu").update(outputs, targets)
            return loss.value()
    except Exception:  # whatever a criterion raises for outputs and targets that it is not made for
        return None


def _same(value: float, seen: _Seen) -> bool:
    assert seen.loss is not None
    floating = isinstance(seen.outputs, Tensor) and seen.outputs.is_floating_point()
    tolerance = max(TOLERANCE, 4 * torch.finfo(seen.outputs.dtype).eps if floating else 0.0)
    return math.isfinite(value) and abs(value - seen.loss) <= tolerance * abs(seen.loss)

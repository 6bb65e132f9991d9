"""Asks a criterion for the loss of each sample, so that the loss of a set does not depend on the batches."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: On (outputs, targets), it returns a tensor; a command line takes a class only where the return type is left open.
Criterion = Callable[[Any, Any], Any]

#: Losses of PyTorch whose integer targets are class indices, which weights and ``ignore_index`` are about.
_OF_CLASSES = ("cross_entropy", "nll_loss", "CrossEntropyLoss", "NLLLoss")


@dataclass(frozen=True, eq=False)
class TorchLoss:
    """A loss of PyTorch's that returns its elements, which are summed up here.

    The value on a set is Σa/Σb over its samples: a is the sum of a sample's elements, b their number, or the sum of their
    weights; for ``reduction="sum"`` it is Σa.

    Example:
        >>> loss = TorchLoss.of(nn.CrossEntropyLoss(torch.tensor([1.0, 3.0])))
        >>> [part.tolist() for part in loss.terms(torch.zeros(3, 2), torch.tensor([0, 1, -100]))][1]
        [1.0, 3.0, 0.0]
    """

    function: Criterion  # returns the elements of the loss for (outputs, targets)
    name: str  # what it is called in messages
    reduction: str = "mean"  # or "sum", "batchmean", or "none", of which the mean is taken
    weight: Tensor | None = None  # the weights of the classes, shape (C,)
    ignore_index: int | None = None  # the class that counts nowhere
    of_classes: bool = False  # whether integer targets are class indices, for outputs of shape (N, C, ...)

    @classmethod
    def of(cls, criterion: Criterion) -> TorchLoss | None:
        """Returns what a module, a function or a ``functools.partial`` of torch is; None for anything else."""
        if isinstance(criterion, TorchLoss):
            return criterion
        if isinstance(criterion, nn.Module):
            kind: Any = next(kind for kind in type(criterion).__mro__ if "forward" in vars(kind))
            if kind.__module__ != "torch.nn.modules.loss":  # a scripted module's class has no forward to look at
                return None
            parameters = list(inspect.signature(kind.forward).parameters)
            if len(parameters) != 3 or parameters[-1] != "target":
                return None
            asked = copy.copy(criterion)
            asked.reduction = "none"  # type: ignore[assignment]
            settings = {name: getattr(criterion, name, None) for name in ("reduction", "weight", "ignore_index")}
            return cls._made(asked, kind.__name__, settings)
        partial = criterion if isinstance(criterion, functools.partial) else functools.partial(criterion)
        name = getattr(partial.func, "__name__", "")
        if partial.func is not getattr(F, name, None) or partial.args:
            return None
        known = list(inspect.signature(partial.func).parameters)
        deprecated = any(partial.keywords.get(one) is not None for one in ("size_average", "reduce"))
        if known[1:2] != ["target"] or "reduction" not in known or "var" in known or deprecated:
            return None
        function = functools.partial(partial.func, **{**partial.keywords, "reduction": "none"})
        return cls._made(function, name, {"ignore_index": -100, "reduction": "mean", **partial.keywords})

    @classmethod
    def _made(cls, function: Criterion, name: str, settings: dict[str, Any]) -> TorchLoss:
        of_classes = name in _OF_CLASSES
        weight, ignore = (settings.get("weight"), settings["ignore_index"]) if of_classes else (None, None)
        return cls(function, name, settings["reduction"], weight, ignore, of_classes)

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the loss of a batch."""
        a, b = self.terms(outputs, targets)
        return a.sum() if self.reduction == "sum" else a.sum() / b.sum()

    def terms(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Returns a and b of each sample, shapes (N,).

        Raises ValueError if the shapes or the labels do not fit, or the loss is 0 whatever the outputs are.
        """
        indices = self.of_classes and isinstance(targets, Tensor) and not targets.is_floating_point()
        self._check(outputs, targets, indices)
        elements = self.function(outputs, targets)
        if indices:
            counts = elements.new_ones(elements.shape)
            if self.weight is not None and self.reduction == "mean":
                inside = targets.clamp(0, len(self.weight) - 1)
                counts = self.weight.to(elements)[inside]
            counts = counts * (targets != self.ignore_index)
        elif self.reduction == "batchmean":
            return _summed(elements), elements.new_ones(len(elements))
        else:
            counts = torch.ones_like(elements)
        return _summed(elements), _summed(counts)

    def valid(self, targets: Tensor) -> Tensor:
        """Returns which targets count, a tensor of their shape."""
        return targets.ne(self.ignore_index) if self.ignore_index is not None else torch.ones_like(targets, dtype=torch.bool)

    def _check(self, outputs: Any, targets: Any, indices: bool) -> None:
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            raise ValueError(
                f"criterion: expected tensors of outputs and targets for {self.name}, but got {type(outputs).__name__} and "
                f"{type(targets).__name__}; pick the outputs with output=callable, the targets with unpack=callable"
            )
        if targets.is_complex():
            raise ValueError(
                f"targets: expected class indices or real numbers for {self.name}, but got {targets.dtype}; pick them with "
                "unpack=callable"
            )
        shapes = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        if self.of_classes and outputs.dim() < 2:
            raise ValueError(
                f"criterion: expected outputs of shape (N, C) for {self.name}, but got {shapes}; pick them with "
                "output=callable, or pass the loss of the training as the criterion"
            )
        if self.of_classes and outputs.shape[1] < 2:
            raise ValueError(
                f"criterion: expected two or more classes, because {self.name} of one output is 0 whatever it is, but got "
                f"{shapes}; pass the loss of the training, such as criterion=torch.nn.BCEWithLogitsLoss()"
            )
        if not self.of_classes and not self.name.lower().startswith("multi") and outputs.dim() != targets.dim():
            raise ValueError(
                f"criterion: expected outputs and targets of one shape, because {self.name} would combine each output with "
                f"every target, but got {shapes}; reshape them in the criterion"
            )
        if indices and targets.numel():
            counted, classes = targets[targets != self.ignore_index], outputs.shape[1]
            if counted.numel() and (counted.min() < 0 or counted.max() >= classes):
                raise ValueError(
                    f"targets: expected classes from 0 to {classes - 1} ({self.ignore_index} is ignored), but got "
                    f"{int(counted.min())} to {int(counted.max())}; pass a criterion that ignores them, such as "
                    "criterion=torch.nn.CrossEntropyLoss(ignore_index=255)"
                )


def are_class_scores(criterion: Criterion, outputs: Any, targets: Any) -> bool:
    """Says whether outputs are scores of the labels' classes: whether the criterion rewards a high score of a label's class.

    The criterion is asked at scores of 0: it falls in the score of the label's class and in no other. For one output per
    sample, which is the logit of the second of two classes, it falls for one label and rises for the other. Outputs are (N,
    C) with integer targets (N,), or (N,) or (N, 1) with zeros and ones.

    Example:
        >>> labels = torch.tensor([0, 1, 1])
        >>> are_class_scores(F.cross_entropy, torch.randn(3, 2), labels)
        True
        >>> are_class_scores(lambda y, t: (y[:, 0] - t).square().mean(), torch.randn(3, 2), labels)
        False
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or not outputs.is_floating_point():
        return False
    samples, single = len(outputs), outputs.dim() == 1 or outputs.shape[1:] == (1,)
    shapes = [(samples,), (samples, 1)] if single else [(samples,)]
    if outputs.dim() > 2 or tuple(targets.shape) not in shapes or (targets.is_floating_point() and not single):
        return False
    known = TorchLoss.of(criterion)
    labels = targets[known.valid(targets)] if known is not None else targets
    classes = 2 if single else outputs.shape[1]
    inside = (labels >= 0) & (labels < classes) & (labels == labels.round() if labels.is_floating_point() else True)
    if not bool(inside.any() if known is None else inside.all()):
        return False
    if known is not None and known.of_classes:
        return not single
    tried = (torch.arange(samples, device=targets.device) % classes).to(targets.dtype).reshape(targets.shape)
    scores = torch.zeros_like(outputs, requires_grad=True)
    try:
        with torch.enable_grad():
            _fixed(criterion, scores.detach() - 1, tried)  # probabilities must not be negative
            loss = _fixed(criterion, scores, tried)
            (slope,) = torch.autograd.grad(loss.sum(), scores)
    except Exception:  # whatever the user's criterion raises at such outputs
        return False
    if not bool(slope.isfinite().all()):
        return False
    own = tried.long().reshape(-1)
    if single:
        return bool((slope.reshape(-1) * (1 - 2 * own) > 0).all())
    mask = F.one_hot(own, classes).bool()
    return bool((slope[mask] <= 0).all() and slope.any() and (slope[~mask] >= -1e-6 * slope.abs().max()).all())


def look_like_class_scores(outputs: Tensor, targets: Any) -> bool:
    """Whether outputs may be scores of classes by their shape, (N, C) of two or more, with class indices (N,) or None."""
    indices = isinstance(targets, Tensor) and targets.shape == outputs.shape[:1] and not targets.is_floating_point()
    return outputs.dim() == 2 and outputs.shape[1] > 1 and (targets is None or indices)


def _fixed(criterion: Criterion, outputs: Tensor, targets: Tensor) -> Tensor:
    """The criterion with its own parameters held fixed: class weights may be parameters, but have no derivative."""
    parameters = dict(criterion.named_parameters()) if isinstance(criterion, nn.Module) else {}
    held = {name: parameter.detach() for name, parameter in parameters.items()}
    found: Tensor = torch.func.functional_call(criterion, held, (outputs, targets)) if held else criterion(outputs, targets)  # type: ignore[arg-type]
    return found


def _summed(elements: Tensor) -> Tensor:
    return elements.flatten(1).double().sum(1) if elements.dim() > 1 else elements.double()

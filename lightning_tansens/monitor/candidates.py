"""The losses that a module may be trained on: its own ones, and the standard ones."""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tansens.metrics.criteria import Criterion, TorchLoss


def _aligned(function: Criterion, outputs: Tensor, targets: Tensor, **options: Any) -> Any:
    """The elements of a loss whose targets have the outputs' shape, up to axes of length 1, and type."""
    return function(outputs, targets.reshape(outputs.shape).to(outputs.dtype), reduction="none", **options)  # type: ignore[call-arg]


def _gaussian(variance: Callable[[Tensor], Tensor], outputs: Any, targets: Tensor) -> Tensor:
    mean, spread = outputs if isinstance(outputs, (tuple, list)) else outputs.chunk(2, 1)
    return F.gaussian_nll_loss(mean, targets.reshape(mean.shape).to(mean), variance(spread), reduction="none")


def _of_last_axis(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def _of_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.nll_loss(outputs.log(), targets, reduction="none")


def _identity(value: Tensor) -> Tensor:
    return value


def _squared_exp(value: Tensor) -> Tensor:
    return (2 * value).exp()


#: The losses to try, by name, where no loss of the module fits.
STANDARD: dict[str, Criterion] = {
    "cross-entropy": F.cross_entropy,
    "binary cross-entropy with logits": functools.partial(_aligned, F.binary_cross_entropy_with_logits),
    "mean squared error": functools.partial(_aligned, F.mse_loss),
    "mean absolute error": functools.partial(_aligned, F.l1_loss),
    "smooth L1 loss": functools.partial(_aligned, F.smooth_l1_loss),
    "negative log-likelihood": F.nll_loss,
    "binary cross-entropy of probabilities": functools.partial(_aligned, F.binary_cross_entropy),
    "cross-entropy of probabilities": _of_probabilities,
    "Gaussian likelihood of (mean, log variance)": functools.partial(_gaussian, torch.exp),
    "Gaussian likelihood of (mean, variance)": functools.partial(_gaussian, _identity),
    "Gaussian likelihood of (mean, log of the deviation)": functools.partial(_gaussian, _squared_exp),
    "Gaussian likelihood of (mean, softplus of the variance)": functools.partial(_gaussian, F.softplus),
    "Poisson likelihood": functools.partial(_aligned, F.poisson_nll_loss),
    "Poisson likelihood of the rate": functools.partial(_aligned, F.poisson_nll_loss, log_input=False),
    "cross-entropy with label smoothing 0.1": functools.partial(F.cross_entropy, label_smoothing=0.1),
    "cross-entropy over the last axis": _of_last_axis,
    "multi-class margin": F.multi_margin_loss,
}


def candidates(pl_module: pl.LightningModule, outputs: Any, targets: Any) -> Iterator[tuple[str, Criterion]]:
    """Yields the module's PyTorch losses, which carry settings, then the standard ones, then its other losses."""
    modules = {f"self.{name}": module for name, module in pl_module.named_modules() if name}
    yield from ((name, module) for name, module in modules.items() if TorchLoss.of(module) is not None)
    yield from STANDARD.items()
    if isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.dim() > 1:
        held = {**dict(pl_module.named_buffers()), **vars(pl_module)}
        for name, weight in held.items():
            if isinstance(weight, Tensor) and weight.is_floating_point() and weight.shape == outputs.shape[1:2]:
                yield f"cross-entropy with weight=self.{name}", functools.partial(F.cross_entropy, weight=weight)
                binary = functools.partial(_aligned, F.binary_cross_entropy_with_logits, pos_weight=weight)
                yield f"binary cross-entropy with pos_weight=self.{name}", binary
        if not targets.is_floating_point():
            for label in {-1, 0, int(targets.max())} if targets.numel() else ():
                ignoring = functools.partial(F.cross_entropy, ignore_index=label)
                yield f"cross-entropy with ignore_index={label}", ignoring
    others = {**modules, **{f"self.{name}": value for name, value in vars(pl_module).items() if callable(value)}}
    for name, value in {**others, **_methods(pl_module)}.items():
        if re.search("loss|criterion|objective", f"{name} {type(value).__name__}", re.IGNORECASE):
            yield name, value


def _methods(pl_module: pl.LightningModule) -> dict[str, Criterion]:
    """Returns the methods of the user's class with two arguments; the measurement undoes whatever they log or count."""
    found = {}
    for name in dir(type(pl_module)):
        if hasattr(pl.LightningModule, name) or not inspect.isfunction(inspect.getattr_static(type(pl_module), name)):
            continue
        method = getattr(pl_module, name)
        parameters = inspect.signature(method).parameters.values()
        if len([one for one in parameters if one.default is one.empty and one.kind < one.VAR_POSITIONAL]) == 2:
            found[f"self.{name}"] = method
    return found

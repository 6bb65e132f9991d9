"""Runs a module's own training step on a batch, outside its loop, for the loss that it returns."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn

from lightning_tansens.tangent.batches import map_tensors


class NoLossError(RuntimeError):
    """The training step gives no loss outside the training; the message says why."""


def own_loss(trainer: pl.Trainer, pl_module: pl.LightningModule, network: nn.Module, batch: Any) -> tuple[float, list[Any]]:
    """Returns the loss that ``training_step`` returns on a batch, and what the measured network returned meanwhile.

    Nothing is logged, and no optimizer steps.

    Raises:
        NoLossError: If it cannot be run outside the training, or returns none.
    """
    name = f"{type(pl_module).__name__}.training_step"
    if not pl_module.automatic_optimization:
        raise NoLossError(f"{name} optimises by itself")
    if all(part is not network for part in pl_module.modules()):
        raise NoLossError(f"{name} is not called outside of the training, because the strategy wraps its module")
    parameters = inspect.signature(pl_module.training_step).parameters
    if "dataloader_iter" in parameters or inspect.isgeneratorfunction(pl_module.training_step):
        raise NoLossError(f"{name} draws its batches itself, or is a generator")
    required = [one for one in list(parameters.values())[1:] if one.default is one.empty and one.kind not in (2, 4)]
    places = [0 for one in required if one.kind is not one.KEYWORD_ONLY]
    named = {one.name: 0 for one in required if one.kind is one.KEYWORD_ONLY}
    returned: list[Any] = []
    handle = network.register_forward_hook(lambda module, args, output: returned.append(map_tensors(Tensor.detach, output)))
    try:
        with _caught(trainer, pl_module):
            result: Any = pl_module.training_step(copy.deepcopy(batch), *places, **named)
    except Exception as error:  # whatever the user's step raises outside its loop
        raise NoLossError(f"{name} cannot be run before the first step ({type(error).__name__}: {error})") from error
    finally:
        handle.remove()
    loss = result.get("loss") if isinstance(result, Mapping) else result
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not bool(loss.isfinite()):
        came = "a loss that is not finite" if isinstance(loss, Tensor) and loss.numel() == 1 else type(loss).__name__
        raise NoLossError(f"{name} returns {came}")
    return float(loss.detach()), returned


class _Still:
    """An optimizer, or a scheduler, that can be read and does not step."""

    def __init__(self, held: Any) -> None:
        self._held = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._held, name)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing."""

    zero_grad = step


@contextmanager
def _caught(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """Keeps a step from logging, printing and stepping."""
    loggers, stops, own = list(trainer.loggers), trainer.should_stop, vars(pl_module)

    def still(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*args: Any, **kwargs: Any) -> Any:
            held = read(*args, **kwargs)
            return [_Still(one) for one in held] if isinstance(held, list) else None if held is None else _Still(held)

        return reading

    nothing = dict.fromkeys(("log", "log_dict", "print", "manual_backward"), lambda *args, **kwargs: None)
    replaced = {**nothing, "optimizers": still(pl_module.optimizers), "lr_schedulers": still(pl_module.lr_schedulers)}
    before = {name: own[name] for name in replaced if name in own}
    try:
        own.update(replaced)
        trainer.loggers = [DummyLogger() for _ in loggers]
        yield
    finally:
        trainer.loggers, trainer.should_stop = loggers, stops
        for name in replaced:
            own.pop(name, None)
        own.update(before)

"""One isolation for all that runs a network outside of its training: everything is bitwise as it was afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from torch import nn

from lightning_tansens.checks import check_model
from lightning_tansens.errors import DisturbedTrainingError
from lightning_tansens.tangent.isolation.hooks import silent_hooks
from lightning_tansens.tangent.isolation.randomness import (
    Randomness,
    attributes,
    isolated_rng,
    sample_seed,
    seed_devices,
)
from lightning_tansens.tangent.isolation.state import State
from lightning_tansens.tangent.isolation.surroundings import modes, ordinary, surroundings

__all__ = ["Randomness", "evaluation", "isolated_rng", "modes", "ordinary", "sample_seed", "seed_devices", "undisturbed"]

#: The state that the innermost block guards; blocks within it save nothing again.
_guarding: ContextVar[State | None] = ContextVar("guarding", default=None)


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Runs a measurement: all that it touches is bitwise as it was afterwards, also after an exception.

    Does what :func:`evaluation` does, and raises the same error. It also restores the global random states (torch on the CPU
    and CUDA, NumPy, Python) and the generators that modules hold, and silences a LightningModule's ``log``, which its
    ``forward`` may call.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3)).train()
        >>> state = torch.get_rng_state()
        >>> with undisturbed(net):
        ...     _ = torch.rand(1), net[1].running_mean.data.add_(1), [m.eval() for m in net]
        >>> torch.equal(torch.get_rng_state(), state), net[1].running_mean, net[0].training
        (True, tensor([0., 0., 0.]), True)
    """
    check_model(module)
    with isolated_rng(), Randomness(*attributes(module)).isolated_generators(), evaluation(module), _silent_log(module):
        yield


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Runs a block with every module in eval mode and leaves the model bitwise as it was.

    Inside of the block autograd is available (also when the caller is in ``no_grad`` or ``inference_mode``), autocast is
    off, compiled modules run eagerly, checkpoints call their function directly and the fused inference path of attention is
    not taken, because none of these can be differentiated twice. The user's hooks are silent
    (:mod:`~lightning_tansens.tangent.isolation.hooks` says which ones are not).

    On exit each module's mode, parameters, buffers, plain attributes and ``.grad`` are restored, whatever wrote them
    (:mod:`~lightning_tansens.tangent.isolation.state` says how far that goes). A block within another one on the same model
    compares with what the outer one has saved, so it copies nothing; the lazy modules that it has initialised stay so until
    the end of the outer block, and writes that no version counts may stay until then, too, if they begin late
    (:mod:`~lightning_tansens.tangent.isolation.memory`).

    Raises:
        DisturbedTrainingError: If something has changed that cannot be put back; the message names it.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
        >>> with evaluation(net):
        ...     [m.training for m in net]
        [False, False]
        >>> [m.training for m in net]
        [True, False]
    """
    check_model(model)
    outer = _guarding.get()
    guarded = outer is not None and outer.guards(model)
    with torch.inference_mode(False):
        state = outer if outer is not None and guarded else State(model)
    token = _guarding.set(state)
    failed: list[str] = []
    try:
        with ExitStack() as stack:
            stack.enter_context(surroundings(state.devices))
            stack.callback(lambda: failed.extend(state.restore(last=not guarded)))
            if not guarded:
                stack.enter_context(silent_hooks(state.modules))
                stack.enter_context(state.without_gradients())
            stack.enter_context(modes(dict.fromkeys(model.modules(), False)))
            yield
    finally:
        _guarding.reset(token)
        if failed:
            raise DisturbedTrainingError(
                f"expected a measurement to leave {type(model).__name__} as it was, but its forward pass has changed "
                f"{', '.join(failed[:5])}, which cannot be put back; do not write to it in eval mode"
            )


@contextmanager
def _silent_log(module: nn.Module) -> Iterator[None]:
    """Drops what LightningModules log; :class:`State` leaves the attribute alone."""
    logging = [vars(part) for part in module.modules() if callable(getattr(type(part), "log", None))]
    before = [own.get("log") for own in logging]
    for own in logging:
        own["log"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for own, log in zip(logging, before):
            del own["log"]
            if log is not None:
                own["log"] = log

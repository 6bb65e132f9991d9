"""Whether the derivatives that a way takes are those of the network: held against autograd and against differences.

Autograd and a tracer see what a network shows them. A part under ``torch.no_grad``, a detached tensor, a derivative taken
inside of ``forward`` or a custom function with a backward of its own may hide a share of a derivative, which would then be
missing from the sensitivity without a word. Differences of outputs and of gradients show it. They are believed only where
two step sizes agree: where they do not, a kink, a jump or rounding lies between, and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import BackwardCFunction

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.network import Network
from lightning_tansens.tangent.operators.known_derivatives import Known
from lightning_tansens.tangent.probes.batch_axis import BatchAxes
from lightning_tansens.tangent.probes.input_space import contributions_of, gradients_of, run_traced
from lightning_tansens.tangent.probes.parameter_space import inner_products
from lightning_tansens.tangent.probes.vectors import input_probes, parameter_probes
from lightning_tansens.tangent.tracing import CallTracer, tensors_in

#: The larger step, in multiples of the root mean square of x; the smaller one is half of it.
STEP = 0.01

#: Two steps agree up to this share, and a derivative is another one from this share on.
AGREE, DIFFER = 0.01, 0.05

#: How far the gradients of two forward passes may lie apart, by precision.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-2}

#: x is moved by this multiple of a step first: at zero, where black pixels are, lie kinks.
_AWAY_FROM_KINKS = 5


def verify(network: Network, axes: BatchAxes | None) -> None:
    """Refuses a way whose derivatives are not those of the network.

    Args:
        network: The network on a few samples, in eval mode.
        axes: What input-space probes know about the network; None for the way by double backward.

    Raises:
        UnsupportedNetworkError: If the way misses a share of a derivative; the message names the reason.

    """
    if not network.trainable:
        return
    step = STEP * float(network.x.detach().float().square().mean().sqrt()) or STEP
    away = input_probes(network.x.shape[1:], 1, range(len(network)), 0).to(network.x)
    network = network.moved(network.x + _AWAY_FROM_KINKS * step * away)
    direction = input_probes(network.x.shape[1:], 0, range(len(network)), 0).to(network.x)
    w = parameter_probes(network.trainable, 0, 0, 0)
    with _same_draws(network.x.device):
        slopes, change = (
            _by_double_backward(network, direction, w) if axes is None else _by_rules(network, direction, w, axes)
        )
    if network.x.dtype not in _ROUNDING:  # too coarse for differences
        return
    if _differ(lambda x: _scores(network, x), network.x, direction, step, slopes):
        raise UnsupportedNetworkError(
            f"expected the outputs of {type(network.model).__name__} to move with x as their derivative says, but a part of "
            f"that derivative is cut off{_culprit(network)}; take it away in eval mode"
            + (", or use method='input_space', which carries derivatives through torch.no_grad" if axes is None else "")
        )
    if _differ(lambda x: _gradients(network, x, w), network.x, direction, step, change):
        raise UnsupportedNetworkError(
            f"expected the gradients of {type(network.model).__name__} to move with x as their derivative says, but a part "
            f"of that derivative is cut off{_culprit(network)}; take it away in eval mode"
        )


def _by_rules(network: Network, direction: Tensor, w: dict[str, Tensor], axes: BatchAxes) -> tuple[Tensor, Tensor]:
    """The derivatives along a direction, of the outputs (N,) and of ⟨w, gradient⟩ by parameter, in input space."""
    with forward_ad.dual_level():
        trace = run_traced(network, direction)
        score = _weighted(trace.output)
        found = gradients_of(trace, score.sum(), retain=False)
        slopes = forward_ad.unpack_dual(score).tangent
        totals: dict[str, dict[bool, Tensor]] = {}
        for derivative in (False, True):
            for name, term in contributions_of(trace, found, axes.axes, len(network), derivative):
                part = term.summed(network.trainable[name].shape)
                sums = totals.setdefault(name, {})
                sums[derivative] = part if derivative not in sums else sums[derivative] + part
    expected = dict(zip(network.trainable, _autograd(network, network.x)))
    scale = sum(float(g.abs().square().sum()) for g in expected.values() if g is not None) ** 0.5
    rounding = _ROUNDING.get(network.x.dtype, 0.1)
    for name, gradient in expected.items():
        traced = totals.get(name, {}).get(False, torch.zeros(1, device=network.x.device))
        if gradient is not None and (traced - gradient).norm() > rounding * (gradient.norm() + 1e-3 * scale):
            raise UnsupportedNetworkError(
                f"parameter '{name}' is also used where no layer rule sees it (a derivative taken inside of forward, a "
                "scripted module, a custom autograd function)"
            )
    changes = inner_products(w, {name: totals.get(name, {}).get(True) for name in w})
    return torch.zeros(len(network)) if slopes is None else slopes.detach(), changes


def _by_double_backward(network: Network, direction: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The same derivatives by double backward."""
    x = network.x.clone().requires_grad_()
    slope, changes = torch.zeros_like(x), inner_products(w, dict.fromkeys(w))
    score = _weighted(network(x.clone()))
    if score.requires_grad:
        (found,) = torch.autograd.grad(score.sum(), x, create_graph=True, allow_unused=True)
        slope = slope if found is None else found
        if slope.requires_grad:
            parameters = network.trainable
            parts = torch.autograd.grad((slope * direction).sum(), list(parameters.values()), allow_unused=True)
            changes = inner_products(w, dict(zip(parameters, parts)))
    return (slope.detach() * direction).flatten(1).sum(1), changes


def _weighted(output: Tensor) -> Tensor:
    """A score of each sample, shape (N,), to which the outputs contribute differently: probabilities sum to a constant."""
    return output @ torch.linspace(1, 2, output.shape[1]).to(output)


def _scores(network: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        return _weighted(network(x.clone()))


def _autograd(network: Network, x: Tensor) -> tuple[Tensor | None, ...]:
    score = _weighted(network(x.clone()))
    parameters = list(network.trainable.values())
    if not score.requires_grad:
        return (None,) * len(parameters)
    return torch.autograd.grad(score.sum(), parameters, allow_unused=True)


def _gradients(network: Network, x: Tensor, w: dict[str, Tensor]) -> Tensor:
    return inner_products(w, dict(zip(w, _autograd(network, x))))


def _differ(function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, step: float, derivative: Tensor) -> bool:
    """Whether a derivative is not what differences with two steps agree on."""
    quotients = []
    for size in (step, step / 2):
        ends = []
        for sign in (1, -1):
            with _same_draws(x.device):
                ends.append(function(x + sign * size * direction).double())
        quotients.append((ends[0] - ends[1]) / (2 * size))
    coarse, fine = quotients
    size = fine.norm()
    # a function that does not move at all between the steps is rounded, and its derivative a surrogate by intent
    return bool(size > 0 and (coarse - fine).norm() <= AGREE * size and (fine - derivative.to(fine)).norm() > DIFFER * size)


@contextmanager
def _same_draws(device: torch.device) -> Iterator[None]:
    """Lets a forward pass that is random in eval mode draw the same numbers again."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.random.manual_seed(0)
        yield


class _Cuts(CallTracer):
    def __init__(self, network: Network) -> None:
        super().__init__(network.model)
        self.found = ""

    def on_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        live = any(tensor.requires_grad for tensor in tensors_in((args, kwargs)))
        result = func(*args, **kwargs)
        cut = live and not any(tensor.requires_grad for tensor in tensors_in(result))
        if not self.found and cut and (func in _DETACHING or not torch.is_grad_enabled()):
            self.found = f": {self.place(func)}" + ("" if torch.is_grad_enabled() else " under torch.no_grad")
        return result


_DETACHING = {Tensor.detach, Tensor.detach_, Tensor.data.__get__}  # type: ignore[attr-defined]


def _culprit(network: Network) -> str:
    """Names the call that cuts a derivative off, as far as it can be seen."""
    cuts = _Cuts(network)
    with torch.enable_grad(), cuts.running():
        output = network(network.x.clone().requires_grad_().clone())
    return cuts.found or next(_custom_functions(output), " (a custom autograd function, a scripted module)")


def _custom_functions(output: Tensor) -> Iterator[str]:
    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction) and not isinstance(node, Known._backward_cls):  # type: ignore[attr-defined]
            yield f": the custom autograd function {type(node).__name__.removesuffix('Backward')}"
        nodes.extend(following for following, _ in node.next_functions)

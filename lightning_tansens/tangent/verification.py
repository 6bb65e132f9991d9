"""Checks the derivatives that a method takes against autograd and against differences.

Autograd and a tracer see what a network shows them. A part under ``torch.no_grad``, a detached tensor, a derivative taken
inside of ``forward`` or a custom function with a backward of its own may hide a share of a derivative, which would then be
silently missing from the sensitivity. Differences of outputs and of gradients show it. They are believed only where
two step sizes agree: where they do not, a kink, a jump or rounding lies between, and nothing is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import BackwardCFunction

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.network import Network, derivatives
from lightning_tansens.tangent.operators.known_derivatives import Known
from lightning_tansens.tangent.probes.batch_axis import BatchAxes
from lightning_tansens.tangent.probes.input_space import contributions_of, gradients_of, run_traced
from lightning_tansens.tangent.probes.parameter_space import inner_products
from lightning_tansens.tangent.probes.vectors import input_probes, parameter_probes
from lightning_tansens.tangent.tracing import CallTracer, tensors_in

#: The larger step, in multiples of the root mean square of x; the smaller one is half of it.
_STEP = {torch.float64: 1e-5, torch.float32: 3e-3}

#: From this share on, a derivative is another one than the differences'.
_DIFFER = {torch.float64: 1e-3, torch.float32: 1e-2}

#: Differences are believed if the two steps' lie closer together than this share of their distance from the derivative.
_AGREE = 0.3

#: How far the gradients of two forward passes may lie apart, by precision.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-2}

#: The same in 16 bits, but along the gradient: in all directions, rounding moves a ResNet-50's gradients by up to 0.44 of
#: their norm. Gradients below the second share of all are rounding alone, as of a key's bias in attention.
_ROUNDING_ALONG, _ALL_ROUNDING = 0.4, 0.03

#: x is moved by this multiple of its root mean square first: at zero, where black pixels are, lie kinks.
_AWAY_FROM_KINKS = 0.05

#: Where TF32 is switched on and off, and what stands for off; reading torch's older settings fails for a user of the newer.
_PRECISIONS: list[tuple[Any, str, Any]] = (
    [
        (part, "fp32_precision", "ieee")
        for part in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    ]
    if hasattr(torch.backends.cudnn, "conv")
    else [(part, "allow_tf32", False) for part in (torch.backends.cudnn, torch.backends.cuda.matmul)]
)

#: A network is refused if it fails at this many places; at one of them may lie a kink.
_PLACES = 3


def verify(network: Network, axes: BatchAxes | None, order: Literal[1, 2] = 2) -> None:
    """Raises UnsupportedNetworkError, which names the reason, if a method's derivatives are not the network's.

    The network is on a few samples, in eval mode. ``axes`` are what input-space probes know about it; None stands for the
    way by double backward. Order 1 is for the derivative with respect to x alone, 2 for the mixed one too.
    """
    if not network.trainable and order == 2:  # then everything is zero
        return
    with _full_precision():
        for place in range(_PLACES):
            problem = _problem(network, axes, order, place)
            if not problem:
                return
    raise UnsupportedNetworkError(problem)


def _problem(network: Network, axes: BatchAxes | None, order: int, place: int) -> str:
    """What is wrong with the derivatives at one of the places near x, or nothing."""
    size = float(network.x.detach().float().square().mean().sqrt()) or 1.0
    away, direction = (input_probes(network.x.shape[1:], place, range(len(network)), k, network.x) for k in range(2))
    network = network.moved(network.x + _AWAY_FROM_KINKS * size * away)
    w = parameter_probes(network.trainable, 0, 0, 0) if order == 2 else {}
    if axes is None:
        with _same_draws(network.x.device):
            slopes, change = _by_double_backward(network, direction, w, order)
    else:
        name, slopes, change = _by_rules(network, direction, w, axes)
        if name:
            return (
                f"parameter '{name}' is also used where no layer rule sees it (a derivative taken inside of forward, a "
                "scripted module, a custom autograd function)"
            )
    if network.x.dtype not in _STEP:  # too coarse for differences
        return ""

    def scores(x: Tensor) -> Tensor:
        with torch.no_grad():
            return _weighted(network(x.clone()))

    def gradients(x: Tensor) -> Tensor:
        return inner_products(w, dict(zip(w, _autograd(network, x))))

    step = _STEP[network.x.dtype] * size
    moving = ""
    if _differ(scores, network.x, direction, step, slopes):
        moving = "outputs"
    elif order == 2 and _differ(gradients, network.x, direction, step, change):
        moving = "gradients"
    return moving and (
        f"expected the {moving} of {type(network.model).__name__} to move with x as their derivative says, but a part of "
        f"that derivative is cut off{_culprit(network)}; take it away in eval mode"
    )


def _by_rules(network: Network, direction: Tensor, w: dict[str, Tensor], axes: BatchAxes) -> tuple[str, Tensor, Tensor]:
    """The derivatives along a direction, of the outputs (N,) and of ⟨w, gradient⟩ by parameter, in input space.

    Before them, the name of a parameter whose gradient is another one than autograd's, or nothing.
    """
    with forward_ad.dual_level(), _same_draws(network.x.device):
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
    with _same_draws(network.x.device):
        expected = dict(zip(network.trainable, _autograd(network, network.x)))
    scale = sum(float(g.abs().square().sum()) for g in expected.values() if g is not None) ** 0.5
    wrong = ""
    for name, gradient in expected.items():
        traced = totals.get(name, {}).get(False, torch.zeros(1, device=network.x.device))
        if gradient is not None and _apart(traced, gradient, scale):
            wrong = wrong or name
    changes = inner_products(w, {name: totals.get(name, {}).get(True) for name in w})
    return wrong, torch.zeros(len(network)) if slopes is None else slopes.detach(), changes


def _apart(traced: Tensor, gradient: Tensor, scale: float) -> bool:
    """Whether a gradient is another one than autograd's by more than rounding; ``scale`` is the norm over all parameters."""
    difference, norm = (traced - gradient).float(), gradient.float().norm()
    if gradient.dtype in _ROUNDING:
        return bool(difference.norm() > _ROUNDING[gradient.dtype] * (norm + 1e-3 * scale))
    allowed = norm + _ALL_ROUNDING * scale
    along = (difference * gradient.float()).sum().abs()
    return bool(along > _ROUNDING_ALONG * allowed * norm or difference.norm() > allowed)


def _by_double_backward(network: Network, direction: Tensor, w: dict[str, Tensor], order: int) -> tuple[Tensor, Tensor]:
    """The same derivatives by double backward."""
    x, output = network.differentiable()
    (found,) = derivatives(_weighted(output).sum(), [x], create_graph=order == 2)
    slope = torch.zeros_like(x) if found is None else found
    parts = derivatives((slope * direction).sum(), list(network.trainable.values())) if w else ()
    changes = inner_products(w, dict(zip(w, parts))) if w else x.new_zeros(0)
    return (slope.detach() * direction).reshape(len(network), -1).sum(1), changes


def _weighted(output: Tensor) -> Tensor:
    """A score of each sample, shape (N,), to which the outputs contribute differently: probabilities sum to a constant."""
    return output @ torch.linspace(1, 2, output.shape[1]).to(output)


def _autograd(network: Network, x: Tensor) -> tuple[Tensor | None, ...]:
    return derivatives(_weighted(network(x.clone())).sum(), list(network.trainable.values()))


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
    size, distance = fine.norm(), (fine - derivative.to(fine)).norm()
    # a function that does not move at all between the steps is rounded, and its derivative a surrogate by intent
    return bool(size > 0 and distance > _DIFFER[x.dtype] * size and (coarse - fine).norm() <= _AGREE * distance)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Switches TF32 off, whose rounding on a GPU is taken for a part that is missing."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in _PRECISIONS]
    for owner, name, full in _PRECISIONS:
        setattr(owner, name, full)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


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
        self.under_no_grad = False

    def on_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        live = any(tensor.requires_grad for tensor in tensors_in((args, kwargs)))
        result = func(*args, **kwargs)
        cut = live and not any(tensor.requires_grad for tensor in tensors_in(result))
        if not self.found and cut and (func in _DETACHING or not torch.is_grad_enabled()):
            self.under_no_grad = not torch.is_grad_enabled()
            self.found = f": {self.place(func)}" + " under torch.no_grad" * self.under_no_grad
        return result


_DETACHING = {Tensor.detach, Tensor.detach_, Tensor.data.__get__}  # type: ignore[attr-defined]


def _culprit(network: Network) -> str:
    """Names the call that cuts a derivative off, as far as it can be seen."""
    cuts = _Cuts(network)
    with cuts.running():
        _, output = network.differentiable()
    custom = next(_custom_functions(output), "")  # whose own calls are under no_grad too
    return (
        (custom if cuts.under_no_grad else "") or cuts.found or custom or " (a custom autograd function, a scripted module)"
    )


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

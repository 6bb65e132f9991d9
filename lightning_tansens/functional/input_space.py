"""Input-space probes: ‖S v‖² of each sample, with one forward-mode and one reverse pass for the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional.contributions import Contribution, squared_norm
from lightning_tansens.functional.layer_rules import EmbeddingRule, Rule
from lightning_tansens.functional.layout import Layout, find_layout
from lightning_tansens.functional.network import Network
from lightning_tansens.functional.operators import OPERATORS, opened
from lightning_tansens.functional.outputs import Outputs, output_weightings
from lightning_tansens.functional.tracing import CallTracer, tensors_in


@dataclass
class LayerCall:
    """One call of an operator with trainable parameters, as the forward pass made it.

    Attributes:
        features: The operator's input a, a dual tensor.
        version: Its version at the call, to notice when it is overwritten.
        tangent: The derivative of the operator's output.
        edge: Where the gradient δ with respect to the operator's output is found.
        shape: The shape of the operator's output.
        rules: For each parameter, by name, how it enters.

    """

    features: Tensor
    version: int
    tangent: Tensor | None
    edge: GradientEdge
    shape: torch.Size
    rules: dict[str, Rule]


@dataclass
class Trace:
    """A forward pass: its output and the calls that have trainable parameters.

    Attributes:
        output: Shape (N, C).
        calls: The calls in their order.
        uncovered: Where a trainable parameter is used in a way that has no rule, by the parameter's name.

    """

    output: Tensor
    calls: list[LayerCall]
    uncovered: dict[str, str] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[tuple[str, ...], ...]:
        """The parameters of each call."""
        return tuple(tuple(call.rules) for call in self.calls)


@dataclass(frozen=True)
class Layouts:
    """Where the samples are in the tensors of each call of a forward pass.

    Attributes:
        layouts: One for each call.
        signature: The parameters of each call, to notice a forward pass that takes another way.

    """

    layouts: tuple[Layout, ...]
    signature: tuple[tuple[str, ...], ...]


def input_space_blocks(network: Network, probes: Tensor, outputs: Outputs, layouts: Layouts) -> dict[str, Tensor]:
    r"""Computes ‖S_p v‖² for each trainable parameter p, with one probe v for each sample.

    .. math:: S v = \frac{d}{d\varepsilon} \nabla_\theta (u \cdot f)(x + \varepsilon v), \qquad
        E\|S v\|^2 = \|S\|_F^2 \;\text{ for } E v v^T = I

    One forward-mode pass carries ȧ along, one reverse pass returns δ with its own derivative δ̇; for a linear layer
    ‖δ̇ ⊗ a + δ ⊗ ȧ‖² follows without the per-sample gradient. In piecewise-linear networks δ̇ is absent.

    Args:
        network: The network on a batch, in eval mode.
        probes: v, of the shape of x.
        outputs: "sum", "each" or a weighting.
        layouts: For each call where the samples are, from :func:`find_layouts`.

    Returns:
        By the parameter's name, shape (N, U).

    Raises:
        UnsupportedNetworkError: If the forward pass takes another way than the one whose layouts were found.

    """
    with forward_ad.dual_level():
        trace = run_traced(network, probes)
        if trace.signature != layouts.signature:
            raise UnsupportedNetworkError(
                f"expected {type(network.model).__name__} to call the same layers for every batch, but its forward pass "
                "depends on the data; use method='parameter_space'"
            )
        columns: list[dict[str, Tensor]] = []
        weightings = output_weightings(outputs, trace.output)
        for row, weighting in enumerate(weightings):
            scalar = (trace.output * weighting).sum()
            last = row == len(weightings) - 1
            columns.append(_blocks(trace, _gradients(trace, scalar, retain=not last), layouts.layouts, len(network)))
    return {name: torch.stack([column[name] for column in columns], 1) for name in columns[0]}


def find_layouts(network: Network) -> Layouts | str:
    """Finds where the samples are in each call's tensors, on three samples.

    Args:
        network: The network on at least one sample, in eval mode; the samples of a batch must be independent.

    Returns:
        The layouts, or the reason why the rules do not cover the network.

    """
    few = network.first_three()
    supports: list[list[Tensor]] = []
    for n in range(3):
        probes = torch.zeros_like(few.x)
        probes[n] = torch.randn(few.x[n].shape, generator=torch.Generator().manual_seed(n)).to(probes)
        with forward_ad.dual_level():
            trace = run_traced(few, probes)
            weighting = torch.linspace(1, 2, trace.output.shape[1]).to(trace.output)  # probabilities sum up to a constant
            gradients = _gradients(trace, (trace.output[n] * weighting).sum(), retain=False)
            supports.append([_support(call, gradient) for call, gradient in zip(trace.calls, gradients)])
    missing = _uncovered(few, trace) or _ambiguous(trace, gradients)
    if missing:
        return missing
    layouts = []
    for call, gradient, *of_samples in zip(trace.calls, gradients, *supports):
        layout = Layout() if gradient is None else find_layout(of_samples)
        if layout is None:
            return f"the samples cannot be told apart inside of the layer of {next(iter(call.rules))}"
        layouts.append(layout)
    return Layouts(tuple(layouts), trace.signature)


def run_traced(network: Network, probes: Tensor) -> Trace:
    """Runs the network on x + εv, inside a dual level, and records the calls that have trainable parameters."""
    tracer = _InputTracer(network)
    with torch.enable_grad(), tracer.running():
        x = network.x.clone().requires_grad_()
        output = network(forward_ad.make_dual(x, probes.to(x)).clone())  # the network may begin with an in-place call
    return Trace(output, tracer.calls, tracer.uncovered)


class _InputTracer(CallTracer):
    def __init__(self, network: Network) -> None:
        super().__init__(network.model)
        self._parameters = {id(parameter): name for name, parameter in network.trainable.items()}
        self.calls: list[LayerCall] = []
        self.uncovered: dict[str, str] = {}

    def on_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function = opened(func)
        if function is not None:
            with self:
                return function(*args, **kwargs)
        names = [self._parameters[id(tensor)] for tensor in tensors_in((args, kwargs)) if id(tensor) in self._parameters]
        if not names:
            return func(*args, **kwargs)
        operator = OPERATORS.get(func)
        found = operator(*args, **kwargs) if operator is not None else None
        if found is None:
            result = func(*args, **kwargs)
            if any(tensor.requires_grad for tensor in tensors_in((result,))):
                self.uncovered.update(dict.fromkeys(names, self.place(func)))
            return result
        rules = {self._parameters[id(p)]: rule for p, rule in found.rules if id(p) in self._parameters}
        if set(rules) != set(names):
            self.uncovered.update(dict.fromkeys(set(names) - set(rules), self.place(func)))
        result = found.result
        if result.requires_grad and rules:
            tangent = forward_ad.unpack_dual(result).tangent
            features = found.features
            edge = get_gradient_edge(result)
            self.calls.append(LayerCall(features, features._version, tangent, edge, result.shape, rules))
        return result


def _gradients(trace: Trace, scalar: Tensor, retain: bool) -> tuple[Tensor | None, ...]:
    if not trace.calls or not scalar.requires_grad:
        return (None,) * len(trace.calls)
    edges = [call.edge for call in trace.calls]
    return torch.autograd.grad(scalar, edges, retain_graph=retain, allow_unused=True)


def _blocks(
    trace: Trace, gradients: tuple[Tensor | None, ...], layouts: tuple[Layout, ...], samples: int
) -> dict[str, Tensor]:
    contributions: dict[str, list[Contribution]] = {}
    for call, gradient, layout in zip(trace.calls, gradients, layouts):
        if gradient is None:
            continue
        if call.features._version != call.version and any(rule.uses_input for rule in call.rules.values()):
            raise UnsupportedNetworkError(
                f"the input of the layer of {next(iter(call.rules))} is changed in place after the layer has used it; "
                "take inplace=True away there"
            )
        delta, delta_dot = _dual(gradient)
        features, features_dot = _dual(call.features)
        for name, rule in call.rules.items():
            terms = contributions.setdefault(name, [])
            if delta_dot is not None:
                terms.append(rule(features, delta_dot, layout, samples))
            if features_dot is not None and rule.uses_input:
                terms.append(rule(features_dot, delta, layout, samples))
    zero = trace.output.new_zeros(samples, dtype=torch.promote_types(trace.output.dtype, torch.float32))
    names = {name: None for call in trace.calls for name in call.rules}
    with torch.no_grad():
        return {n: squared_norm(contributions[n]) if contributions.get(n) else zero for n in names}


def _dual(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """Value and derivative, in at least single precision and without history."""
    value, tangent = forward_ad.unpack_dual(tensor)
    dtype = torch.promote_types(value.dtype, torch.float32)
    return value.detach().to(dtype), None if tangent is None else tangent.detach().to(dtype)


def _support(call: LayerCall, gradient: Tensor | None) -> Tensor:
    parts = [call.tangent, None if gradient is None else forward_ad.unpack_dual(gradient).primal]
    marked = [part != 0 for part in parts if part is not None]
    return torch.stack(marked).any(0) if marked else torch.zeros(call.shape, dtype=torch.bool)


def _uncovered(network: Network, trace: Trace) -> str:
    """Why the rules do not cover the network: a parameter that reaches the output past them, or nothing."""
    covered = {name for call in trace.calls for name in call.rules} - set(trace.uncovered)
    with torch.enable_grad():
        output = network(network.x.clone())
        names, parameters = zip(*network.trainable.items()) if network.trainable else ((), ())
        gradients: Iterator[Tensor | None] = iter(())
        if output.requires_grad:
            gradients = iter(torch.autograd.grad(output.sum(), parameters, allow_unused=True))
    for name, gradient in zip(names, gradients):
        if gradient is not None and name not in covered:
            place = trace.uncovered.get(name)
            return f"there is no layer rule for parameter '{name}'" + (f" in {place}" if place else "")
    return ""


def _ambiguous(trace: Trace, gradients: tuple[Tensor | None, ...]) -> str:
    """Names a table that is both looked up in and multiplied with on the way to the output, or nothing."""
    looked_up: dict[str, bool] = {}
    for call, gradient in zip(trace.calls, gradients):
        for name, rule in call.rules.items() if gradient is not None else ():
            if looked_up.setdefault(name, isinstance(rule, EmbeddingRule)) != isinstance(rule, EmbeddingRule):
                return f"there is no layer rule for parameter '{name}', which is used both as a table and otherwise"
    return ""

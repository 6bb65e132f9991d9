"""Input-space probes: ‖S v‖² of each sample, with one forward-mode and one reverse pass for the whole batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.memory import Blocks, in_micro_batches
from lightning_tansens.tangent.network import Network, Weightings, derivatives, output_weightings
from lightning_tansens.tangent.operators.layer_rules import Contribution, Rule, Signs, squared_norm
from lightning_tansens.tangent.operators.registry import operator_of
from lightning_tansens.tangent.probes.batch_axis import BatchAxes, BatchAxis
from lightning_tansens.tangent.probes.vectors import Projection, input_probes
from lightning_tansens.tangent.tracing import CallTracer, tensors_in

#: Switches the watching of torch functions off, which takes a microsecond for each: in our own code it would see thousands.
_untraced = torch._C.DisableTorchFunction


@dataclass
class LayerCall:
    """One call of an operator with trainable parameters, as the forward pass made it."""

    features: Tensor  # the operator's input a, a dual tensor
    version: int  # its version at the call, to notice when it is overwritten
    tangent: Tensor | None  # the derivative of the operator's output
    edge: GradientEdge  # where the gradient δ with respect to the operator's output is found
    shape: torch.Size  # the shape of the operator's output
    rules: dict[str, Rule]  # how each parameter enters, by name
    owner: Tensor | None  # what keeps the edge's node alive, where the edge itself does not


@dataclass
class Trace:
    """A forward pass: its output and the calls that have trainable parameters."""

    output: Tensor  # shape (N, C)
    calls: list[LayerCall]
    uncovered: dict[str, str] = field(default_factory=dict)  # where a parameter is used without a rule, by its name

    @property
    def signature(self) -> tuple[tuple[str, ...], ...]:
        """The parameters of each call."""
        return tuple(tuple(call.rules) for call in self.calls)

    @property
    def dims(self) -> tuple[tuple[int, int], ...]:
        """The numbers of dimensions of each call's input and output."""
        return tuple((call.features.dim(), len(call.shape)) for call in self.calls)


def input_space_blocks(
    network: Network, probes: Tensor, outputs: Weightings, axes: BatchAxes, projection: Projection | None = None
) -> dict[str, Tensor]:
    r"""Computes ‖S_p v‖² for each trainable parameter p, by name, with one probe v for each sample, shape (N, U).

    .. math:: S v = \frac{d}{d\varepsilon} \nabla_\theta (u \cdot f)(x + \varepsilon v), \qquad
        E\|S v\|^2 = \|S\|_F^2 \;\text{ for } E v v^T = I

    One forward-mode pass carries ȧ along, one reverse pass returns δ with its own derivative δ̇; for a linear layer ‖δ̇ ⊗ a
    + δ ⊗ ȧ‖² follows without the per-sample gradient. In piecewise-linear networks δ̇ is absent. With a projection, random
    combinations of a weight's rows take the place of expensive norms.

    Raises:
        UnsupportedNetworkError: If the forward pass takes another way than the one whose axes were found.
    """
    with forward_ad.dual_level():
        trace = run_traced(network, probes)
        squeezed = len(network) == 1 and trace.dims != axes.dims
        if trace.signature != axes.signature or (trace.dims != axes.dims and not squeezed):
            raise UnsupportedNetworkError(
                f"expected {type(network.model).__name__} to call the same layers for every batch, but its forward pass "
                "depends on the data; use method='parameter_space'"
            )
        columns: list[dict[str, Tensor]] = []
        weightings = output_weightings(outputs, trace.output)
        for row, weighting in enumerate(() if squeezed else weightings):
            scalar = (trace.output * weighting).sum()
            last = row == len(weightings) - 1
            gradients = gradients_of(trace, scalar, retain=not last)
            with _untraced():
                columns.append(_blocks(trace, gradients, axes.axes, len(network), projection))
    if squeezed:  # the network squeezes a batch of one away
        twice = None if projection is None else replace(projection, positions=2 * [*projection.positions])
        blocks = input_space_blocks(network.part([0, 0]), torch.cat([probes, probes]), outputs, axes, twice)
        return {name: values[:1] for name, values in blocks.items()}
    return {name: torch.stack([column[name] for column in columns], 1) for name in columns[0]}


def estimate_in_input_space(
    network: Network,
    outputs: Weightings,
    axes: BatchAxes,
    num_probes: int,
    seed: int,
    positions: Sequence[int],
    sample_bytes: int = 0,
) -> Blocks:
    """Averages ‖S_p v‖² over independent input-space probes of each sample; by parameter, shape (N, U)."""

    def measure(part: Network, places: slice) -> Blocks:
        shape, own = part.x.shape[1:], positions[places]
        names = tuple(part.trainable)
        draws = (
            (input_probes(shape, seed, own, probe, part.x), Projection(seed, own, probe, names))
            for probe in range(num_probes)
        )
        found = [input_space_blocks(part, v, outputs, axes, projection) for v, projection in draws]
        return {name: torch.stack([blocks[name] for blocks in found]).mean(0) for name in found[0]}

    return in_micro_batches(network, measure, sample_bytes)


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
        opened = operator_of(func).opened
        if opened is not None:
            with self:
                return opened(*args, **kwargs)
        names = [self._parameters[id(tensor)] for tensor in tensors_in((args, kwargs)) if id(tensor) in self._parameters]
        if not names:
            return _call(func, args, kwargs)
        with _untraced():
            return self._measured(func, args, kwargs, names)

    def _measured(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str]
    ) -> Any:
        rule = operator_of(func).rule
        if any(tensor.is_complex() for tensor in tensors_in((args, kwargs))):
            rule = None  # their gradients would need the conjugates
        found = None if rule is None else rule(*args, **kwargs)
        if found is None:
            result = _call(func, args, kwargs)
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
            # in torch 2.8 and before, an edge does not own the node of a custom function; one element of its output does,
            # at less memory than the output itself
            owner = None if hasattr(edge, "ownership_token") else result.flatten()[:1].clone()
            self.calls.append(LayerCall(features, features._version, tangent, edge, result.shape, rules, owner))
        return result


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a torch function; the parts of one that is written in Python are substituted one by one."""
    substitute = operator_of(func).substitute
    if substitute is None and isinstance(func, FunctionType):
        return func(*args, **kwargs)
    with _untraced():
        return (substitute or func)(*args, **kwargs)


def gradients_of(trace: Trace, scalar: Tensor, retain: bool) -> tuple[Tensor | None, ...]:
    """Returns δ for each call, a dual tensor within a dual level; None where the output does not depend on it."""
    with _untraced():
        return derivatives(scalar, [call.edge for call in trace.calls], retain_graph=retain)


def _blocks(
    trace: Trace,
    gradients: tuple[Tensor | None, ...],
    axes: tuple[BatchAxis, ...],
    samples: int,
    projection: Projection | None,
) -> dict[str, Tensor]:
    contributions: dict[str, list[Contribution]] = {}
    for name, term in contributions_of(trace, gradients, axes, samples):
        contributions.setdefault(name, []).append(term)
    zero = trace.output.new_zeros(samples, dtype=torch.promote_types(trace.output.dtype, torch.float32))
    names = {name: None for call in trace.calls for name in call.rules}
    with torch.no_grad():
        return {
            name: squared_norm(contributions[name], _signs(projection, name, zero)) if contributions.get(name) else zero
            for name in names
        }


def contributions_of(
    trace: Trace, gradients: Sequence[Tensor | None], axes: Sequence[BatchAxis], samples: int, derivative: bool = True
) -> Iterator[tuple[str, Contribution]]:
    """Yields each parameter's contributions to the derivative of its gradient along the probe, or to the gradient itself."""
    for call, gradient, axis in zip(trace.calls, gradients, axes):
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
            if not derivative:
                yield name, rule(features, delta, axis, samples)
                continue
            if delta_dot is not None:
                yield name, rule(features, delta_dot, axis, samples)
            if features_dot is not None and rule.uses_input:
                yield name, rule.along(features_dot, delta, axis, samples)


def _signs(projection: Projection | None, name: str, like: Tensor) -> Signs | None:
    return None if projection is None else lambda rows: projection.signs(name, rows, like)


def _dual(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """Value and derivative, in at least single precision and without history."""
    value, tangent = forward_ad.unpack_dual(tensor)
    dtype = torch.promote_types(value.dtype, torch.float32)
    return value.detach().to(dtype), None if tangent is None else tangent.detach().to(dtype)

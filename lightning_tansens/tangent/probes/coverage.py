"""Whether the layer rules cover a network, and where its samples are in the tensors inside."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.network import Network, derivatives
from lightning_tansens.tangent.operators.layer_rules import EmbeddingRule
from lightning_tansens.tangent.probes.batch_axis import BatchAxes, BatchAxis, find_batch_axis
from lightning_tansens.tangent.probes.input_space import LayerCall, Trace, gradients_of, run_traced

#: On how many samples of a batch the layers are compared with those on its first samples.
_MOST_SAMPLES = 32


def find_batch_axes(network: Network, covered: bool = False) -> BatchAxes:
    """Finds where the samples are in each call's tensors, on three samples.

    ``covered`` says that each trainable parameter is known to have a rule. Raises UnsupportedNetworkError if the rules do
    not cover the network.
    """
    few = network.first_three()
    supports: list[list[Tensor]] = []
    for n in range(3):
        probes = torch.zeros_like(few.x)
        probes[n] = torch.randn(few.x[n].shape, generator=torch.Generator().manual_seed(n)).to(probes)
        with forward_ad.dual_level():
            trace = run_traced(few, probes)
            weighting = torch.linspace(1, 2, trace.output.shape[1]).to(trace.output)  # probabilities sum up to a constant
            gradients = gradients_of(trace, (trace.output[n] * weighting).sum(), retain=False)
            supports.append([_support(call, gradient) for call, gradient in zip(trace.calls, gradients)])
    missing = ("" if covered else _uncovered(few, trace)) or _ambiguous(trace, gradients)
    if missing:
        raise UnsupportedNetworkError(missing)
    axes = []
    for call, gradient, *of_samples in zip(trace.calls, gradients, *supports):
        axis = BatchAxis() if gradient is None else find_batch_axis(of_samples)
        if axis is None:
            name = next(iter(call.rules))
            raise UnsupportedNetworkError(f"the samples cannot be told apart inside of the layer of {name}")
        axes.append(axis)
    return BatchAxes(tuple(axes), trace.signature, trace.dims)


def refuse_other_layers(network: Network, axes: BatchAxes) -> None:
    """Raises UnsupportedNetworkError for a network that calls other layers for a whole batch than for its first samples."""
    if len(network) > 3:
        part = network.part(slice(0, _MOST_SAMPLES))
        with forward_ad.dual_level():
            if run_traced(part, torch.zeros_like(part.x)).signature != axes.signature:
                raise UnsupportedNetworkError("the layers that are called depend on the data")


def _support(call: LayerCall, gradient: Tensor | None) -> Tensor:
    parts = [call.tangent, None if gradient is None else forward_ad.unpack_dual(gradient).primal]
    marked = [part != 0 for part in parts if part is not None]
    return torch.stack(marked).any(0) if marked else torch.zeros(call.shape, dtype=torch.bool)


def _uncovered(network: Network, trace: Trace) -> str:
    """Why the rules do not cover the network: a parameter that reaches the output past them, or nothing."""
    covered = {name for call in trace.calls for name in call.rules} - set(trace.uncovered)
    parameters = network.trainable
    gradients = derivatives(network(network.x.clone()).sum(), list(parameters.values()))
    for name, gradient in zip(parameters, gradients):
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

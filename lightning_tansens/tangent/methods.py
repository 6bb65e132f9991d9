"""Which method measures a network: the closed form where there is one, otherwise the better kind of random probe."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_tansens.checks import check_choice, check_counts
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.closed_form.chain import Chain
from lightning_tansens.tangent.closed_form.exact import verified_chain
from lightning_tansens.tangent.closed_form.links import LinearLink
from lightning_tansens.tangent.memory import bytes_per_sample
from lightning_tansens.tangent.network import Network
from lightning_tansens.tangent.probes.batch_axis import BatchAxes
from lightning_tansens.tangent.probes.coverage import find_batch_axes

#: What a user asks for. "exact" is the closed form, or forward-mode passes over the input where there is none;
#: "stochastic" the better kind of probe; "auto" the closed form where it is affordable, else "stochastic".
Method = Literal["auto", "exact", "stochastic", "input_space", "parameter_space"]

Way = Literal["closed_form", "forward_mode", "input_space", "parameter_space"]

#: "auto" takes the closed form up to this cost, in multiples of a training step's multiplications.
AFFORDABLE = 32.0

#: The number of choices that are remembered for a network.
REMEMBERED = 64


@dataclass(frozen=True)
class Choice:
    """How a network is measured, and why.

    Attributes:
        way: The way that is taken.
        reason: Why, in a sentence.
        axes: What input-space probes need to know about the network.
        sample_bytes: What one sample takes in memory, about.

    """

    way: Way
    reason: str
    axes: BatchAxes | None = None
    sample_bytes: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """The choice and its reason."""
        return f"{self.way} ({self.reason})"


_choices: WeakKeyDictionary[nn.Module, dict[object, Choice]] = WeakKeyDictionary()


def choose(network: Network, method: Method = "auto") -> Choice:
    """Chooses the way to measure a network; the same network at the same input shape is examined once.

    Args:
        network: The network on a batch of at least one sample, in eval mode.
        method: What the user asks for.

    Raises:
        UnsupportedNetworkError: If the network cannot be measured in the way that was asked for.

    """
    known = _choices.setdefault(network.model, {})
    key = (method, network.wrt, network.output, network.x.shape[1:], network.x.dtype, tuple(network.trainable))
    if key not in known:
        if len(known) >= REMEMBERED:  # a new lambda in every call is another key
            known.clear()
        known[key] = replace(_examine(network, method), sample_bytes=bytes_per_sample(network))
    return known[key]


def check_probes(method: object, num_probes: object) -> None:
    """Refuses what is no method or no number of probes.

    Raises:
        ValueError: If there is no such method, or the number is no positive integer.

    """
    check_choice("method", method, get_args(Method))
    check_counts(num_probes=num_probes)


def _examine(network: Network, method: Method) -> Choice:
    _refuse_batch_statistics(network.model)
    _refuse_mixed_samples(network)
    if method == "parameter_space":
        return Choice("parameter_space", "as asked for")
    if method in ("auto", "exact"):
        try:
            chain = verified_chain(network.part(slice(0, 1)))
        except UnsupportedNetworkError as error:
            if method == "exact":
                passes = f"{network.x[0].numel()} passes a sample, each about a training step"
                return Choice("forward_mode", f"{_no_closed_form(error)}; {passes}", _axes_or_none(network))
            no_closed_form = f"{_no_closed_form(error)}; "
        else:
            cost = closed_form_cost(chain)
            if method == "exact" or cost <= AFFORDABLE:
                return Choice("closed_form", f"a piecewise-linear chain; it costs about {_steps(cost)}")
            no_closed_form = f"the closed form would cost about {_steps(cost)}; "
    else:
        no_closed_form = ""
    found = _axes(network)
    if isinstance(found, BatchAxes):
        return Choice("input_space", f"{no_closed_form}every parameter has a layer rule", found)
    if method == "input_space":
        raise UnsupportedNetworkError(f"method='input_space': {found}; use method='parameter_space', which needs no rules")
    return Choice("parameter_space", f"{no_closed_form}{found}")


def _axes(network: Network) -> BatchAxes | str:
    try:
        return find_batch_axes(network)
    except NotImplementedError as error:
        return f"forward-mode differentiation: {str(error).splitlines()[0]}"


def _axes_or_none(network: Network) -> BatchAxes | None:
    found = _axes(network)
    return found if isinstance(found, BatchAxes) else None


def closed_form_cost(chain: Chain) -> float:
    """Multiplications of the closed form a sample, over those of a training step (six for each weight)."""
    weights = [link.weight for link in chain.links if isinstance(link, LinearLink)]
    if not weights:
        return 0.0
    columns = min(weights[0].shape)
    pushes = sum(weight.numel() for weight in weights[1:-1]) * columns
    return pushes / (3 * sum(weight.numel() for weight in weights))


def _refuse_batch_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise UnsupportedNetworkError(
                f"expected the samples of a batch to be independent in eval mode, but module '{name}' "
                f"({type(module).__name__}) normalises by the batch, because it has track_running_stats=False, which mixes "
                "them; use track_running_stats=True"
            )


def _refuse_mixed_samples(network: Network) -> None:
    few = network.first_three()
    x = few.x.clone().requires_grad_()
    with torch.enable_grad():
        output = few(x.clone())
        weighting = torch.linspace(1, 2, output.shape[1], dtype=output.dtype, device=output.device)
        if not output.requires_grad:
            return
        (gradient,) = torch.autograd.grad((output[0] * weighting).sum(), x, allow_unused=True)
    if gradient is not None and gradient[1:].any():
        raise UnsupportedNetworkError(
            f"expected the samples of a batch to be independent in eval mode, but {type(network.model).__name__} mixes "
            "them; use layers that do not (BatchNorm with track_running_stats=True)"
        )


def _no_closed_form(error: UnsupportedNetworkError) -> str:
    return "no closed form for " + str(error).split(" cannot be measured exactly")[0].split("; ")[0]


def _steps(cost: float) -> str:
    return f"{cost:.0f} training steps" if cost >= 1.5 else "a training step"

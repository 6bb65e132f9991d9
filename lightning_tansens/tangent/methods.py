"""Chooses the method for a network: the closed form where there is one, otherwise the better kind of random probe."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_tansens.checks import check_choice, check_counts
from lightning_tansens.errors import TooLargeError, UnsupportedNetworkError
from lightning_tansens.tangent.closed_form.chain import Chain
from lightning_tansens.tangent.closed_form.exact import multiplications, verified_chain
from lightning_tansens.tangent.closed_form.links import LinearLink
from lightning_tansens.tangent.memory import bytes_per_sample, out_of_memory, portions, trained_alone
from lightning_tansens.tangent.network import Network, derivatives
from lightning_tansens.tangent.operators.registry import revision
from lightning_tansens.tangent.probes.batch_axis import BatchAxes
from lightning_tansens.tangent.probes.coverage import find_batch_axes, refuse_other_layers
from lightning_tansens.tangent.verification import verify

#: What a user asks for. "exact" is the closed form, or forward-mode passes over the input where there is none;
#: "stochastic" the better kind of probe; "auto" the closed form where it is affordable, else "stochastic".
Method = Literal["auto", "exact", "stochastic", "input_space", "parameter_space"]

Way = Literal["closed_form", "forward_mode", "input_space", "parameter_space"]

#: "auto" takes the closed form up to this cost, in multiples of a training step's multiplications.
AFFORDABLE = 32.0

#: What the closed form takes besides its multiplications (a trace, slopes, norms, small products), in training steps: 3 to 6
#: were measured on a CPU with 3,072 inputs, for widths of 64 to 512 and depths of 2 to 32 (docs/results/growth.csv).
FIXED_STEPS = 4.0

#: The number of choices that are remembered for a network.
REMEMBERED = 64

#: Why some ways are not taken where weights are gathered one by one.
_TOO_LARGE = "needs a gradient of all weights at once, which is larger than what is allowed of them"

#: The number of samples on which a network is examined.
_EXAMINED = 3

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Choice:
    """How a network is measured, and why."""

    way: Way  #: The way that is taken.
    reason: str  #: Why, in a sentence.
    axes: BatchAxes | None = None  #: What input-space probes need to know about the network.
    sample_bytes: int = field(default=0, compare=False)  #: What one sample takes in memory, about.

    def __str__(self) -> str:
        """The choice and its reason."""
        return f"{self.way} ({self.reason})"


_choices: WeakKeyDictionary[nn.Module, dict[object, tuple[int, Any]]] = WeakKeyDictionary()


def share_choices(model: nn.Module, choices: dict[object, tuple[int, Any]]) -> None:
    """Lets copies of a network be examined once: what was chosen for one is known for the next that gets the same dict."""
    _choices[model] = choices


def choose(network: Network, method: Method = "auto") -> Choice:
    """Chooses the way to measure a network in eval mode; the same network at the same input shape is examined once.

    It is examined on the first three samples, and once more when the batch at hand has more of them than the one before.
    Raises UnsupportedNetworkError if the network cannot be measured in the way that was asked for.
    """
    return _remembered(network, method, lambda: replace(_examine(network, method), sample_bytes=bytes_per_sample(network)))


def refuse_mixed_samples(network: Network, slopes: bool = False) -> None:
    """Raises UnsupportedNetworkError for a network whose samples depend on one another; :func:`choose` says how often.

    With ``slopes`` it refuses one whose derivative with respect to x is cut off in reverse mode, too.
    """

    def examine() -> None:
        _refuse_batch_statistics(network.model)
        _refuse_mixed_samples(network)
        if slopes:
            verify(network.first_three(), None, order=1)

    _remembered(network, f"slopes: {slopes}", examine)


def leave_input_space(network: Network, method: Method, reason: str) -> Choice:
    """Chooses another way for a network that input space has failed for, and remembers it."""
    choice = replace(choose(network, "parameter_space"), reason=reason)
    _choices[network.model][_key(network, method)] = (_EXAMINED, choice)
    return choice


def _remembered(network: Network, method: str, examine: Callable[[], _Found]) -> _Found:
    known = _choices.setdefault(network.model, {})
    key, samples = _key(network, method), min(len(network), _EXAMINED)
    if key not in known or known[key][0] < samples:
        if len(known) >= REMEMBERED:  # a new lambda in every call is another key
            known.clear()
        known[key] = (samples, examine())
    found: _Found = known[key][1]
    return found


def _key(network: Network, method: str) -> object:
    x = network.x
    return method, network.wrt, network.output, x.shape[1:], x.dtype, tuple(network.trainable), revision()


def check_probes(method: object, num_probes: object) -> None:
    """Raises ValueError unless the method exists and the number of probes is a positive integer."""
    check_choice("method", method, get_args(Method))
    check_counts(num_probes=num_probes)


def _examine(network: Network, method: Method) -> Choice:
    _refuse_batch_statistics(network.model)
    _refuse_mixed_samples(network)
    few = network.first_three()
    no_closed_form = ""
    in_parts = len(portions(network.trainable)) > 1
    if in_parts and method in ("exact", "parameter_space"):
        raise TooLargeError(f"{method} {_TOO_LARGE}")
    if in_parts:
        no_closed_form = f"the closed form {_TOO_LARGE}; "
    elif method in ("auto", "exact"):
        chain = _attempt("the closed form", lambda: verified_chain(few))
        if isinstance(chain, str):
            no_closed_form = f"no closed form for {chain.split(' cannot be measured exactly')[0].split('; ')[0]}; "
        elif method == "exact" or (cost := closed_form_cost(chain)) <= AFFORDABLE:
            return Choice("closed_form", f"a piecewise-linear chain; it costs about {_steps(closed_form_cost(chain))}")
        else:
            no_closed_form = f"the closed form would cost about {_steps(cost)}; "
    axes = "as asked for" if method == "parameter_space" else _attempt("input space", lambda: _axes(network))
    if isinstance(axes, str):
        if in_parts:
            raise TooLargeError(f"{axes}, and parameter_space {_TOO_LARGE}")
        if method == "input_space":
            raise UnsupportedNetworkError(
                f"method='input_space': {axes}; use method='parameter_space', which needs no rules"
            )
        verify(few, None)
    if method == "exact":
        passes = f"{network.x[0].numel()} passes a sample, each about a training step"
        return Choice("forward_mode", f"{no_closed_form}{passes}", None if isinstance(axes, str) else axes)
    if isinstance(axes, str):
        return Choice("parameter_space", f"{no_closed_form}{axes} (3 to 8 training steps)")
    rules = "every parameter has a layer rule (1 to 2 training steps)"
    return Choice("input_space", f"{no_closed_form}{rules}", axes)


def _axes(network: Network) -> BatchAxes:
    """Finds where the samples are in each layer, in a network that can be measured in input space."""
    few, trainable = network.first_three(), network.trainable
    parts = portions(trainable)
    for part in parts if len(parts) > 1 else ():
        with trained_alone(trainable, part):
            verify(few, find_batch_axes(few))
    axes = find_batch_axes(few, covered=len(parts) > 1)
    if len(parts) == 1:
        verify(few, axes)
    refuse_other_layers(network, axes)
    return axes


def _attempt(name: str, way: Callable[[], _Found]) -> _Found | str:
    """Tries a way; returns why it fails, whatever the error, unless memory runs out."""
    try:
        return way()
    except UnsupportedNetworkError as error:
        return str(error)
    except NotImplementedError as error:
        return f"forward-mode differentiation: {str(error).splitlines()[0]}"
    except Exception as error:
        if out_of_memory(error):
            raise
        first = (str(error).splitlines() or [""])[0]
        return f"{name} fails with {type(error).__name__}: {first[:200]}"


def closed_form_cost(chain: Chain) -> float:
    """Returns the multiplications of the closed form per sample, relative to a training step's (three for each weight)."""
    weights = [link.weight for link in chain.links if isinstance(link, LinearLink)]
    return multiplications(chain) / (3 * sum(weight.numel() for weight in weights)) if weights else 0.0


def _refuse_batch_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise UnsupportedNetworkError(
                f"expected the samples of a batch to be independent in eval mode, but module '{name}' "
                f"({type(module).__name__}) normalises by the batch, because it has track_running_stats=False, which mixes "
                "them; use track_running_stats=True"
            )


def _refuse_mixed_samples(network: Network) -> None:
    few, mixed = network.first_three(), False
    problem: Exception | None = None
    try:
        x, output = few.differentiable()
        weighting = torch.linspace(1, 2, output.shape[1], dtype=output.dtype, device=output.device)
        (gradient,) = derivatives((output[0] * weighting).sum(), [x])
        mixed = gradient is not None and bool(gradient[1:].any())
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if few.x.dim() > 1:
            raise
        problem = error
    if few.x.dim() == 1 and (problem or mixed):
        raise ValueError(
            f"inputs: expected a batch of shape (N, ...), but got shape {tuple(network.x.shape)}; add the batch dimension"
        ) from problem
    if mixed:
        raise UnsupportedNetworkError(
            f"expected the samples of a batch to be independent in eval mode, but {type(network.model).__name__} mixes "
            "them; use layers that do not (BatchNorm with track_running_stats=True)"
        )


def _steps(cost: float) -> str:
    return f"{FIXED_STEPS + cost:.0f} training steps"

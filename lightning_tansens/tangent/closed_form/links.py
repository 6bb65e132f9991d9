"""The links of a piecewise-linear chain, linear maps and elementwise slopes, and how operators become links.

A builder takes what is known about the network's tensors, the function, its input (before the call), its result and the
call's other arguments. It returns the link, None where the units stay as they are, or raises where the call has no closed
form. Index letters, here and in the einsum strings: n sample, u output weighting, i unit after the link, j unit before it,
d input coordinate (or column of a Jacobian's short form).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.closed_form.jacobian import Jacobian
from lightning_tansens.tangent.tracing import tensors_in


@dataclass(frozen=True)
class LinearLink:
    """A linear map h = W a + b, W of shape (I, J); the bias does not matter, as ∂²f/∂b∂x = 0 almost everywhere."""

    weight: Tensor
    parameter: str | None = None  # the weight's name if it is trainable

    def pull(self, delta: Tensor) -> Tensor:
        """Pulls δ (N, U, I) back through the map: Wᵀ δ, shape (N, U, J)."""
        return delta @ self.weight

    def pull_along(self, delta: Tensor, direction: Tensor) -> Tensor:
        """The derivative of :meth:`pull` along a direction of the weight, shape (N, U, J)."""
        return delta @ direction.to(delta)

    def push(self, jacobian: Jacobian, rows: Tensor | None) -> Jacobian:
        """Pushes the Jacobian of a through the map: W J; ``rows`` (N, I) marks the units that matter later."""
        return jacobian.linear(self.weight, rows)

    def samples(self, part: slice) -> LinearLink:
        """The link for some of the samples."""
        return self

    def block(self, delta: Tensor, jacobian: Jacobian) -> Tensor:
        """Squared norm of ∂²f/∂W∂x = δ ⊗ J, which is ‖δ‖²·‖J‖², shape (N, U)."""
        return delta.square().sum(-1) * jacobian.squared_norm().unsqueeze(-1)


@dataclass(frozen=True)
class Gain:
    """A trainable parameter p of an elementwise link, with ∂²a_i/∂p∂h_i = c_i."""

    parameter: str
    coefficients: Tensor  # c, shape (I,) or (N, I)
    sharing: Literal["unit", "layer"]  # whether each unit has an entry of its own (BatchNorm's γ), or all share one (PReLU)


@dataclass(frozen=True)
class ElementwiseLink:
    """A piecewise-linear function of each unit by itself: a_i = s_i h_i + const."""

    slopes: Tensor  # s, shape (N, I), or (I,) where all samples share them (a BatchNorm in eval mode)
    gain: Gain | None = None  # the trainable parameter that the slopes depend on, if there is one

    @property
    def parameter(self) -> str | None:
        """The name of the trainable parameter, if there is one."""
        return self.gain.parameter if self.gain else None

    def pull(self, delta: Tensor) -> Tensor:
        """Pulls δ (N, U, I) back: s ∘ δ."""
        return delta * (self.slopes.unsqueeze(-2) if self.slopes.dim() == 2 else self.slopes)

    def pull_along(self, delta: Tensor, direction: Tensor) -> Tensor:
        """The derivative of :meth:`pull` along a direction of the parameter, shape (N, U, I)."""
        return self._weighted(delta) * direction.to(delta)

    def push(self, jacobian: Jacobian, rows: Tensor | None) -> Jacobian:
        """Pushes the Jacobian of h through the link: diag(s) J, whatever ``rows``."""
        return jacobian.scale(self.slopes)

    def block(self, delta: Tensor, jacobian: Jacobian) -> Tensor:
        """Squared norm of ∂²f/∂p∂x, shape (N, U).

        Σ_i (δ_i c_i)² ‖J_i‖² where each unit has an entry of its own, ‖Σ_i δ_i c_i J_i‖² where all share one.
        """
        weighted = self._weighted(delta)
        if self.gain is not None and self.gain.sharing == "layer":
            return jacobian.combination_squared_norm(weighted)
        return torch.einsum("nui,ni->nu", weighted.square(), jacobian.row_squared_norms())

    def _weighted(self, delta: Tensor) -> Tensor:
        """δ_i c_i, shape (N, U, I)."""
        assert self.gain is not None
        coefficients = self.gain.coefficients
        return delta * (coefficients.unsqueeze(-2) if coefficients.dim() == 2 else coefficients)

    def samples(self, part: slice) -> ElementwiseLink:
        """The link for some of the samples."""
        gain = self.gain
        if gain is not None and gain.coefficients.dim() == 2:
            gain = replace(gain, coefficients=gain.coefficients[part])
        return ElementwiseLink(self.slopes[part] if self.slopes.dim() == 2 else self.slopes, gain)


Link = LinearLink | ElementwiseLink


Function = Callable[..., Any]


class Parameters:
    """What is known about the tensors of a network that is called on inputs."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        double = any(t.dtype == torch.float64 for t in (inputs, *model.parameters()))
        # half precisions are too coarse and too narrow for products of norms
        self._dtype = torch.float64 if double else torch.float32
        self._trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        self._stored = {id(t) for t in (*model.parameters(), *model.buffers())}
        #: The trainable parameters that are only added, whose block of S is zero.
        self.biases: set[str] = set()

    def wide(self, tensor: Tensor) -> Tensor:
        """Returns a tensor's values in the precision of the closed form."""
        return tensor.detach().to(self._dtype)

    def is_stored(self, tensor: Tensor) -> bool:
        """Whether it is a parameter or a buffer of the network."""
        return id(tensor) in self._stored

    def name_of(self, parameter: Tensor) -> str | None:
        """Returns the name of a trainable parameter, None of a constant; refuses what is computed from parameters."""
        name = self._trainable.get(id(parameter))
        if name is None and parameter.requires_grad:
            raise UnsupportedNetworkError("its parameter is computed from other tensors")
        return name

    def added(self, *biases: Tensor | None) -> None:
        """Notes which of these are trainable parameters."""
        self.biases.update(self._trainable[id(bias)] for bias in biases if id(bias) in self._trainable)


def linear(
    known: Parameters, func: Function, value: Tensor, result: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Link:
    """W a + b."""
    if value.dim() != 2:
        raise UnsupportedNetworkError(
            f"its input has shape {tuple(value.shape)}, so its weight is shared by several positions; "
            "expected (samples, features)"
        )
    if not known.is_stored(weight):
        raise UnsupportedNetworkError("its weight is computed from other tensors instead of being a parameter")
    known.added(bias)
    return LinearLink(known.wide(weight), known.name_of(weight))


def batch_norm(
    known: Parameters,
    func: Function,
    value: Tensor,
    result: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Link:
    """A scale and a shift of each unit."""
    if training or running_var is None:
        raise UnsupportedNetworkError(
            "it normalises by the batch in eval mode too, which mixes the samples; use track_running_stats=True"
        )
    if value.dim() != 2:
        raise UnsupportedNetworkError(f"its input has shape {tuple(value.shape)}; expected (samples, features)")
    known.added(bias)
    scale = (known.wide(running_var) + eps).rsqrt()
    if weight is None:
        return ElementwiseLink(scale)
    name = known.name_of(weight)
    return ElementwiseLink(scale * known.wide(weight), Gain(name, scale, "unit") if name else None)


def prelu(known: Parameters, func: Function, value: Tensor, result: Tensor, weight: Tensor) -> Link:
    """A trainable slope below zero."""
    if weight.numel() not in (1, value[0].numel()) or (weight.numel() > 1 and value.dim() != 2):
        raise UnsupportedNetworkError("its slopes are shared by channels; expected one for all units or one each")
    negative = known.wide((value <= 0).flatten(1))
    slopes = 1 - negative + negative * known.wide(weight)
    name = known.name_of(weight)
    sharing = "layer" if weight.numel() == 1 else "unit"
    return ElementwiseLink(slopes, Gain(name, negative, sharing) if name else None)  # type: ignore[arg-type]


def dropout(known: Parameters, func: Function, value: Tensor, result: Tensor, *args: Any, **kwargs: Any) -> None:
    """Nothing, in eval mode."""
    bound = signature(func).bind(value, *args, **kwargs)
    bound.apply_defaults()
    _refuse_random(bound.arguments["training"])


def reshape(known: Parameters, func: Function, value: Tensor, result: Tensor, *args: Any, **kwargs: Any) -> None:
    """Another shape or precision; every unit stays as it is and in its place."""
    if result.numel() != value.numel() or result.shape[:1] != value.shape[:1] or not result.is_floating_point():
        raise UnsupportedNetworkError("it does not keep the units of each sample")


def shift(known: Parameters, func: Function, value: Tensor, result: Tensor, *args: Any, **kwargs: Any) -> None:
    """A constant or a trainable bias is added: the Jacobian is unchanged, and ∂²f/∂bias∂x = 0."""
    _refuse_other_shapes(value, result)
    known.added(*tensors_in((args, kwargs)))


def scale(known: Parameters, func: Function, value: Tensor, result: Tensor, *args: Any, **kwargs: Any) -> Link:
    """Affine in each unit; the slope is the same for every sample, unless a factor differs."""
    others = tensors_in((args, kwargs))
    slopes = _slopes(known, func, value, result, args, kwargs)
    return ElementwiseLink(slopes if any(t.dim() == value.dim() and len(t) > 1 for t in others) else slopes[0])


def piecewise(known: Parameters, func: Function, value: Tensor, result: Tensor, *args: Any, **kwargs: Any) -> Link:
    """Piecewise linear in each unit; the slope depends on the sample."""
    return ElementwiseLink(_slopes(known, func, value, result, args, kwargs))


def randomised(
    known: Parameters,
    func: Function,
    value: Tensor,
    result: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Link:
    """A leaky ReLU whose slope is random in training."""
    _refuse_random(training)
    return piecewise(known, func, value, result, lower, upper, training)


#: An in-place activation overwrites what these compute slopes from.
READ_THE_INPUT = (piecewise, randomised, prelu)


def _slopes(known: Parameters, func: Function, value: Tensor, result: Tensor, args: Any, kwargs: Any) -> Tensor:
    """The derivative of an elementwise function at each unit, with relu'(0) = 0 as autograd has it, shape (N, I)."""
    _refuse_other_shapes(value, result)
    if any(tensor.requires_grad for tensor in tensors_in((args, kwargs))):
        raise UnsupportedNetworkError("it multiplies by a parameter outside of a layer that has a closed form")
    with torch.enable_grad():
        leaf = value.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(func(leaf.clone(), *args, **kwargs).sum(), leaf)
    return known.wide(slopes.flatten(1))


def _refuse_other_shapes(value: Tensor, result: Tensor) -> None:
    if result.shape != value.shape or result.is_complex():
        raise UnsupportedNetworkError("it does not act on each unit by itself")


def _refuse_random(training: bool) -> None:
    if training:
        raise UnsupportedNetworkError("it is random in eval mode too; pass training=self.training")

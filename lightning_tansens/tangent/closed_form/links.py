"""The links of a piecewise-linear chain: linear maps and elementwise slopes.

Index letters, here and in the einsum strings: n sample, u output weighting, i unit after the link, j unit before it,
d input coordinate (or column of a Jacobian's short form).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_tansens.tangent.closed_form.jacobian import Jacobian


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

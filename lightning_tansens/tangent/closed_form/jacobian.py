"""Three ways to hold the input Jacobians J = ∂a/∂x of a batch, from the cheapest to the most general.

Only Frobenius norms of J, of its rows and of combinations of its rows are ever asked for, so the columns may be rotated:
a factor with fewer columns and the same J Jᵀ (the *short form*) stands in for J.

Index letters: n sample, u output weighting, i unit after a linear map, j unit before it, d column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

# From this width on, multiplying only the active rows and columns of each sample beats the dense batched product.
# Measured by tests/benchmarks/bench_exact.py.
GATHER_FROM_WIDTH = 512


class Jacobian(ABC):
    """The Jacobians of one layer's units with respect to the input, for N samples."""

    @abstractmethod
    def scale(self, slopes: Tensor) -> Jacobian:
        """Returns diag(s) J for slopes of shape (N, I) or (I,)."""

    @abstractmethod
    def linear(self, weight: Tensor, rows: Tensor | None) -> Jacobian:
        """Returns W J for a weight (I, J); rows of J that ``rows`` (N, I) does not mark may be left at zero."""

    @abstractmethod
    def squared_norm(self) -> Tensor:
        """Returns ‖J‖_F², shape (N,) or, where all samples share it, (1,)."""

    @abstractmethod
    def row_squared_norms(self) -> Tensor:
        """Returns ‖J_i‖² of every row, shape (N, I), or (1, I) where all samples share it."""

    @abstractmethod
    def combination_squared_norm(self, weights: Tensor) -> Tensor:
        """Returns ‖Σ_i w_i J_i‖², shape (N, U), for weights (N, U, I)."""


class IdentityJacobian(Jacobian):
    """J = diag(s): what the input itself starts with.

    Args:
        slopes: s, shape (N, D), or (D,) where all samples share them.

    """

    def __init__(self, slopes: Tensor) -> None:
        self._slopes = slopes

    def scale(self, slopes: Tensor) -> Jacobian:
        return IdentityJacobian(self._slopes * slopes)

    def linear(self, weight: Tensor, rows: Tensor | None) -> Jacobian:
        if self._slopes.dim() == 1:
            return SharedJacobian(_short_form(weight * self._slopes))
        return DenseJacobian((weight * self._slopes.unsqueeze(1)).mT)

    def squared_norm(self) -> Tensor:
        return self._slopes.square().sum(-1, keepdim=self._slopes.dim() == 1)

    def row_squared_norms(self) -> Tensor:
        return _as_rows(self._slopes.square())

    def combination_squared_norm(self, weights: Tensor) -> Tensor:
        return torch.einsum("nud,nd->nu", weights.square(), self.row_squared_norms().expand(len(weights), -1))


class SharedJacobian(Jacobian):
    """J = diag(s_n) B with one factor B for all samples: the units behind the first linear map.

    Args:
        basis: B, shape (I, d).
        slopes: s, shape (N, I), or (I,), or None for ones.
        cache: What was computed from the basis; shared by all Jacobians with this basis.

    """

    def __init__(self, basis: Tensor, slopes: Tensor | None = None, cache: dict[str, Tensor] | None = None) -> None:
        self._basis = basis
        self._slopes = slopes
        self._cache = cache if cache is not None else {}

    def scale(self, slopes: Tensor) -> Jacobian:
        combined = slopes if self._slopes is None else self._slopes * slopes
        return SharedJacobian(self._basis, combined, self._cache)

    @property
    def _basis_rows(self) -> Tensor:
        if "rows" not in self._cache:
            self._cache["rows"] = self._basis.square().sum(-1)
        return self._cache["rows"]

    @property
    def _gram(self) -> Tensor:
        if "gram" not in self._cache:
            self._cache["gram"] = self._basis @ self._basis.T
        return self._cache["gram"]

    def linear(self, weight: Tensor, rows: Tensor | None) -> Jacobian:
        if self._slopes is None:
            return SharedJacobian(weight @ self._basis)
        if self._slopes.dim() == 1:
            return SharedJacobian((weight * self._slopes) @ self._basis)
        if len(self._basis) < GATHER_FROM_WIDTH:
            # contiguous, so that the product is one matrix product and not one for each sample
            return DenseJacobian((self._basis.T.contiguous() * self._slopes.unsqueeze(1)) @ weight.T)
        return GatheredJacobian(*self._gather(), width=len(self._basis)).linear(weight, rows)

    def _gather(self) -> tuple[list[Tensor], list[Tensor]]:
        """Each sample's active rows, in a short form with no more columns than there are rows."""
        assert self._slopes is not None
        indices = [slopes.nonzero().squeeze(-1) for slopes in self._slopes]
        factors = []
        for index, slopes in zip(indices, self._slopes):
            active = slopes[index].unsqueeze(-1)
            factor, info = torch.linalg.cholesky_ex(self._gram[index][:, index])
            # a rank-deficient Gram matrix has no Cholesky factor; the rows themselves always serve
            usable = len(index) < self._basis.shape[1] and not info.item()
            factors.append(active * (factor if usable else self._basis[index]))
        return indices, factors

    def squared_norm(self) -> Tensor:
        return self.row_squared_norms().sum(-1)

    def row_squared_norms(self) -> Tensor:
        if self._slopes is None:
            return self._basis_rows.unsqueeze(0)
        return _as_rows(self._slopes.square() * self._basis_rows)

    def combination_squared_norm(self, weights: Tensor) -> Tensor:
        scaled = weights if self._slopes is None else weights * _as_rows(self._slopes).unsqueeze(1)
        return (scaled @ self._basis).square().sum(-1)


class DenseJacobian(Jacobian):
    """One matrix a sample, as a batch: the fastest form for narrow layers.

    Args:
        transposed: Jᵀ, shape (N, d, I); in this layout a linear map is one matrix product over all samples.

    """

    def __init__(self, transposed: Tensor) -> None:
        self._transposed = transposed

    def scale(self, slopes: Tensor) -> Jacobian:
        return DenseJacobian(self._transposed * _as_rows(slopes).unsqueeze(1))

    def linear(self, weight: Tensor, rows: Tensor | None) -> Jacobian:
        return DenseJacobian(self._transposed @ weight.T)

    def squared_norm(self) -> Tensor:
        return self._transposed.flatten(1).square().sum(-1)

    def row_squared_norms(self) -> Tensor:
        return self._transposed.square().sum(1)

    def combination_squared_norm(self, weights: Tensor) -> Tensor:
        return torch.bmm(weights, self._transposed.mT).square().sum(-1)


class GatheredJacobian(Jacobian):
    """The active rows of each sample alone: the fastest form for wide layers.

    Args:
        indices: For each sample the rows that are held, each of shape (A_n,).
        factors: For each sample these rows, each of shape (A_n, d_n).
        width: I, the number of units of the layer.

    """

    def __init__(self, indices: list[Tensor], factors: list[Tensor], width: int) -> None:
        self._indices = indices
        self._factors = factors
        self._width = width

    def scale(self, slopes: Tensor) -> Jacobian:
        slopes = slopes.expand(len(self._factors), -1)
        factors = [s[index].unsqueeze(-1) * m for s, index, m in zip(slopes, self._indices, self._factors)]
        return GatheredJacobian(self._indices, factors, self._width)

    def linear(self, weight: Tensor, rows: Tensor | None) -> Jacobian:
        indices, factors = [], []
        for n, (columns, factor) in enumerate(zip(self._indices, self._factors)):
            index = _marked(rows, n, len(weight), weight.device)
            indices.append(index)
            factors.append(weight.index_select(0, index).index_select(1, columns) @ factor)
        return GatheredJacobian(indices, factors, width=len(weight))

    def squared_norm(self) -> Tensor:
        return torch.stack([factor.square().sum() for factor in self._factors])

    def row_squared_norms(self) -> Tensor:
        norms = self._factors[0].new_zeros(len(self._factors), self._width)
        for row, index, factor in zip(norms, self._indices, self._factors):
            row[index] = factor.square().sum(-1)
        return norms

    def combination_squared_norm(self, weights: Tensor) -> Tensor:
        parts = zip(weights, self._indices, self._factors)
        return torch.stack([(w[:, index] @ factor).square().sum(-1) for w, index, factor in parts])


def _as_rows(tensor: Tensor) -> Tensor:
    """Gives what all samples share a sample axis of length one."""
    return tensor if tensor.dim() == 2 else tensor.unsqueeze(0)


def _marked(rows: Tensor | None, n: int, width: int, device: torch.device) -> Tensor:
    return torch.arange(width, device=device) if rows is None else rows[n].nonzero().squeeze(-1)


def _short_form(matrix: Tensor) -> Tensor:
    """A factor with at most as many columns as rows and the same Gram matrix: Rᵀ of the QR factorisation of Wᵀ.

    It exists for any rank. The factorisation pays where the matrix is clearly wider than tall.
    """
    rows, columns = matrix.shape
    return torch.linalg.qr(matrix.T, mode="r").R.T if 2 * rows <= columns else matrix

"""Ways to hold the input Jacobians J = ∂a/∂x of a batch: one factor for all samples, or a matrix for each.

Only Frobenius norms of J, of its rows and of combinations of its rows are ever asked for, so the columns may be rotated:
a factor with fewer columns and the same J Jᵀ (the *short form*) stands in for J.

Index letters: n sample, u output weighting, i unit after a linear map, j unit before it, d column.
"""

from __future__ import annotations

import torch
from torch import Tensor

# From this width on, multiplying only the active rows and columns of each sample beats the dense batched product, as long as
# no more than this share of the units is active. Measured by tests/benchmarks/bench_exact.py on a CPU; on a GPU the kernels
# that gather take longer than the products of narrow layers.
GATHER_FROM_WIDTH = 64
GATHER_FROM_WIDTH_ON_GPU = 256
GATHER_UP_TO_SHARE = 0.8

# A multiplication of gathered rows and columns takes as long as this number in one dense product: 1.2 to 2.3 were measured
# on a CPU for widths from 300 to 3000.
GATHERED_COST = 2.0

# A Cholesky factor of as many units takes as long as this number of products that it saves.
CHOLESKY_COST = 1.4


class SharedJacobian:
    """J = diag(s_n) B with one factor B, shape (I, d), for all samples: the input itself, or the units behind linear maps.

    B is None for the identity. The slopes s have shape (N, I), or (I,) where all samples share them; ``maps`` is the number
    of linear maps that are still to come. Jacobians with one basis share the cache of what was computed from it.
    """

    def __init__(self, basis: Tensor | None, slopes: Tensor, maps: int, cache: dict[str, Tensor] | None = None) -> None:
        self._basis = basis
        self._slopes = slopes
        self._maps = maps
        self._cache = cache if cache is not None else {}

    def scale(self, slopes: Tensor) -> Jacobian:
        """Returns diag(s) J for slopes of shape (N, I) or (I,)."""
        return SharedJacobian(self._basis, self._slopes * slopes, self._maps, self._cache)

    @property
    def _basis_rows(self) -> Tensor | float:
        if self._basis is not None and "rows" not in self._cache:
            self._cache["rows"] = self._basis.square().sum(-1)
        return self._cache.get("rows", 1.0)

    def linear(self, weight: Tensor, rows: Tensor | None) -> Jacobian:
        """Returns W J for a weight (I, J); rows of it that ``rows`` (N, I) does not mark may be left at zero."""
        if self._slopes.dim() == 1:
            scaled = weight * self._slopes
            basis = _short_form(scaled) if self._basis is None else scaled @ self._basis
            return SharedJacobian(basis, basis.new_ones(len(basis)), self._maps - 1)
        if self._basis is None:
            return DenseJacobian((weight * self._slopes.unsqueeze(1)).mT)
        active = _indices(self._slopes != 0)
        if active is None:
            # contiguous, so that the product is one matrix product and not one for each sample
            return _product(self._basis.T.contiguous() * self._slopes.unsqueeze(1), None, weight, rows)
        factor = self._factor(self._basis, active) * self._slopes.gather(1, active).unsqueeze(-1)
        return _product(factor.mT, active, weight, rows)

    def _factor(self, basis: Tensor, active: Tensor) -> Tensor:
        """The rows (N, A) of the basis, in a short form with A columns where that pays: shape (N, A, d or A)."""
        columns, count = basis.shape[1], active.shape[1]
        if short_columns(columns, count, self._maps) < columns:
            if "gram" not in self._cache:
                self._cache["gram"] = basis @ basis.T
            factor: Tensor
            factor, info = torch.linalg.cholesky_ex(_submatrices(self._cache["gram"], active, active))
            # a rank-deficient Gram matrix has no Cholesky factor; the rows themselves always serve
            if not info.any():
                return factor
        return _submatrices(basis, active, None)

    def squared_norm(self) -> Tensor:
        """Returns ‖J‖_F², shape (N,) or, where all samples share it, (1,)."""
        return self.row_squared_norms().sum(-1)

    def row_squared_norms(self) -> Tensor:
        """Returns ‖J_i‖² of every row, shape (N, I), or (1, I) where all samples share it."""
        return (self._slopes.square() * self._basis_rows).reshape(-1, self._slopes.shape[-1])

    def combination_squared_norm(self, weights: Tensor) -> Tensor:
        """Returns ‖Σ_i w_i J_i‖², shape (N, U), for weights (N, U, I)."""
        scaled = weights * self._slopes.reshape(-1, 1, self._slopes.shape[-1])
        return (scaled if self._basis is None else scaled @ self._basis).square().sum(-1)


class DenseJacobian:
    """One matrix a sample, as a batch: the fastest form for narrow layers.

    It holds Jᵀ, shape (N, d, I); in this layout a linear map is one matrix product over all samples.
    """

    def __init__(self, transposed: Tensor) -> None:
        self._transposed = transposed

    def scale(self, slopes: Tensor) -> Jacobian:
        return DenseJacobian(self._transposed * torch.atleast_2d(slopes).unsqueeze(1))

    def linear(self, weight: Tensor, rows: Tensor | None) -> Jacobian:
        return _product(self._transposed, None, weight, rows)

    def squared_norm(self) -> Tensor:
        # torch's norm over both axes at once loses digits of large ones
        norms: Tensor = torch.linalg.vector_norm(self._transposed, dim=2)
        return norms.square().sum(1)

    def row_squared_norms(self) -> Tensor:
        return self._transposed.square().sum(1)

    def combination_squared_norm(self, weights: Tensor) -> Tensor:
        return torch.bmm(weights, self._transposed.mT).square().sum(-1)


class GatheredJacobian(DenseJacobian):
    """The active rows of each sample alone: the fastest form where about half of the units is active.

    Jᵀ without the other rows has shape (N, d, A). The indices (N, A) say which rows these are, of a layer of ``width``
    units; a sample with fewer active units than A has others among them.
    """

    def __init__(self, transposed: Tensor, indices: Tensor, width: int) -> None:
        super().__init__(transposed)
        self._indices = indices
        self._width = width

    def scale(self, slopes: Tensor) -> Jacobian:
        own = slopes.expand(len(self._indices), -1).gather(1, self._indices)
        return GatheredJacobian(self._transposed * own.unsqueeze(1), self._indices, self._width)

    def linear(self, weight: Tensor, rows: Tensor | None) -> Jacobian:
        return _product(self._transposed, self._indices, weight, rows)

    def row_squared_norms(self) -> Tensor:
        norms = self._transposed.square().sum(1)
        return norms.new_zeros(len(norms), self._width).scatter_(1, self._indices, norms)

    def combination_squared_norm(self, weights: Tensor) -> Tensor:
        own = weights.gather(2, self._indices.unsqueeze(1).expand(-1, weights.shape[1], -1))
        return torch.bmm(own, self._transposed.mT).square().sum(-1)


#: Both have the same methods.
Jacobian = SharedJacobian | DenseJacobian


def _product(transposed: Tensor, columns: Tensor | None, weight: Tensor, rows: Tensor | None) -> Jacobian:
    """W J from Jᵀ (N, d, J), or from the part (N, d, A) of it that ``columns`` (N, A) names."""
    kept = _indices(rows)
    product = transposed @ _submatrices(weight, kept, columns).mT
    return DenseJacobian(product) if kept is None else GatheredJacobian(product, kept, len(weight))


def _gathers(marks: Tensor) -> bool:
    """Whether a layer is wide enough for its active units to be gathered."""
    return marks.shape[1] >= (GATHER_FROM_WIDTH if marks.device.type == "cpu" else GATHER_FROM_WIDTH_ON_GPU)


def short_columns(columns: int, rows: int, maps: int) -> int:
    """The number of columns in which so many rows are held while they go through ``maps`` linear maps."""
    return rows if maps * (columns - rows) > CHOLESKY_COST * rows else columns


def _indices(marks: Tensor | None) -> Tensor | None:
    """For each sample the units that are marked in ``marks`` (N, I) and, up to one number A for all, others: shape (N, A).

    None stands for all units, where gathering some of them would not pay.
    """
    if marks is None or not _gathers(marks):
        return None
    count = max(1, int(marks.sum(1).max()))
    if count > GATHER_UP_TO_SHARE * marks.shape[1]:
        return None
    # in their order in the matrix, which is faster to read
    return marks.float().topk(count, sorted=False).indices.sort(1).values


def taken_units(marks: Tensor | None, width: int) -> int:
    """Estimates how many units of a layer are multiplied: half of a wide one's, if any is switched off.

    The true number would differ between processes, which must choose the same method.
    """
    return width if marks is None or not _gathers(marks) or bool(marks.all()) else width // 2


def _submatrices(matrix: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Of a matrix (I, J) each sample's rows (N, A) and columns (N, B): shape (N, A, B), or (I, J) for all of both."""
    if rows is not None:
        matrix = matrix.index_select(0, rows.flatten()).unflatten(0, rows.shape)
    if columns is not None:
        matrix = matrix.expand(len(columns), -1, -1).gather(2, columns.unsqueeze(1).expand(-1, matrix.shape[-2], -1))
    return matrix


def _short_form(matrix: Tensor) -> Tensor:
    """A factor with at most as many columns as rows and the same Gram matrix: Rᵀ of the QR factorisation of Wᵀ.

    It exists for any rank. The factorisation pays where the matrix is clearly wider than tall.
    """
    rows, columns = matrix.shape
    return torch.linalg.qr(matrix.T, mode="r").R.T if 2 * rows <= columns else matrix

"""Which labelled copies a set resembles in its inputs, and what the estimate is wrong by on these."""

from __future__ import annotations

from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.inputs import Inputs
from lightning_tansens.estimators.outputs import Array, Outputs

#: The bands of principal components begin here; with fewer components than the last there are fewer bands.
BANDS = (0, 4, 16, 64)

#: So many principal components of the channels' means are looked at.
COLOURS = 3

#: So many principal components' scores tell whether other class shares explain a set.
SCORES = 12

#: Entries are cut off at so many deviations; energies start at this share of the reference's whole energy.
FARTHEST, LEAST = 4.0, 0.005

#: How much the distance from the nearest sample counts, compared with the energies.
NEIGHBOUR = 2.0

#: A copy counts within this share of the set's own length, and within this share of SMALL for short ones.
NEAR, SMALL = 0.15, 0.4

#: The correction is drawn to none as if by a copy of this weight; no copy counts as wrong by more than a factor of e.
DRAWN, MOST = 0.3, 1.0

#: Sets that re-weightings may explain are not corrected: half of the correction is left at this squared distance, in units
#: of how far re-weightings go, which have at least this deviation.
UNLIKE, LEAST_SPREAD = 20.0, 0.05

#: With fewer samples of the reference that the components have not seen nothing is corrected.
FEWEST = 20

#: At most so many samples give the components, and so many are compared with them at once.
MOST_SAMPLES = 1024

#: Copies in nearly the same direction, by the cosine, are of one kind.
ALIKE = 0.9


class Views:
    r"""Describes sets by their inputs, as the reference's inputs see them.

    Half of the reference's samples give the principal components, in bands b. The numbers of a sample are the logarithms of
    its energies in the bands and in what the components leave, those of its colours, and twice that of its distance from the
    nearest of those samples; they are taken less the means over the reference's other half.

    .. math:: z_b(x) = \log\Big(\sum_{k \in b} (u_k^T \tilde x)^2 + \epsilon\Big), \qquad
              z_c(x) = \log\big((v_c^T \tilde m)^2 + \epsilon'\big)

    with standardised entries :math:`\tilde x`, their means :math:`\tilde m` over each channel of an image, the first three
    principal components v of these, and ε and ε' half a percent of the whole energies. One channel has no colours.

    Args:
        reference: The reference's inputs.
    """

    def __init__(self, reference: Inputs) -> None:
        self.is_table = reference.is_table
        self.unseen, self._shape = len(reference) // 2, (reference.shape, reference.rows.shape[1])
        rows = np.where(np.isfinite(reference.rows), reference.rows.astype(np.float64), np.nan)
        self._mean = _known_mean(rows[self.unseen :])
        together = rows if reference.is_table else rows.reshape(-1, 1)
        self._scale = np.maximum(np.sqrt(_known_mean(np.square(together - _known_mean(together)))), 1e-3)
        self._basis = self._standardised(reference)[self.unseen :][:MOST_SAMPLES]
        values, components = np.linalg.svd(self._basis, full_matrices=False)[1:]
        self._components = components[values > 1e-6 * values[0]]
        self._colours = _colours(self._basis, reference.channels)
        own = self._energies(self._standardised(reference)[: self.unseen])
        bands, colours = np.split(own[:, :-1].mean(0), [own.shape[1] - 1 - self._colours.shape[1]])
        self._least = LEAST * np.repeat([bands.sum(), colours.sum()], [len(bands), len(colours)]) + 1e-12
        self._nearest = 1e-3 * own[:, -1].mean() + 1e-12
        self._own = self._logarithms(own).mean(0)
        self._known: WeakKeyDictionary[Inputs, tuple[Array, Array]] = WeakKeyDictionary()

    def of(self, inputs: Inputs) -> Array:
        """Returns the numbers of each sample, shape (N, F)."""
        return self._described(inputs)[0]

    def scores(self, inputs: Inputs) -> Array:
        """Returns each sample's scores on the first principal components, shape (N, K)."""
        return self._described(inputs)[1]

    def _described(self, inputs: Inputs) -> tuple[Array, Array]:
        """Returns numbers and scores; those of inputs that were seen before cost nothing."""
        if inputs not in self._known:
            rows = self._standardised(inputs)
            parts = np.array_split(rows, -(-len(inputs) // MOST_SAMPLES))  # distances take memory
            numbers = np.concatenate([self._logarithms(self._energies(part)) for part in parts]) - self._own
            self._known[inputs] = numbers, rows @ self._components[:SCORES].T
        return self._known[inputs]

    def _logarithms(self, energies: Array) -> Array:
        logarithms = np.log(energies[:, :-1] + self._least)
        return np.concatenate([logarithms, NEIGHBOUR * np.log(energies[:, -1:] + self._nearest)], 1)

    def fit(self, outputs: Outputs) -> bool:
        """Returns whether the inputs of a set are known and comparable with the reference's."""
        inputs = outputs.inputs
        return inputs is not None and len(inputs) > 0 and (inputs.shape, inputs.rows.shape[1]) == self._shape

    @classmethod
    def of_reference(cls, outputs: Outputs) -> Views | None:
        """Returns the views of a reference, the same ones as long as its inputs are kept; None of too few or no inputs."""
        if outputs.inputs is None:
            return None
        unseen = outputs.kept[: len(outputs.inputs) // 2].sum()
        if unseen < FEWEST:
            return None
        if outputs.inputs not in _VIEWS:
            _VIEWS[outputs.inputs] = cls(outputs.inputs)
        return _VIEWS[outputs.inputs]

    def means(self, outputs: Outputs, weights: Array, own: bool = False) -> Array:
        """Returns the mean numbers of re-weightings of a set, shape (M, F).

        Args:
            outputs: The set's usable samples, with inputs.
            weights: Shape (M, N).
            own: Whether these are the reference's samples, changed or not; those of the components are then left out.
        """
        assert outputs.inputs is not None
        numbers = self.of(outputs.inputs)[outputs.kept]
        if own:
            count = int(outputs.kept[: self.unseen].sum())
            numbers, weights = numbers[:count], weights[:, :count]
            # nothing may be left, where all that counts is in the components' half
            weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)
        return np.asarray(weights @ numbers)

    def _standardised(self, inputs: Inputs) -> Array:
        found = (np.where(np.isfinite(inputs.rows), inputs.rows, np.nan) - self._mean) / self._scale
        return np.asarray(np.clip(np.nan_to_num(found), -FARTHEST, FARTHEST))

    def _energies(self, rows: Array) -> Array:
        """Returns the energies by band, what the components leave, and the distances, shape (N, F)."""
        squares = np.square(rows @ self._components.T)
        ends = [start for start in BANDS if start < squares.shape[1]] + [squares.shape[1]]
        bands = [squares[:, start:end].sum(1) for start, end in pairwise(ends)]
        whole = np.square(rows).sum(1)
        if len(self._components) < rows.shape[1]:
            bands.append(np.maximum(whole - squares.sum(1), 0))
        nearest = (np.square(self._basis).sum(1) - 2 * rows @ self._basis.T).min(1)
        return np.column_stack([*bands, np.square(rows @ self._colours), np.sqrt(np.maximum(whole + nearest, 0))])


def _known_mean(rows: Array) -> Array:
    """Returns the means over what is no NaN, shape (D,), and 0 where nothing is known."""
    known = ~np.isnan(rows)
    return np.asarray(np.where(known, rows, 0).sum(0) / np.maximum(known.sum(0), 1))


def _colours(rows: Array, channels: NDArray[np.int64] | None) -> Array:
    """Returns the principal components of the channels' means, in terms of entries, shape (D, C); none of one channel."""
    number = 1 if channels is None else len(np.unique(channels))
    if channels is None or number < 2:
        return np.zeros((rows.shape[1], 0))
    members = np.eye(channels.max() + 1)[channels]
    means = members / np.maximum(members.sum(0), 1)
    return np.asarray(means @ np.linalg.svd(rows @ means, full_matrices=False)[2][:COLOURS].T)


_VIEWS: WeakKeyDictionary[Inputs, Views] = WeakKeyDictionary()


class Resemblance:
    r"""Corrects estimates by what they are wrong by on the labelled copies that a set resembles in its inputs.

    .. math:: c(z) = \frac{q^2}{q^2 + q_0^2} \, \frac{\sum_k w_k t_k \rho_k}{0.3 + \sum_k w_k}, \qquad
              w_k = \exp\Big(-\frac{\|z - t_k z_k\|^2}{2 h^2 (\|z\| + 0.4)^2}\Big), \qquad
              t_k = \operatorname{clip}\Big(\frac{z^T z_k}{\|z_k\|^2}, 0, 1\Big)

    with the mean numbers z of a set and z_k of the copies (:class:`Views`), the copies' true log ratios less those of a head
    ρ_k, at most 1 in size, h = 0.15, and the mean squared distance q of z from none in units of how far re-weightings
    of the reference go, q_0 = 20. A weaker change than a copy's counts in proportion.

    Args:
        moved: The numbers of re-weightings of the reference, shape (M, F).
        copies: z_k, shape (K, F).
    """

    def __init__(self, moved: Array, copies: Array) -> None:
        self._inverse = np.linalg.inv(moved.T @ moved / len(moved) + LEAST_SPREAD**2 * np.eye(moved.shape[1]))
        self._copies, self._lengths = copies, np.linalg.norm(copies, axis=1) + 1e-9

    def unlike(self, seen: Array) -> Array:
        """Returns q of M sets, shape (M,), from their numbers, shape (M, F)."""
        return np.asarray(np.einsum("mf,fg,mg->m", seen, self._inverse, seen) / seen.shape[1])

    def correction(self, seen: Array, wrong: Array, without_own_kind: bool = False) -> Array:
        """Returns what to add to estimated log ratios, shape (..., M, Q).

        Args:
            seen: The numbers of M sets, shape (M, F).
            wrong: ρ, shape (..., K, Q).
            without_own_kind: Whether to leave out copies in nearly the same direction as the set.
        """
        share, left = self._compared(seen)
        length = np.linalg.norm(seen, axis=1)[:, None]
        distances = np.linalg.norm(left, axis=2)
        weights = np.exp(-np.square(distances / (NEAR * (length + SMALL))) / 2)
        if without_own_kind:
            weights = np.where(seen @ self._copies.T > ALIKE * self._lengths * length, 0, weights)
        unlike = self.unlike(seen)[:, None]
        drawn = np.square(unlike) / (np.square(unlike) + UNLIKE**2)
        return np.asarray(
            drawn * ((weights * share) @ np.clip(wrong, -MOST, MOST)) / (DRAWN + weights.sum(1, keepdims=True))
        )

    def novelty(self, seen: Array) -> float:
        r"""Returns how little the nearest copy explains a set, from 0 to 1.

        .. math:: \nu = \frac{r}{r + 20}, \qquad r = \min_k q(z - t_k z_k)

        Args:
            seen: z, shape (1, F).
        """
        left = self.unlike(self._compared(seen)[1][0]).min()
        return float(left / (left + UNLIKE))

    def _compared(self, seen: Array) -> tuple[Array, Array]:
        """Returns t, shape (M, K), and what is left of M sets' numbers, z − t z_k, shape (M, K, F)."""
        share = np.clip(seen @ self._copies.T / self._lengths**2, 0, 1)
        return share, seen[:, None] - share[..., None] * self._copies

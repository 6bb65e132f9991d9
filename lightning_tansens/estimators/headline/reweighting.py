"""Re-weightings of the labelled reference: sets whose truth is known, and which cost no forward pass."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_tansens.estimators.outputs import Array

#: Concentrations of the Dirichlet distributions of class shares, and of sub-populations' weights: small ones move far.
SHARES = (0.5, 0.5, 1, 1, 2, 2, 4, 4, 8, 16)
SUBPOPULATIONS = (0.3, 0.3, 0.6, 0.6, 1, 1, 2, 2, 5, 10)

#: The number of bootstraps, and of cells into which sub-populations are cut.
BOOTSTRAPS, CELLS = 6, 8

#: What every sample keeps of its weight, so that none is left out for sure.
FLOOR = 0.02

#: Two classes are not moved further than a Dirichlet distribution with this concentration does.
LEAST_OF_TWO = 0.7


@dataclass(frozen=True, eq=False)
class Reweightings:
    """M re-weightings of N samples."""

    weights: Array  #: Multiples of 1/N with rows that sum to one, shape (M, N).
    kinds: NDArray[np.str_]  #: "bootstrap", "shares" or "subpopulation", shape (M,).

    def of(self, kind: str) -> Array:
        """Returns those of one kind."""
        return np.asarray(self.weights[self.kinds == kind])

    def with_copies(self, copies: Sequence[Sized], strong: Sequence[Sized] = ()) -> list[Reweightings]:
        """Returns these and those of the copies.

        A copy has equal weights ("plain") and one re-weighting of each kind, in turn; a strong one has equal weights alone.
        """
        kinds, found = list(dict.fromkeys(self.kinds)), [self]
        places = [np.flatnonzero(self.kinds == kind) for kind in kinds]
        for number, copy in enumerate(copies):
            some = self.weights[[of[number % len(of)] for of in places], : len(copy)]
            weights = np.concatenate([self.none(len(copy)), some / some.sum(1, keepdims=True)])
            found.append(Reweightings(weights, np.array(["plain", *kinds])))
        return [*found, *(Reweightings(self.none(len(copy)), np.array(["strong"])) for copy in strong)]

    @staticmethod
    def none(count: int) -> Array:
        """Returns equal weights, shape (1, count)."""
        return np.full((1, count), 1 / count)


def reweightings(classes: NDArray[np.int64], number: int, places: Array, seed: int) -> Reweightings:
    """Draws bootstraps, class shares and sub-populations of a labelled set, each with the noise of N drawn samples.

    Args:
        classes: The samples' classes, or other groups whose shares are changed, shape (N,).
        number: The number C of classes.
        places: Where the samples lie, shape (N, F); a sub-population weighs the cells around eight of them.
        seed: Seed of the draws.
    """
    generator, count = np.random.default_rng(seed), len(classes)
    drawn = [np.ones(count)] * BOOTSTRAPS
    present = np.bincount(classes, minlength=number) / count
    for concentration in SHARES:
        shares = generator.dirichlet(np.full(number, max(concentration, LEAST_OF_TWO) if number == 2 else concentration))
        drawn.append((shares / np.maximum(present, 1e-9))[classes] + FLOOR)
    for concentration in SUBPOPULATIONS:
        centres = places[generator.choice(count, min(CELLS, count), replace=False)]
        distances = np.square(places).sum(1)[:, None] - 2 * places @ centres.T + np.square(centres).sum(1)
        cells = distances.argmin(1)
        shares = generator.dirichlet(np.full(len(centres), concentration))
        drawn.append((shares / np.maximum(np.bincount(cells, minlength=len(centres)) / count, 0.01))[cells] + FLOOR)
    weights = np.stack([generator.multinomial(count, one / one.sum()) / count for one in drawn])
    sizes = {"bootstrap": BOOTSTRAPS, "shares": len(SHARES), "subpopulation": len(SUBPOPULATIONS)}
    return Reweightings(weights, np.repeat(list(sizes), list(sizes.values())))

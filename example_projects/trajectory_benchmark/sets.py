"""The sets of one data set: what is trained on, the reference, targets with outputs of their own, and pools to draw from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from snapshots import SetInfo
from torch import Tensor

from lightning_tansens.estimators import Headline
from lightning_tansens.estimators.headline import Strong

#: Concentrations of the Dirichlet class shares of the label shifts: the smaller, the fewer classes are left.
SHARES = (0.3, 0.5, 1.0, 1.0, 2.0, 4.0)

#: Sub-populations are mixtures of so many clusters of the inputs, with this concentration; so many are drawn.
CLUSTERS, CLUSTER_SHARES, SUBPOPULATIONS = 8, 0.4, 5

#: Every sample of a pool keeps this weight.
LEAST_WEIGHT = 0.02


@dataclass
class Data:
    """One data set with all that a network is measured on.

    Args:
        train: Inputs (N, ...) and class indices (N,) to train on, or the numbers of a regression.
        classes: The number of classes; 1 for a regression.
        sets: The sets, in the order in which they are scored.
        inputs: By set.
        labels: By set.
        rows: By target that is drawn from a pool, its samples' places in it.

    """

    train: tuple[Tensor, Tensor]
    classes: int
    sets: list[SetInfo] = field(default_factory=list)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, info: SetInfo, inputs: Tensor, labels: Tensor) -> None:
        self.sets.append(info)
        self.inputs[info.name], self.labels[info.name] = inputs, labels

    def add_reference(self, inputs: Tensor, labels: Tensor) -> None:
        """Adds the reference and the perturbed copies that the headline takes of it, strong ones as well."""
        self.add(SetInfo("reference", "reference"), inputs, labels)
        for number, perturb in enumerate(Headline().copies_for(inputs)):
            torch.manual_seed(number)
            copy = torch.stack([perturb(sample) for sample in inputs])
            kind = f"strong {type(perturb.transform).__name__}" if isinstance(perturb, Strong) else type(perturb).__name__
            self.add(SetInfo(f"copy_{number}", "copy", kind), copy, labels)

    def add_family(
        self, family: str, number: int | str, perturb: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor
    ) -> None:
        """Adds a target all of whose samples are perturbed."""
        self.add(SetInfo(f"{family}_{number}", "target", family), perturb(inputs), labels)

    def add_pool(self, name: str, inputs: Tensor, labels: Tensor) -> None:
        self.add(SetInfo(name, "pool"), inputs, labels)

    def add_parts(self, pool: str, family: str, size: int, most: int) -> None:
        """Adds disjoint parts of a pool as targets."""
        for number in range(min(most, len(self.labels[pool]) // size)):
            self._draw(f"{family}_{number}", family, pool, np.arange(number * size, (number + 1) * size))

    def add_populations(self, pool: str, size: int, seed: int, prefix: str = "", fewer: int = 0) -> None:
        """Adds targets with other class shares and other sub-populations, drawn from a pool without replacement.

        Args:
            pool: The pool's name.
            size: The samples of each target.
            seed: Of the draws.
            prefix: Put in front of the families, for a pool that is shifted already.
            fewer: How many of each kind to leave out.

        """
        generator = np.random.default_rng(seed)
        labels, classes = self.labels[pool].numpy(), self.classes
        if classes == 1:  # the fifths of the numbers
            labels, classes = np.searchsorted(np.quantile(labels, np.linspace(0, 1, 6)[1:-1]), labels), 5
        groups = _clusters(self.inputs[pool].flatten(1).numpy(), seed)
        kinds = (
            ("label_shift", labels, classes, SHARES[: len(SHARES) - fewer]),
            ("subpopulation", groups, CLUSTERS, (CLUSTER_SHARES,) * (SUBPOPULATIONS - fewer)),
        )
        for family, of, count, concentrations in kinds:
            frequency = np.maximum(np.bincount(of, minlength=count) / len(of), 1e-9)
            for number, concentration in enumerate(concentrations):
                shares = generator.dirichlet(np.full(count, concentration))
                weights = (shares / frequency)[of] + LEAST_WEIGHT
                chosen = generator.choice(len(of), size, replace=False, p=weights / weights.sum())
                self._draw(f"{prefix}{family}_{number}", prefix + family, pool, chosen)

    def _draw(self, name: str, family: str, pool: str, rows: NDArray[np.int64]) -> None:
        self.sets.append(SetInfo(name, "target", family, pool))
        self.rows[name] = rows


def _clusters(inputs: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    components = PCA(min(20, *inputs.shape), random_state=0).fit_transform(inputs)
    return KMeans(CLUSTERS, n_init=2, random_state=seed).fit_predict(components)


def chosen(everything: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Returns the families that are wanted, in their order; all of them for None."""
    return [family for family in everything if wanted is None or family in wanted]

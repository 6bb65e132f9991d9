"""One network of the matrix: how it is trained and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from images import DatasetName
from networks import NetworkName
from training import Precision


@dataclass
class Run:
    """One network of the matrix.

    Args:
        dataset: What it is trained on.
        network: Its name.
        seeds: One training for each.
        epochs: The number of epochs at most.
        optimizer: "sgd" or "adam".
        learning_rate: The step size.
        samples: The number of samples of each shifted set.
        sensitivity_samples: The number of those on which the sensitivities are taken.
        train_samples: The number of training images; None for all.
        families: The families of shifts; None for all.
        precision: Lightning's, of the training.
        jacobian: Whether the Jacobian of outputs by inputs is measured, the slowest of the measures.

    """

    dataset: DatasetName
    network: NetworkName
    seeds: list[int]
    epochs: int
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    samples: int
    sensitivity_samples: int = 256
    train_samples: int | None = None
    families: list[str] | None = None
    precision: Precision = "32-true"
    jacobian: bool = True

    def folder_of(self, seed: int) -> str:
        return f"{self.dataset}_{self.network}_{seed}"

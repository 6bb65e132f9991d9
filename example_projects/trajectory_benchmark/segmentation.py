"""Scores the headline on a small segmentation: discs and squares on a noisy ground, seen by a U-Net.

python example_projects/trajectory_benchmark/segmentation.py --table segmentation.csv

The monitor runs as it does for a user, and knows the true loss of its targets for the comparison alone. It takes a minute a
seed on one core.
"""

from __future__ import annotations

import csv
import logging
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import CLI
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tansens import Options, TangentSensitivityMonitor
from lightning_tansens.estimators import Headline
from lightning_tansens.estimators.headline import Blur
from lightning_tansens.record import HEADLINE, TRIVIAL

#: Pixels of a side; the ground, a disc and a square are the classes.
SIDE, CLASSES = 32, 3

#: Images to train on, of the reference and of each target.
TRAIN, REFERENCE, TARGET = 1000, 400, 200

#: The standard deviation of the pixels' noise.
NOISE = 0.15

#: When the estimates are compared, as a share of the epochs.
MOMENTS = (0.35, 0.7, 1.0)

Images = tuple[Tensor, Tensor]


def draw(count: int, seed: int, most: int = 3, radii: tuple[int, int] = (3, 7), discs: float = 0.5) -> Images:
    """Draws images (N, 1, 32, 32) and the class of each pixel (N, 32, 32).

    Args:
        count: N.
        seed: Of the draws.
        most: The largest number of shapes in an image.
        radii: The smallest and the largest.
        discs: The share of discs among the shapes.

    """
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images, classes = np.empty((count, 1, SIDE, SIDE)), np.zeros((count, SIDE, SIDE), np.int64)
    for image, labels in zip(images[:, 0], classes, strict=True):
        image[:] = generator.uniform(0.2, 0.4) + 0.1 * columns / SIDE
        for _ in range(generator.integers(1, most + 1)):
            radius, (top, left) = generator.integers(radii[0], radii[1] + 1), generator.integers(0, SIDE, 2)
            is_disc = generator.random() < discs
            down, right = np.abs(rows - top), np.abs(columns - left)
            inside = down**2 + right**2 <= radius**2 if is_disc else np.maximum(down, right) <= 0.85 * radius
            image[inside], labels[inside] = generator.uniform(0.45, 0.95), 1 if is_disc else 2
    images += NOISE * generator.normal(size=images.shape)
    return torch.tensor(images, dtype=torch.float32), torch.tensor(classes)


def targets(seed: int) -> dict[str, Images]:
    """Returns the targets, each named by its family and a number."""
    perturbed: dict[str, list[Callable[[Tensor], Tensor]]] = {
        "none": [lambda images: images] * 3,
        "noise": [lambda images, by=by: images + by * torch.randn_like(images) for by in (0.1, 0.2, 0.35)],
        "blur": [lambda images, by=by: torch.stack([Blur(by)(image) for image in images]) for by in (0.6, 0.9, 1.4)],
        "darker": [lambda images, by=by: by * images for by in (0.8, 0.6, 0.4)],
    }
    populations = {
        "crowded": [{"most": 5}, {"most": 8}],
        "small": [{"radii": (2, 4)}, {"radii": (2, 3)}],
        "shapes": [{"discs": 1.0}, {"discs": 0.0}],
    }
    torch.manual_seed(seed)
    found: dict[str, Images] = {}
    for family, perturbations in perturbed.items():
        for number, perturb in enumerate(perturbations):
            images, classes = draw(TARGET, 1000 * seed + len(found) + 10)
            found[f"{family}_{number}"] = perturb(images), classes
    for family, kinds in populations.items():
        for number, kind in enumerate(kinds):
            found[f"{family}_{number}"] = draw(TARGET, 1000 * seed + len(found) + 10, **kind)
    return found


class UNet(nn.Module):
    """Two halvings of the resolution, with the finer maps handed across."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second, self.third = _block(1, width), _block(width, 2 * width), _block(2 * width, 4 * width)
        self.upper, self.last = _block(6 * width, 2 * width), _block(3 * width, width)
        self.scores = nn.Conv2d(width, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        second = self.second(F.max_pool2d(first, 2))
        third = self.third(F.max_pool2d(second, 2))
        upper = self.upper(torch.cat([F.interpolate(third, scale_factor=2), second], 1))
        return self.scores(self.last(torch.cat([F.interpolate(upper, scale_factor=2), first], 1)))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class Segmenter(pl.LightningModule):
    """Learns the class of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Images, batch_index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Images, batch_index: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 2e-3)


def measure(seed: int, epochs: int) -> TangentSensitivityMonitor:
    """Trains a network and returns what the monitor has found at each epoch."""
    pl.seed_everything(seed, verbose=False)
    sets = {name: DataLoader(TensorDataset(*found), 100) for name, found in targets(seed).items()}
    monitor = TangentSensitivityMonitor(
        sets,
        measures=[],
        estimators=[Headline(criterion=F.cross_entropy, pseudo_labels="classes")],
        compare_with_labels=True,
        verbose=False,
        options=Options(num_loss_samples=REFERENCE),
    )
    train, reference = draw(TRAIN, 1000 * seed), draw(REFERENCE, 1000 * seed + 1)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = DataLoader(TensorDataset(*train), 50, shuffle=True), DataLoader(TensorDataset(*reference), 100)
    trainer.fit(Segmenter(), *loaders)
    return monitor


def score(table: Path = Path("segmentation.csv"), seeds: list[int] | None = None, epochs: int = 12) -> None:
    """Writes and prints the mean absolute errors over the trivial ones, by family.

    Args:
        table: Where the table goes.
        seeds: One network is trained for each; None for 0 to 2.
        epochs: How long, six at least: the first of the moments needs an earlier one.

    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    found: dict[str, list[tuple[float, float, bool, bool]]] = defaultdict(list)
    for seed in seeds or range(3):
        monitor = measure(seed, epochs)
        for record in (monitor.records[round(share * epochs) - 1] for share in MOMENTS):
            for name, target in record.targets.items():
                estimates, truth = target.estimates["loss"], target.loss
                estimate, trivial = estimates[HEADLINE], estimates[TRIVIAL]
                assert truth is not None
                assert estimate.low is not None
                assert estimate.high is not None
                errors = abs(estimate.value - truth), abs(trivial.value - truth)
                inside = estimate.low <= truth <= estimate.high
                found[name.partition("_")[0]].append((*errors, inside, estimate.reliable))
    rows = []
    for family, values in found.items():
        error, trivial, covered, reliable = np.mean(values, 0)
        rows.append([family, len(values), *(f"{value:.3f}" for value in (trivial, error / trivial, covered, reliable))])
    with table.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["family", "targets", "trivial", "estimate", "covered", "reliable"])
        writer.writerows(rows)
    print(table.read_text())


if __name__ == "__main__":
    sys.exit(CLI(score))

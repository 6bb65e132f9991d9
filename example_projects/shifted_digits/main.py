"""Estimate how a classifier of digits does on scans that differ from its own: the estimate, its interval, and the truth.

Run: ``python example_projects/shifted_digits/main.py``, with ``--picture FILE`` for a figure of the run.
"""

import argparse
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.show.figures import plot_answer

sys.path.append(str(Path(__file__).parents[1]))
from common import Classifier

warnings.filterwarnings("ignore", ".*does not have many workers")


def blurred(images: Tensor) -> Tensor:
    """Returns images in which each pixel is the mean of its 3 × 3 neighbours."""
    return F.avg_pool2d(images, 3, stride=1, padding=1)


def dimmed(images: Tensor) -> Tensor:
    """Returns images of less contrast with noise, as a worn-out scanner makes them."""
    generator = torch.Generator().manual_seed(0)
    return 0.4 * images + 0.3 + 0.1 * torch.randn(images.shape, generator=generator)


def make_data() -> tuple[TensorDataset, TensorDataset, dict[str, TensorDataset]]:
    """Returns a training set, a validation set, and test sets by the scanner that they come from."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target)
    parts = random_split(range(len(images)), [0.5, 0.25, 0.25], torch.Generator().manual_seed(0))
    train, validation, test = (torch.tensor(list(part)) for part in parts)
    scanners = {"same": images[test], "blurred": blurred(images[test]), "dimmed": dimmed(images[test])}
    return (
        TensorDataset(images[train], labels[train]),
        TensorDataset(images[validation], labels[validation]),
        {name: TensorDataset(scans, labels[test]) for name, scans in scanners.items()},
    )


def main(epochs: int, picture: Path | None) -> None:
    """Trains, and prints what the monitor says without labels and what the labels say."""
    pl.seed_everything(0, verbose=False)
    train, validation, scanners = make_data()
    # the labels of the test sets are used for the truth alone, which is printed next to the estimates
    monitor = TangentSensitivityMonitor(scanners, compare_with_labels=True)
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[monitor], enable_checkpointing=False, log_every_n_steps=10)
    model = Classifier([64, 100, 100, 10])
    trainer.fit(model, DataLoader(train, 32, shuffle=True), DataLoader(validation, 256))
    for name, target in monitor.records[-1].targets.items():
        estimates = monitor.estimates[name]
        print(f"{name}: accuracy {estimates.accuracy}; in truth {target.accuracy:.2f}")
    if picture is not None:
        plot_answer(monitor.records)[0].savefig(picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--picture", type=Path, help="where to write a figure of the run")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.picture)

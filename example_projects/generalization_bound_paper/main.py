"""The networks of Rácz et al. (2023): squared loss, and the sensitivity of each output on each class."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from common import ExampleCLI, ImageData
from squared_loss import DropoutLoss, SquaredLossClassifier

from lightning_tansens import TangentSensitivityMonitor


class BoundCLI(ExampleCLI):
    """The examples' command line; its CSV also has the training loss with dropout on, if a DropoutLoss kept it."""

    def rows(self, monitor: TangentSensitivityMonitor) -> list[dict[str, float]]:
        kept = {e: loss for one in self.trainer.callbacks if isinstance(one, DropoutLoss) for e, loss in one.losses.items()}
        return [
            {**row, "train_loss_with_dropout": kept[row["epoch"]]} if row["epoch"] in kept else row
            for row in monitor.history
        ]


if __name__ == "__main__":
    BoundCLI(SquaredLossClassifier, ImageData, subclass_mode_data=True)

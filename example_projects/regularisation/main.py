"""Scikit-learn's digits, trained twice from one seed: without and with tangent sensitivity in the loss."""

import sys
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_tansens import TangentSensitivityMonitor, TangentSensitivityRegulariser

sys.path.append(str(Path(__file__).parents[1]))
from common import Classifier, ExampleCLI
from digits.main import Digits

warnings.filterwarnings("ignore", "LightningCLI's args parameter")

REPORTED = {
    "mean squared sensitivity": "tansens/empirical/test",
    "test loss": "tansens/test_loss/actual",
    "test accuracy": "tansens/test_accuracy/actual",
}


class RegularisedClassifier(Classifier):
    """The other examples' classifier, with one more term in its training loss.

    Args:
        regulariser: The term; None trains without.
        kwargs: The classifier's own arguments.

    """

    def __init__(self, regulariser: TangentSensitivityRegulariser | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regulariser = regulariser

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        loss = super().training_step(batch, batch_index)
        if self.regulariser is None:
            return loss
        term = self.regulariser(self.network, batch[0])
        self.log("regulariser", term, on_step=False, on_epoch=True)
        return loss + term


def last_measurement(*options: str) -> dict[str, float]:
    """Runs the command line with further options and returns what was measured after the last epoch."""
    arguments, overwrite = [*sys.argv[1:], *options], {"overwrite": True}
    cli = ExampleCLI(RegularisedClassifier, Digits, args=arguments, save_config_kwargs=overwrite)
    (monitor,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, TangentSensitivityMonitor))
    return monitor.history[-1]


if __name__ == "__main__":
    without, regularised = last_measurement("--model.regulariser=null"), last_measurement()
    print(f"{'on the test set':<26}{'without':>12}{'with':>12}")
    for title, key in REPORTED.items():
        print(f"{title:<26}{without[key]:>12.4f}{regularised[key]:>12.4f}")

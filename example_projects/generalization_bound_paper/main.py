"""The networks of Rácz et al. (2023): squared loss, and the sensitivity of each output on each class."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from common import ExampleCLI, ImageData
from squared_loss import SquaredLossClassifier

if __name__ == "__main__":
    ExampleCLI(SquaredLossClassifier, ImageData, subclass_mode_data=True)

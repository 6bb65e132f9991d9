"""Scikit-learn's handwritten digits (8 × 8 pixels, no download) and a small ReLU network."""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

sys.path.append(str(Path(__file__).parents[1]))
from common import Classifier, ExampleCLI, ImageData, TensorImages


class Digits(ImageData):
    """1,347 images to train on and 450 to test on."""

    def load(self, train: bool) -> TensorImages:
        digits = load_digits()
        parts = train_test_split(digits.images, digits.target, random_state=0, stratify=digits.target)
        images, labels = parts[0 if train else 1], parts[2 if train else 3]
        return TensorImages(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))


if __name__ == "__main__":
    ExampleCLI(Classifier, Digits)

"""Every classification model of torchvision is measured as it is.

Run: ``python -m pytest -m slow tests/functional/test_torchvision.py``; the table in docs is written by
``python tests/benchmarks/bench_torchvision.py``.
"""

import math

import pytest
import torch

from tests.benchmarks.bench_torchvision import builders, measure

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", builders())
def test_measured_without_a_change(name):
    torch.manual_seed(0)
    row = measure(name)
    assert math.isfinite(row["sensitivity"])
    assert row["sensitivity"] > 0
    assert row["way"] in ("input_space", "parameter_space")

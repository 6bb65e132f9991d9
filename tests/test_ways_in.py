"""The four ways into the code: each diff of the contributors' page adds one file, and what it adds works."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.processes import run

ROOT = Path(__file__).parents[1]
DIFFS = ROOT / "docs" / "contributing"

MEASURE = """
import torch
from lightning_tansens.metrics.predictive_entropy import PredictiveEntropy
from tests.boring import fit, make_monitor
monitor = make_monitor(measures=[PredictiveEntropy()])
fit(monitor, max_epochs=1)
row = monitor.history[0]
assert 0 < row["tansens/predictive_entropy/test"] < 1.1
assert row["tansens/test_loss/predictive_entropy"] > 0
"""

ESTIMATOR = """
from lightning_tansens.estimators.difference_of_margins import DifferenceOfMargins
from tests.boring import fit, make_monitor
monitor = make_monitor(estimators=[DifferenceOfMargins()])
fit(monitor, max_epochs=1)
assert 0 <= monitor.history[0]["tansens/test_accuracy/difference_of_margins"] <= 1
"""

OPERATOR = """
import torch
from lightning_tansens.functional import chosen_method
class Threshold(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.p = torch.nn.Linear(3, 4), torch.nn.Parameter(torch.zeros(4))
    def forward(self, x):
        return torch.tanh(torch.rsub(self.layer(x), self.p))
assert chosen_method(Threshold(), torch.randn(5, 3)).way == "input_space"
"""

WRITER = """
from types import SimpleNamespace
from lightning.pytorch.loggers.logger import DummyLogger
from lightning_tansens.show.loggers import writer_of
writer = writer_of(DummyLogger())
sent = []
writer.logger = SimpleNamespace(experiment=SimpleNamespace(upload_figure=lambda *sending: sent.append(sending)))
writer.figure("tansens/figures/test", "a figure", 3)
assert writer.takes_figures and sent == [("tansens/figures/test", "a figure", 3)]
"""

WAYS = {"measure": MEASURE, "estimator": ESTIMATOR, "operator": OPERATOR, "writer": WRITER}


@pytest.mark.parametrize("ways", [[*WAYS], *(pytest.param([way], marks=pytest.mark.thorough) for way in WAYS)], ids=" ".join)
def test_a_diff_of_one_file_is_enough(ways, tmp_path):
    diffs = [DIFFS / f"{way}.diff" for way in ways]
    for diff in diffs:
        lines = diff.read_text().splitlines()
        assert len(lines) < 40
        assert [line for line in lines if line.startswith("+++")] == [lines[1]]
        assert lines[0] == "--- /dev/null"
    for folder in ("lightning_tansens", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["git", "apply", *diffs], [sys.executable, "-c", "".join(WAYS[way] for way in ways)]):
        ended = run(*command, limit=300, folder=tmp_path)
        assert ended.code == 0, ended.complained[-2000:]


def test_every_diff_is_tested():
    assert {path.stem for path in DIFFS.glob("*.diff")} == set(WAYS)

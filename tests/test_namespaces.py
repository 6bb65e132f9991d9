"""Programs that import ``pytorch_lightning``, and those that hide ``lightning`` behind a file of their own."""

import sys
from pathlib import Path

import pytest

from tests.processes import run

ROOT = Path(__file__).parents[1]

MAIN = """
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset


def points():
    x = torch.randn(16, 4)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8)


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(pl.LightningDataModule):
    train_dataloader = val_dataloader = test_dataloader = lambda self: points()


cli = LightningCLI(Classifier, Data, save_config_callback=None)
(save,) = cli.trainer.checkpoint_callbacks
kinds = {type(callback).__name__: callback for callback in cli.trainer.callbacks}
assert type(save).__name__ == "FreshModelCheckpoint" and save.best_model_path
assert kinds["FreshEarlyStopping"].wait_count == 1
assert [len(kinds[name].history) for name in ("TangentSensitivityMonitor", "GeneralizationBoundMonitor")] == [2, 2]
"""

CONFIG = """
trainer:
  max_epochs: 2
  accelerator: cpu
  logger: false
  callbacks:
    - class_path: lightning_tansens.TangentSensitivityMonitor
      init_args: {num_samples: 8}
    - class_path: lightning_tansens.GeneralizationBoundMonitor
      init_args: {num_samples: 8}
    - class_path: lightning_tansens.FreshEarlyStopping
      init_args: {monitor: tansens/empirical/test, min_delta: 1000}
    - class_path: lightning_tansens.FreshModelCheckpoint
      init_args: {monitor: tansens/empirical/test}
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def started(folder):
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.path.append({str(ROOT)!r})\n")
    return run(sys.executable, "main.py", "fit", "--config", "config.yaml", folder=folder)


@pytest.mark.thorough
def test_the_other_namespace_s_command_line_takes_all_callbacks(program):
    ended = started(program)
    assert ended.code == 0, ended.complained


def test_a_file_that_hides_lightning_is_named(program):
    (program / "lightning.py").touch()
    ended = started(program)
    assert ended.code == 2
    said = " ".join(ended.complained.split())
    assert f"expected the package lightning, but {program / 'lightning.py'} hides it; rename that file" in said

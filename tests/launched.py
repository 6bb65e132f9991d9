"""A training that is launched as a script on two processes: python tests/launched.py STRATEGY RESULT.json."""

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from tests.boring import untimed
from tests.test_ddp import measure


class Write(pl.Callback):
    """Writes the monitor's history from rank 0, which with ddp_spawn lives in a process of its own."""

    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            (monitor,) = [callback for callback in trainer.callbacks if hasattr(callback, "history")]
            Path(sys.argv[2]).write_text(json.dumps(untimed(monitor.history)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure("seven samples", Write(), devices=2, strategy=sys.argv[1])

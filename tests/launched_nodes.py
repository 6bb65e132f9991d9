"""Trainings on two nodes: python tests/launched_nodes.py FOLDER KIND CASE..., by one torchrun for each node.

The second node reads its data slowly, and its last process joins each measurement late.
"""

import os
import sys
import time
from pathlib import Path

import torch

from lightning_tansens.monitor import callback
from tests import launched, launched_sharded
from tests.boring import Points

#: Seconds by which one process is late for each measurement.
LATE = 3.0


def slow_down():
    read, measure = Points.__getitem__, callback.measure
    if os.environ["GROUP_RANK"] == "1":

        def read_slowly(self, index):
            time.sleep(0.01)
            return read(self, index)

        Points.__getitem__ = read_slowly
    if os.environ["RANK"] == "3":

        def join_late(*args):
            time.sleep(LATE)
            return measure(*args)

        callback.measure = join_late


if __name__ == "__main__":
    torch.set_num_threads(1)
    slow_down()
    folder, kind, *cases = sys.argv[1:]
    for case in cases:
        where = Path(folder) / case.replace(" ", "_")
        nodes = {"devices": 2, "num_nodes": 2}
        if kind == "ddp":
            launched.train(case, where, strategy="ddp", logger=True, **nodes)
        else:
            launched_sharded.train(case, where, (2, 2), **nodes)

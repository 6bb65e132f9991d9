"""Trainings on two nodes, of one torchrun each.

The second node reads its data slowly, and its last process joins each measurement late.
"""

import os
import time

from lightning_tansens.monitor import callback
from tests import launched_sharded
from tests.boring import Points
from tests.launched import folder_of, train

#: Seconds by which one process is late for each measurement.
LATE = 1.0


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


def train_late(launched):
    """Trains cases of one kind, "ddp" or "sharded"."""
    slow_down()
    kind, *cases = launched.arguments
    for case in cases:
        where = folder_of(case, launched.folder)
        if kind == "ddp":
            train(case, where, launched.trainer)
        else:
            launched_sharded.train(case, where, (2, 2), **launched.trainer(where))

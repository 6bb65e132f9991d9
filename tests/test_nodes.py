"""Two nodes of two processes each give the values of one process, also where one of them is slow and comes late.

The nodes are two torchruns on one machine, which meet at its loopback address. Whatever hangs is killed, and has failed.
"""

import json

from tests import test_ddp, test_sharded
from tests.launched import USED
from tests.launched_nodes import train_late
from tests.processes import SEVERAL_PROCESSES, launch

pytestmark = SEVERAL_PROCESSES


def found_by(folder, *arguments):
    """What each process of two nodes has found, by case and stage."""
    launch(train_late, folder, *arguments, nodes=2, limit=900)
    found = {}
    for file in sorted(folder.glob("*/*.json")):
        key = file.parent.name.replace("_", " "), file.name.split(".")[0]
        found.setdefault(key, []).append(json.loads(file.read_text()))
    assert all(len(ranks) == 4 for ranks in found.values())
    return found


def test_nodes_give_the_values_of_one_process(tmp_path):
    cases = [USED, "one sample"]  # some processes have no sample of a set
    found = found_by(tmp_path, "ddp", *cases)
    for case in cases:
        for stage, one in test_ddp.alone(case).items():
            test_ddp.assert_same_on_all(found[case, stage], one)


def test_sharded_nodes_give_the_values_of_one_process(tmp_path):
    """Parallel in data over the nodes, in tensors within each."""
    found = found_by(tmp_path, "sharded", "gathered", "as used", "in step")
    for stage, rows in {"fit": 2, "test": 3, "resumed": 3}.items():
        test_sharded.test_gathered_networks_give_the_values_of_one_process(stage, rows, found)
        test_sharded.test_weights_that_are_gathered_as_they_are_used_give_the_values_of_one_process(stage, rows, found)
        test_sharded.test_networks_that_are_called_in_step_give_the_estimates_of_one_process(stage, rows, found)

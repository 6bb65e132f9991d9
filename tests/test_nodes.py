"""Two nodes of two processes each give the values of one process, also where one of them is slow and comes late.

The nodes are two torchruns on one machine, which meet at its loopback address. Whatever hangs is killed, and has failed.
"""

import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

from tests import test_ddp, test_sharded
from tests.launched import USED

ROOT = Path(__file__).parents[1]
#: Seconds.
LIMIT = 900
#: By how many seconds the second node starts later.
DELAY = 4

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="several processes on a CPU need gloo"),
]


def launch(folder, *arguments):
    """Runs the script on two nodes, and returns what each process has found, by case and stage."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--nnodes=2", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = [str(ROOT / "tests" / "launched_nodes.py"), str(folder), *arguments]

    def run(node):
        time.sleep(DELAY * node)
        command = [sys.executable, "-m", "torch.distributed.run", *where, f"--node_rank={node}", *script]
        with open(folder / f"output{node}.txt", "w+") as output:
            code = test_ddp.limited(command, LIMIT, env=environment, stdout=output, stderr=output)
            output.seek(0)
            return code, output.read()[-3000:]

    with ThreadPoolExecutor(2) as pool:
        for code, said in pool.map(run, range(2)):
            assert code is not None, f"hangs: killed after {LIMIT} s\n{said}"
            assert code == 0, said
    found = {}
    for file in sorted(folder.glob("*/*.json")):
        key = file.parent.name.replace("_", " "), file.name.split(".")[0]
        found.setdefault(key, []).append(json.loads(file.read_text()))
    assert all(len(ranks) == 4 for ranks in found.values())
    return found


def test_nodes_give_the_values_of_one_process(tmp_path):
    cases = [USED, "one sample"]  # some processes have no sample of a set
    found = launch(tmp_path, "ddp", *cases)
    for case in cases:
        for stage, one in test_ddp.alone(case).items():
            test_ddp.assert_same_on_all(found[case, stage], one)


def test_sharded_nodes_give_the_values_of_one_process(tmp_path):
    """Parallel in data over the nodes, in tensors within each."""
    found = launch(tmp_path, "sharded", "gathered", "in step")
    for stage, rows in {"fit": 2, "test": 3, "resumed": 3}.items():
        test_sharded.test_gathered_networks_give_the_values_of_one_process(stage, rows, found)
        test_sharded.test_networks_that_are_called_in_step_give_the_estimates_of_one_process(stage, rows, found)

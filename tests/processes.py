"""The only way in which tests start processes: in a group of their own, which is killed when its time is over.

``launch`` calls a function of a test module on several processes, as users start a training:
python tests/processes.py MODULE:FUNCTION STRATEGY PROCESSES LOGGER FOLDER ARGUMENT..., also under torchrun.
"""

import atexit
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import loggers
from lightning.pytorch.strategies import DDPStrategy

ROOT = Path(__file__).parents[1]
#: Seconds; about ten times what the longest call takes on two idle cores.
LIMIT = 480
#: By how many seconds each node starts later than the one before.
DELAY = 4
#: After so many seconds a process gives up to wait for another one.
PATIENCE = timedelta(seconds=60)

LAUNCHED_BY = ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "RANK", "MASTER_ADDR", "MASTER_PORT")


_NEEDS_GLOO = pytest.mark.skipif(not dist.is_gloo_available(), reason="several processes on a CPU need gloo")
#: For a file of tests that call :func:`launch`.
SEVERAL_PROCESSES = [pytest.mark.processes, _NEEDS_GLOO]


def several_processes(test):
    """Marks one test that calls :func:`launch`."""
    return pytest.mark.processes(_NEEDS_GLOO(test))


# ------------------------------------------------------------------------------------------- in the test's process


class Ended(NamedTuple):
    """How a command has ended, what it printed, and what it printed on standard error."""

    code: int
    said: str
    complained: str


def run(*command, limit=LIMIT, folder=None):
    """Runs a command to its end; one that has not ended when its time is over is killed, and the test has failed.

    Args:
        command: The command; its modules are those of the folder.
        limit: Seconds.
        folder: Where to run it; None for the repository's root on the path, and the current folder.

    """
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHED_BY}
    paths = [str(folder or ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    # a process that is aborted, say by an error in gloo's threads, prints where it was
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        code = limited([*map(str, command)], limit, env=environment, stdout=said, stderr=complained, cwd=folder)
        for file in (said, complained):
            file.seek(0)
        ended = Ended(code, said.read(), complained.read())
    assert code is not None, f"{command} hangs: killed after {limit} s\n{ended.said[-1000:]}\n{ended.complained[-3000:]}"
    return ended


def limited(command, seconds, **options):
    """Runs a command in a process group of its own; returns its code, or None if it had to be killed."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # torchrun's workers are in groups of their own and end with it; whatever is left of the others is killed
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sent)
            except ProcessLookupError:
                break
            time.sleep(0.5 if process.poll() is not None else 10)
        process.wait()


def launch(function, folder, *arguments, way="torchrun", processes=2, nodes=1, logger="default", limit=LIMIT):
    """Calls a function of a test module on several processes, with a :class:`Launched`.

    Args:
        function: The function.
        folder: Where the processes keep files.
        arguments: Words for the function.
        way: "ddp", "ddp_spawn" or "torchrun".
        processes: How many, on each node.
        nodes: How many torchruns, which meet at this machine's loopback address; each starts a little after the one before.
        logger: The Trainer's logger: "default", "csv", "wandb" or "mlflow".
        limit: Seconds.

    Returns:
        What each process has saved, by rank; nothing if none has.

    """
    strategy = "ddp" if way == "torchrun" else way
    script = [ROOT / "tests" / "processes.py", f"{function.__module__}:{function.__name__}"]
    script += [strategy, processes, logger, folder, *arguments]
    meeting = [f"--nnodes={nodes}", "--master_addr=127.0.0.1", f"--master_port={_free_port()}"]

    def start(node):
        time.sleep(DELAY * node)
        where = ["--standalone"] if nodes == 1 else [*meeting, f"--node_rank={node}"]
        torchrun = ["-m", "torch.distributed.run", *where, f"--nproc_per_node={processes}"]
        return run(sys.executable, *(torchrun if way == "torchrun" else []), *script, limit=limit)

    with ThreadPoolExecutor(nodes) as pool:
        failed = [ended for ended in pool.map(start, range(nodes)) if ended.code != 0]
    assert not failed, "\n".join(f"{ended.said[-1000:]}\n{_first_failure(ended.complained)}" for ended in failed)
    saved = [torch.load(file, weights_only=False) for file in sorted(folder.glob("saved.*.pt"))]
    assert len(saved) in (0, processes * nodes)
    return saved


def _first_failure(complained):
    """Returns what processes printed when they failed: torchrun's own traceback is the last one, an abort has none."""
    start = min(found for found in (complained.find("Traceback"), complained.find("Fatal"), len(complained)) if found >= 0)
    return complained[max(0, start - 1000) :][:5000]


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# ------------------------------------------------------------------------------------- in the processes it starts


@dataclass(frozen=True)
class Launched:
    """How a process was started."""

    strategy: str
    processes: int
    logger: str
    folder: Path
    arguments: tuple[str, ...]

    def trainer(self, folder=None):
        """Arguments of a Trainer: as users have it, with a logger."""
        folder = self.folder if folder is None else folder
        start = "spawn" if self.strategy == "ddp_spawn" else "popen"
        return {
            "strategy": DDPStrategy(process_group_backend="gloo", timeout=PATIENCE, start_method=start),
            "devices": self.processes,
            "num_nodes": int(os.environ.get("GROUP_WORLD_SIZE", "1")),  # which torchrun sets
            "logger": logger_of(self.logger, folder),
            "default_root_dir": folder,
        }

    @contextmanager
    def group(self):
        """Joins the processes, for what needs no Trainer; yields the rank of this one."""
        dist.init_process_group("gloo", timeout=PATIENCE)
        yield dist.get_rank()
        # no process closes its sockets while another one still reads from them
        store, ranks = dist.distributed_c10d._get_default_store(), range(dist.get_world_size())
        store.set(f"done {dist.get_rank()}", "")
        store.wait([f"done {rank}" for rank in ranks], PATIENCE)
        dist.destroy_process_group()

    def save(self, value):
        """Hands a value to the process of the test; the number is torchrun's."""
        torch.save(value, self.folder / f"saved.{os.environ['RANK']}.pt")


def backend_of(device):
    """What processes talk through on "cpu" or "gpu": gloo also where several share one GPU, which NCCL does not let them."""
    return "nccl" if device == "gpu" and os.environ.get("WORLD_SIZE", "1") == "1" else "gloo"


def share_one_gpu(device):
    """Joins the processes before Lightning does, which would bind a group to its device; gloo's groups are not."""
    if device == "gpu" and backend_of(device) == "gloo":
        dist.init_process_group("gloo", timeout=PATIENCE)


def logger_of(name, folder):
    """A logger as users make it; the default one for "default"."""
    if name == "csv":
        return loggers.CSVLogger(folder)
    if name == "wandb":
        os.environ.setdefault("WANDB_SILENT", "true")
        return loggers.WandbLogger(save_dir=folder, offline=True)
    if name == "mlflow":
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # which it would rather have replaced
        return loggers.MLFlowLogger(tracking_uri=f"file:{folder}/mlruns")
    return True


if __name__ == "__main__":
    torch.set_num_threads(1)
    target, strategy, processes, logger, folder, *arguments = sys.argv[1:]
    module, _, function = target.partition(":")
    called = getattr(importlib.import_module(module), function)
    called(Launched(strategy, int(processes), logger, Path(folder), tuple(arguments)))
    # torch 2.14 aborts a process if a thread of gloo lets go of a tensor while the interpreter is taken down
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

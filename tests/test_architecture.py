"""The house: which room may import which, and how many modules stand outside of a room."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "lightning_tansens"

#: What every room may import.
GROUND = {"checks", "errors", "record", "version"}

#: For each room, the other rooms that it may import.
ALLOWED = {
    "tangent": set(),
    "bounds": {"tangent"},
    "functional": {"tangent", "bounds"},
    "metrics": {"tangent", "bounds", "functional"},
    "estimators": {"tangent", "metrics"},
    "show": set(),
    "monitor": {"tangent", "bounds", "functional", "metrics", "estimators", "show"},
    "command_line": {"monitor", "show"},
}

#: The rooms that know the Trainer.
TRAINER = {"monitor", "command_line"}


def imports_of(path):
    """The modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            yield from [name.name for name in node.names]


def files_of(room):
    return sorted((PACKAGE / room).rglob("*.py"))


def test_every_folder_is_a_known_room():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(ALLOWED)


def test_few_modules_stand_outside_of_a_room():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", *GROUND}


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_run_one_way(room):
    for path in files_of(room):
        for name in imports_of(path):
            if name.startswith("lightning_tansens."):
                other = name.split(".")[1]
                assert other in {room, *GROUND, *ALLOWED[room]}, f"{path.relative_to(PACKAGE)} imports {name}"


def test_the_ground_stands_on_nothing():
    for module in sorted(GROUND):
        names = [name for name in imports_of(PACKAGE / f"{module}.py") if name.startswith("lightning_tansens")]
        assert names == []


def test_no_two_modules_import_one_another():
    known = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    arrows = {}
    for module, path in known.items():
        found = {name if name in known else name.rpartition(".")[0] for name in imports_of(path)}
        arrows[module] = {name for name in found if name in known and name != module}
    done, going = set(), []

    def visit(module):
        assert module not in going, " -> ".join([*going[going.index(module) :], module])
        if module not in done:
            going.append(module)
            for other in sorted(arrows[module]):
                visit(other)
            done.add(going.pop())

    for module in arrows:
        visit(module)


@pytest.mark.parametrize("room", sorted(set(ALLOWED) - TRAINER))
def test_only_the_callbacks_know_the_trainer(room):
    for path in files_of(room):
        names = [name for name in imports_of(path) if name.startswith("lightning.pytorch")]
        allowed = ("lightning.pytorch.loggers", "lightning.pytorch.utilities", "lightning.pytorch.callbacks")
        assert [name for name in names if not name.startswith(allowed)] == [], path.relative_to(PACKAGE)


#: What starts processes, or joins them; only ``tests/processes.py``, which gives them a time limit, may use it.
STARTS = (
    "subprocess",
    "multiprocessing",
    "torch.multiprocessing",
    "torch.distributed.run",
    "torch.distributed.elastic",
    "pty",
)
OF_THE_SYSTEM = ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen")
BY_NAME = ("ProcessPoolExecutor", "DDPStrategy", "dist.init_process_group", *(f"os.{name}" for name in OF_THE_SYSTEM))


def ways_to_start(path):
    """How a file of tests starts processes, or lets a Trainer do it."""
    for name in imports_of(path):
        if name.startswith(STARTS) and name != "multiprocessing.shared_memory":
            yield name
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Attribute, ast.Name)) and ast.unparse(node) in BY_NAME:
            yield ast.unparse(node)
        pairs = [(node.arg, node.value)] if isinstance(node, ast.keyword) else []
        if isinstance(node, ast.Dict):
            pairs += [(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values)]
        for key, value in pairs:
            if isinstance(value, ast.Constant) and key in ("devices", "strategy") and value.value != 1:
                yield f"{key}={value.value!r}"


def test_tests_start_processes_in_one_way():
    files = [path for path in TESTS.rglob("*.py") if "benchmarks" not in path.parts]
    found = {path.name for path in files if list(ways_to_start(path))}
    assert found == {"processes.py"}


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess",
        "from multiprocessing import Process",
        "def f():\n    import torch.multiprocessing as mp",
        "import torch.distributed as dist\ndist.init_process_group('gloo')",
        "import os\nos.fork()",
        "fit(strategy='ddp', devices=2)",
        "from lightning.pytorch.strategies import DDPStrategy\nDDPStrategy()",
    ],
)
def test_the_search_for_processes_finds(text, tmp_path):
    (tmp_path / "test_it.py").write_text(text)
    assert list(ways_to_start(tmp_path / "test_it.py"))

"""The house: which room may import which, and how many modules stand outside of a room."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_tansens"

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

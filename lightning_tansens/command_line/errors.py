"""Errors that the command prints in one line instead of a traceback."""

from __future__ import annotations

import re

#: How jsonargparse says which type it has tried.
_TYPE = r"Expected a (<class |typing\.|\w+\[)"


class UsageError(Exception):
    """An argument, the configuration or a checkpoint cannot be used; the message names the file."""


def useful_part(error: str) -> str:
    """Returns the line of an error of jsonargparse that says what was expected, behind the keys that lead to it.

    The message has ten to seventy lines: an error for each type that is allowed, and errors within these. The deepest one
    is about what was written: ``model: Model: lr: expected float, but got fast``.
    """
    above: list[tuple[int, str]] = []
    said: list[tuple[int, list[str], str]] = []
    for line in filter(str.strip, error.splitlines()):
        text = line.lstrip(" -")
        depth = len(line) - len(line.lstrip())
        above = [(indent, name) for indent, name in above if indent < depth]
        heading = re.match(r"Parser key \"(.+)\":|Problem with given class_path '(?:.*\.)?(.+)':", text)
        if heading:
            above.append((depth, heading[1] or heading[2]))
        elif not re.match(
            r"Does not validate|Subtypes:|Errors:|Given value|Subclass types expect|a class path|a dict ", text
        ):
            said.append((depth, [name for _, name in above], text))
    if not said:
        return error
    depth, keys, _ = max(said, key=lambda one: one[0])
    deepest = [text for indent, names, text in said if (indent, names) == (depth, keys)]
    other = [text for text in deepest if not re.match(_TYPE, text)]  # the types beside it are of no use then
    alternatives = other[0] if other else " or ".join(deepest)
    text = re.sub(r"<class '(?:.*?\.)?(\w+)'>|typing\.", r"\1", alternatives).replace(" or Expected a ", " or ")
    text = re.sub(r"^Expected a (.+)\. Got value: ", r"expected \1, but got ", text).replace("NoneType", "None")
    given = re.search(r"^ *Given value: (.{1,200})$", error, re.MULTILINE)
    if text.startswith("Expected a ") and given:
        text = f"expected {text.removeprefix('Expected a ')}, but got {given[1]}"
    path = r"^expected dot import path string: ([^\s,]+).*"
    return ": ".join([*keys, re.sub(path, r"expected class paths (package.module.Class), but got \1", text)])

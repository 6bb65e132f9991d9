"""Errors that the command prints in one line instead of a traceback."""

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
    deepest = [
        re.sub("^Expected <", "Expected a <", text) for indent, names, text in said if (indent, names) == (depth, keys)
    ]
    other = [text for text in deepest if not re.match(_TYPE, text)]  # the types beside it are of no use then
    if other:
        text = other[0]
    else:
        found = [text.removeprefix("Expected a ").partition(". Got value: ") for text in deepest]
        given = re.search(r"^ *Given value: (.{1,200})$", error, re.MULTILINE)
        value = next((value for *_, value in found if value), given[1] if given else None)
        types = " or ".join(dict.fromkeys(kind for kind, *_ in found))
        text = f"expected {types}" + ("" if value is None else f", but got {value}")
    text = re.sub(r"<class '(?:.*?\.)?(\w+)'>|typing\.", r"\1", text).replace("NoneType", "None")
    path = r"^Expected a dot import path string: ([^\s,]+).*"
    return ": ".join([*keys, re.sub(path, r"expected class paths (package.module.Class), but got \1", text)])

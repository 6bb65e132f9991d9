"""What each measure is, as text for a run's page: taken from the measures' own docstrings."""

from __future__ import annotations

import inspect
import re

#: The papers that docstrings name.
PAPERS = {
    "Daróczy 2022": "https://doi.org/10.3390/math10071123",
    "Rácz et al. 2023": "https://arxiv.org/abs/2310.17378",
}


def describe(key: str, measured: object) -> str:
    """Returns what a measure is, its formula and its source, as Markdown.

    Args:
        key: The name under which it is logged.
        measured: The measure; its class has a docstring that begins with a sentence, as every measure's does.

    Example:
        >>> from lightning_tansens.metrics import InputOutputSensitivity
        >>> print(describe("input_output", InputOutputSensitivity()).splitlines()[0])
        **input_output**: The mean norm of the network's Jacobian over a set, and the loss estimate built on it.

    """
    text = re.split(r"\n(?:Args|Attributes|Raises|Example|Returns):", inspect.getdoc(type(measured)) or "")[0]
    sentence, _, rest = text.partition("\n\n")
    parts = [f"**{key}**: {_joined(sentence)}"]
    formula = re.search(r"\.\. math::(.*?)(?=\n\S|\Z)", rest, re.DOTALL)
    if formula:
        parts.append("\n".join("    " + line.strip() for line in formula.group(1).strip().splitlines()))
    source = re.search(r"\(([^()]*(?:Eq|Section|Definition|after)[^()]*)\)", rest)
    if source:
        parts.append(_linked(_joined(source.group(1))))
    return "\n\n".join(parts)


def _joined(text: str) -> str:
    """Without line breaks and the marks of reStructuredText."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", " ".join(text.split())).replace("``", "`")


def _linked(text: str) -> str:
    for name, address in PAPERS.items():
        text = text.replace(name, f"[{name}]({address})")
    return text

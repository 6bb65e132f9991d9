"""Describes measures and estimators by the first sentence of their docstrings."""

from __future__ import annotations

import inspect


def describe(explained: object) -> str:
    """Returns a name in the log and a sentence about it, as Markdown.

    Args:
        explained: A measure or an estimator; its ``key`` is its name, its docstring begins with a sentence.

    Example:
        >>> from lightning_tansens.metrics import InputOutputSensitivity
        >>> describe(InputOutputSensitivity())
        "**input_output**: The mean norm of the network's Jacobian over a set, and the loss estimate built on it."

    """
    sentence = (inspect.getdoc(type(explained)) or "").partition("\n")[0]
    return f"**{getattr(explained, 'key', type(explained).__name__)}**: {sentence}"

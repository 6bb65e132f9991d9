"""Checks of arguments; each message names the argument, what was expected and what came."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

#: The largest depth or order that is taken: sums over it are held in memory.
MAX_ORDER = 1_000_000


def check_model(model: object) -> None:
    """Raises TypeError unless ``model`` is a ``torch.nn.Module``."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, but got {type(model).__name__}")


def check_seed(seed: object) -> None:
    """Raises ValueError unless ``seed`` is a 64-bit integer."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed: expected an integer between -2^63 and 2^63 - 1, but got {seed!r}")


def check_counts(at_least: int = 1, at_most: int | None = None, **counts: Any) -> None:
    """Raises ValueError unless each number is an integer in the range; 3.0 and NumPy's numbers count as integers."""
    for name, number in counts.items():
        if not _is_number(number) or number != _floor(number) or number < at_least:
            expected = "a positive integer" if at_least == 1 else f"an integer of at least {at_least}"
            raise ValueError(f"{name}: expected {expected}, but got {number!r}")
        if at_most is not None and number > at_most:
            raise ValueError(f"{name}: expected an integer of at most {at_most}, which memory allows, but got {number!r}")


def check_numbers(at_least: float = -math.inf, infinite: bool = False, **numbers: Any) -> None:
    """Raises ValueError unless each number is at least ``at_least``, and finite unless ``infinite`` is allowed."""
    limit = "" if at_least == -math.inf else f" >= {at_least:g}"
    for name, number in numbers.items():
        if not _is_number(number) or not number >= at_least or math.isnan(number) or (math.isinf(number) and not infinite):
            raise ValueError(f"{name}: expected a {'' if infinite else 'finite '}number{limit}, but got {number!r}")


def check_share(name: str, value: Any) -> None:
    """Raises ValueError unless the value is a number between 0 and 1, both excluded."""
    if not _is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, both excluded, but got {value!r}")


def check_choice(name: str, value: object, choices: Sequence[str], otherwise: str = "") -> None:
    """Raises ValueError unless the value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)} {otherwise}".rstrip() + f", but got {value!r}")


def check_text(name: str, value: object) -> None:
    """Raises TypeError unless the value is text, and ValueError if it is empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, but got {value!r}")
    if not value:
        raise ValueError(f"{name}: expected text, but got an empty one")


def check_callable(name: str, value: object) -> None:
    """Raises TypeError unless the value is a callable or None, which stands for a default."""
    if value is not None and not callable(value):
        raise TypeError(f"{name}: expected a callable or None, but got {value!r}")
    if isinstance(value, type) and issubclass(value, nn.Module):
        raise TypeError(f"{name}: expected a callable or None, but got the class {value.__name__}; pass {value.__name__}()")


def check_tensor(name: str, value: object) -> None:
    """Raises TypeError unless the value is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, but got {type(value).__name__}")


def check_shape_of(expected: str, value: object, like: Tensor, remedy: str) -> None:
    """Raises ValueError unless the value is a tensor of another one's shape; the message begins with ``expected``."""
    if not isinstance(value, Tensor) or value.shape != like.shape:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{expected} {tuple(like.shape)}, but got {came}{remedy}")


def checked_positions(name: str, positions: object, samples: int) -> list[int]:
    """Returns the samples' positions in their set, one integer for each; ``name`` is what the argument is called.

    Raises:
        TypeError: If they are no sequence of integers.
        ValueError: If they are not one for each sample, or one is negative.
    """
    try:
        if isinstance(positions, (str, bytes)) or not isinstance(positions, (Sequence, Tensor, np.ndarray)):
            raise TypeError(type(positions).__name__)
        found = [operator.index(position) for position in positions]
    except TypeError:
        raise TypeError(f"{name}: expected one integer for each of the {samples} samples, but got {positions!r}") from None
    if len(found) != samples:
        raise ValueError(f"{name}: expected one for each of the {samples} samples, but got {len(found)}")
    if found and min(found) < 0:
        raise ValueError(f"{name}: expected positions from 0 on, but got {min(found)}")
    return found


def positions_from(name: str, positions: object, samples: int, start: int = 0) -> Sequence[int]:
    """Returns :func:`checked_positions`; without positions those from ``start`` on."""
    return range(start, start + samples) if positions is None else checked_positions(name, positions, samples)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_))


def _floor(number: Any) -> Any:
    return number if isinstance(number, int) else math.floor(number) if math.isfinite(number) else math.nan

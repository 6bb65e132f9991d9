"""The random states that loading a sample may touch: the global ones, and generators that a data set keeps itself."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

#: How deep generators are looked for: a subset of a data set with a composition of transforms is four.
_DEPTH = 6
_WIDTH = 100

#: The kinds of random generators that keep a state of their own.
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def sample_seed(seed: int, position: int) -> int:
    """Returns the seed of what is random about one sample."""
    return seed * 1_000_003 + position


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Restores the global random states after the block, also where it raises."""
    isolation = isolate_rng(include_cuda=has_cuda())
    isolation.__enter__()
    try:
        yield
    finally:
        isolation.__exit__(None, None, None)  # of an exception it would restore nothing


@cache
def has_cuda() -> bool:
    """Says whether there is a CUDA device; asked once, as each question looks for a driver anew."""
    return torch.cuda.is_available()


def seed_devices(seed: int) -> None:
    """Seeds the CUDA devices, whose states :func:`isolated_rng` puts back.

    ``torch.manual_seed`` seeds them too, but also kinds of devices whose states nobody puts back, and for each kind that is
    absent it makes a stack trace.
    """
    if has_cuda():
        torch.cuda.manual_seed_all(seed)


def attributes(module: nn.Module) -> list[object]:
    """Returns the public attributes of a module and of those in it, among which generators may be."""
    return [value for part in module.modules() for name, value in vars(part).items() if not name.startswith("_")]


class Randomness:
    """Seeds everything random about some objects (data sets with their transforms and generators), and puts it back.

    Example:
        >>> class Noise:
        ...     generator = None
        >>> noise = Noise()
        >>> noise.generator = np.random.default_rng(0)
        >>> randomness = Randomness(noise)
        >>> with randomness.isolated():
        ...     randomness.seed(3)
        ...     first = noise.generator.random()
        >>> noise.generator.random() == np.random.default_rng(0).random()
        True
    """

    def __init__(self, *owners: object) -> None:
        seen: set[int] = set()
        self._generators = [generator for owner in owners for generator in _find(owner, _DEPTH, seen)]

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Restores every state after the block."""
        with isolated_rng(), self.isolated_generators():
            yield

    @contextmanager
    def isolated_generators(self) -> Iterator[None]:
        """Restores the states of the generators that the object holds after the block."""
        states = [(generator, state_of(generator)) for generator in self._generators]
        try:
            yield
        finally:
            for generator, state in states:
                put_state(generator, state)

    def seed(self, seed: int) -> None:
        """Seeds every state; inside of :meth:`isolated` only."""
        seed %= 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        for generator in self._generators:
            _seed(generator, seed)


_LEAVES = (str, bytes, int, float, torch.Tensor, np.ndarray, type, ModuleType)


def _find(value: object, depth: int, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen or depth < 0 or isinstance(value, _LEAVES):
        return
    seen.add(id(value))
    if isinstance(value, GENERATORS):
        yield value
        return
    if isinstance(value, dict):
        held = list(value.values())
    else:
        held = list(value if isinstance(value, (list, tuple)) else getattr(value, "__dict__", {}).values())
    # a list of samples is long and holds no generators behind its first entries
    for item in held[:_WIDTH]:
        yield from _find(item, depth - 1, seen)


def state_of(generator: Any) -> Any:
    """Returns the state of one of :data:`GENERATORS`, a copy that :func:`put_state` takes."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def put_state(generator: Any, state: Any) -> None:
    """Puts a generator back into a state."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    else:
        generator.seed(seed)

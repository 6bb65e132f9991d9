"""How a batch becomes inputs, targets and the network's outputs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_tansens.monitor.data.batches import unpack_batch
from lightning_tansens.monitor.data.subsets import CacheBudget
from lightning_tansens.monitor.gathering import whole
from lightning_tansens.monitor.processes import Lockstep, calling
from lightning_tansens.tangent.batches import OutputPicker, call_model, map_tensors, pick_output
from lightning_tansens.tangent.features import outputs_and_features
from lightning_tansens.tangent.isolation import evaluation

#: The most entries of an input that are gathered.
MAX_ENTRIES = 512

#: Splits a batch into inputs and targets (None where there are none).
Unpack = Callable[[Any], tuple[Any, Any]]


class Seen(NamedTuple):
    """What the estimators see of a batch of N samples."""

    outputs: Any  #: What the network returned, shape (N, ...).
    features: Tensor | None = None  #: The inputs of its last layer, shape (N, F); None where no estimator needs them.
    entries: Tensor | None = None  #: Some entries of the inputs, shape (N, E); None as well.


@dataclass(frozen=True)
class Reading:
    """How batches of a set are read, and what is gathered of their outputs."""

    unpack: Unpack  #: Splits a batch into inputs and targets.
    output: OutputPicker | None = None  #: Picks the tensor of outputs; None where the network returns one.
    num_outputs: int = 0  #: The number of samples whose outputs the estimators get; 0 for none.
    class_scores: bool | None = None  #: Whether outputs are class scores; None to find out from the first batch.
    features: bool = False  #: Whether the estimators get the features too.
    entries: bool = False  #: Whether they get some entries of the inputs.
    labelled: bool = False  #: Whether the estimators get the labels, which only the reference and its copies give them.
    #: Changes the inputs of a batch, given the samples' positions; None leaves them as they are.
    perturb: Callable[[Any, Sequence[int]], Tensor] | None = None
    #: The memory in which perturbed batches are kept, together with the monitor's subsets; None keeps none.
    budget: CacheBudget | None = None
    with_loss: bool = True  #: Whether the loss of a labelled set is taken; without it the labels serve the estimators alone.
    num_read: int | None = None  #: How many of the set's samples are read; None for all.

    def split(self, batch: Any) -> tuple[Any, Any]:
        """Returns a batch's inputs and targets.

        Raises:
            TypeError: If ``unpack`` does not take the batch or returns no pair.
        """
        try:
            pair = self.unpack(batch)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            if self.unpack is unpack_batch:
                raise
            raise TypeError(
                f"unpack: expected a callable that takes a batch, but with {type(batch).__name__} it raised "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"unpack: expected a callable that returns (inputs, targets), but it returned {type(pair).__name__}; return "
                "(inputs, None) where there are no targets"
            )
        return pair[0], pair[1]

    def forward(self, network: nn.Module, inputs: Any, lockstep: Lockstep | None = None) -> Seen:
        """Returns what is seen of a batch: the outputs in eval mode, whole on each process, and what else is wanted."""
        features, entries = None, some_entries(inputs) if self.entries else None
        with evaluation(network), torch.no_grad():
            with calling(lockstep):
                if self.features:
                    found, features = outputs_and_features(network, inputs, self.output, once=lockstep is not None)
                else:
                    found = pick_output(call_model(network, inputs), self.output)
            if lockstep is not None:
                found, features = map_tensors(whole, found), None if features is None else whole(features)
        # a network that squeezes its outputs, on a last batch of one sample
        outputs = found[None] if isinstance(found, Tensor) and not found.dim() else found
        return Seen(outputs, features, entries)


def some_entries(inputs: Any) -> Tensor | None:
    """Returns the same few randomly drawn entries of each input, shape (N, E); None unless these are images or rows.

    Example:
        >>> some_entries(torch.zeros(2, 3, 32, 32)).shape, some_entries(torch.zeros(2, 7)).shape
        (torch.Size([2, 512]), torch.Size([2, 7]))
        >>> some_entries([torch.zeros(2, 7)])
    """
    if not isinstance(inputs, Tensor) or inputs.is_nested or inputs.layout != torch.strided:
        return None
    if not inputs.is_floating_point() or inputs.dim() not in (2, 4) or not inputs[:1].flatten(1).shape[1]:
        return None
    flat: Tensor = inputs.detach().flatten(1)
    places = _places(flat.shape[1])
    # a copy: networks may change their inputs in place
    picked = flat.clone() if places is None else flat.index_select(1, places.to(flat.device))
    return picked.to(torch.float32)


def channels_of(shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    """Returns the channel of each of :func:`some_entries` of images of one shape, (C, H, W), shape (E,); None of rows.

    Example:
        >>> channels_of((3, 1, 2))
        array([0, 0, 1, 1, 2, 2])
    """
    if len(shape) != 3 or not math.prod(shape):
        return None
    places = _places(math.prod(shape))
    entries = torch.arange(math.prod(shape)) if places is None else places
    return (entries // (shape[1] * shape[2])).numpy()


@lru_cache(maxsize=8)
def _places(entries: int) -> Tensor | None:
    if entries <= MAX_ENTRIES:
        return None
    return torch.randperm(entries, generator=torch.Generator().manual_seed(0))[:MAX_ENTRIES].sort().values

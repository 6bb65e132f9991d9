"""Splits batches into inputs and labels, tells them from samples, and takes them apart."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lightning_tansens.tangent.tracing import tensors_in

#: The names of fields that hold labels.
LABELS = ("label", "labels", "label_ids", "target", "targets", "y")


def unpack_batch(batch: Any) -> tuple[Any, Any]:
    """Splits a batch into (inputs, targets).

    A tuple or list is (inputs, targets) or (inputs,), a tensor is inputs. In a mapping, a named tuple, a dataclass or
    another object, the field named label, labels, label_ids, target, targets or y holds the targets; next to an image, so
    does the field named mask. The inputs are the other fields that hold tensors: one by itself, several as a dict.

    Args:
        batch: What the data loader yields.

    Returns:
        Inputs and targets; the targets are None where there are none.

    Raises:
        TypeError: If the batch is anything else.

    Example:
        >>> import torch
        >>> unpack_batch([torch.zeros(2, 3), torch.ones(2)])[1]
        tensor([1., 1.])
        >>> inputs, targets = unpack_batch({"image": torch.zeros(2, 3), "label": torch.ones(2)})
        >>> inputs.shape, targets
        (torch.Size([2, 3]), tensor([1., 1.]))
    """
    if isinstance(batch, Tensor):
        return batch, None
    fields = _fields(batch) or {}
    named = [name for name in LABELS if name in fields] or (["mask"] if {"image", "mask"} <= fields.keys() else [])
    if not named and isinstance(batch, (tuple, list)) and len(batch) in (1, 2):
        return batch[0], batch[1] if len(batch) == 2 else None
    inputs = {name: held for name, held in fields.items() if isinstance(held, Tensor) and name not in named}
    if not inputs or len(named) > 1:
        came = (
            f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list, Mapping)) else type(batch).__name__
        )
        raise TypeError(
            f"batch: expected a tuple or list (inputs, targets) or (inputs,), but got {came}; pass unpack=callable that "
            "takes a batch and returns (inputs, targets), for example lambda batch: (batch['image'], batch.get('label'))"
        )
    return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), fields[named[0]] if named else None


def check_samples(inputs: Any, count: int, name: str) -> None:
    """Refuses inputs in which the samples do not lie one by one along the first dimension, as in a batch of graphs.

    Their count should differ from the usual sizes of other dimensions.

    Raises:
        TypeError: If a floating-point tensor among them has another length.
    """
    fields = _fields(inputs)
    for tensor in tensors_in(inputs if fields is None else fields):
        if tensor.is_floating_point() and tensor.dim() and len(tensor) not in (1, count):
            raise TypeError(
                f"the {name} set cannot be measured: expected inputs whose first dimension is that of the samples, but a "
                f"batch of {count} samples has an input of shape {tuple(tensor.shape)}, as graphs have, and sequences "
                "before samples; pass unpack=callable that returns inputs of shape (N, ...), or network=the name of a "
                "submodule that takes such inputs"
            )


def _fields(batch: Any) -> dict[str, Any] | None:
    """Returns the fields of a mapping, a named tuple, a dataclass or an object by name; None for other batches."""
    if isinstance(batch, Mapping):
        return {str(name): held for name, held in batch.items()}
    if hasattr(batch, "_asdict"):
        return dict(batch._asdict())
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    if isinstance(batch, (tuple, list, str, bytes, Tensor, type(None))) or not hasattr(batch, "__dict__"):
        return None
    # graphs keep their tensors behind a mapping of their own
    return dict(batch.to_dict()) if hasattr(batch, "to_dict") else dict(vars(batch))


def is_batch(value: Any) -> bool:
    """Says whether a value is a batch, not a sample: its arrays and lists have one length, and one is not a vector.

    Args:
        value: What a loader without batches yields.

    Example:
        >>> import torch
        >>> is_batch((torch.zeros(5, 3), torch.zeros(5))), is_batch((torch.zeros(3), torch.tensor(1)))
        (True, False)
    """
    lengths = set()
    deep = False
    for leaf in _leaves(value):
        if isinstance(leaf, (Tensor, np.ndarray)):
            lengths.add(len(leaf) if leaf.ndim else -1)
            deep = deep or leaf.ndim > 1
        else:
            lengths.add(len(leaf) if isinstance(leaf, list) else -1)
    return deep and len(lengths) == 1 and lengths.pop() > 0


def rows(batch: Any) -> Iterator[Any]:
    """Yields the samples of what is a batch according to :func:`is_batch`."""
    first = next(leaf for leaf in _leaves(batch) if isinstance(leaf, (Tensor, np.ndarray, list)))
    for number in range(len(first)):
        yield _row(batch, number)


def _row(value: Any, number: int) -> Any:
    if isinstance(value, Tensor):
        return value[number].clone()  # a view would keep the whole batch
    if isinstance(value, np.ndarray):
        return value[number].copy()
    if isinstance(value, Mapping):
        return {name: _row(held, number) for name, held in value.items()}
    if isinstance(value, tuple):
        parts = [_row(held, number) for held in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_row(held, number) for held in value] if _holds_arrays(value) else value[number]
    return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    elif not isinstance(value, tuple) and not (isinstance(value, list) and _holds_arrays(value)):
        yield value
        return
    for held in value:
        yield from _leaves(held)


def _holds_arrays(values: Sequence[Any]) -> bool:
    return any(isinstance(value, (Tensor, np.ndarray, Mapping, tuple, list)) for value in values)

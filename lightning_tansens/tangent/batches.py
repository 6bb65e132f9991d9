"""What a network is called with and what it returns, whatever form a project has given to both."""

import copy
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_tansens.tangent.tracing import tensors_in

#: Picks the tensor of outputs, shape (N, ...), out of what the network returns. Open types take any function from YAML.
OutputPicker = Callable[[Any], Any]

#: Names x: None for a lone tensor, an argument's position or name, or (a dotted name) the module whose output is x.
Wrt = str | int | None


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Calls a model on a batch: a dict holds keyword arguments, a tuple or list positional ones.

    Of a dict, ``forward`` gets the entries whose names it takes. A model whose ``forward`` takes one argument, and none by
    the names in the batch, gets the batch as a whole, or if it refuses that, the batch's only floating-point tensor.
    """
    if not isinstance(inputs, (Mapping, tuple, list)):
        return model(inputs)
    if _takes_whole(model, inputs):
        return _call_on_whole(model, inputs)
    if not isinstance(inputs, Mapping):
        return model(*inputs)
    taken = {name: held for name, held in inputs.items() if _takes(model, name)}
    return model(**(taken or inputs))


#: The names in the batches that a model has taken as a whole.
_wholes: WeakKeyDictionary[nn.Module, set[tuple[Hashable, ...]]] = WeakKeyDictionary()


def _call_on_whole(model: nn.Module, batch: Any) -> Any:
    held = entries(batch)
    floating = [part for part in held.values() if isinstance(part, Tensor) and part.is_floating_point()]
    try:
        outputs = model(batch)
    except (TypeError, AttributeError):
        # a model that takes such batches is not called again: other processes may be in the middle of the same call
        if len(floating) != 1 or not isinstance(batch, Mapping) or tuple(held) in _wholes.get(model, ()):
            raise
        return model(floating[0])
    _wholes.setdefault(model, set()).add(tuple(held))
    return outputs


def _takes_whole(model: nn.Module, batch: Any) -> bool:
    model = getattr(model, "_orig_mod", model)
    named = isinstance(batch, Mapping) or hasattr(batch, "_fields")
    if type(model).__module__.startswith("torch.") or (named and any(_takes(model, name) for name in entries(batch))):
        return False
    positional = () if isinstance(batch, Mapping) else tuple(batch)
    return (hasattr(batch, "_fields") or not _binds(model, *positional)) and _binds(model, batch)


def _takes(model: nn.Module, name: Hashable) -> bool:
    """Whether ``forward`` has a parameter of that name, or takes any."""
    parameters = _signature(model).parameters
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _binds(model: nn.Module, *args: Any) -> bool:
    try:
        _signature(model).bind(*args)
    except TypeError:
        return False
    return True


def _signature(model: nn.Module) -> inspect.Signature:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):  # a scripted module's
        return inspect.signature(lambda *args, **kwargs: None)


def entries(batch: Any) -> dict[Hashable, Any]:
    """Returns the parts of a batch by key, field, position or attribute; none for a lone tensor."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if isinstance(batch, (tuple, list)):
        return dict(zip(getattr(batch, "_fields", range(len(batch))), batch))
    held = getattr(batch, "__dict__", {})
    return dict(held) if not isinstance(batch, (Tensor, nn.Module)) and next(tensors_in(held), None) is not None else {}


def rebuilt(batch: Any, parts: Mapping[Hashable, Any]) -> Any:
    """Returns a batch of the same form with the parts that :func:`entries` returns for the new one."""
    if hasattr(batch, "_fields"):
        return type(batch)(*parts.values())
    if isinstance(batch, (tuple, list)):
        return list(parts.values())
    if isinstance(batch, dict):
        return dict(parts)
    made = copy.copy(batch)
    if isinstance(batch, Mapping):
        try:
            made.update(parts)
        except AttributeError:  # it is read-only
            return dict(parts)
    else:
        for name, value in parts.items():
            object.__setattr__(made, str(name), value)
    return made


def map_tensors(function: Callable[[Tensor], Tensor], inputs: Any) -> Any:
    """Applies a function to each tensor of a batch and leaves everything else as it is."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    parts = entries(inputs)
    if not parts and not isinstance(inputs, (Mapping, tuple, list)):
        return inputs
    return rebuilt(inputs, {name: map_tensors(function, value) for name, value in parts.items()})


def batch_length(inputs: Any) -> int:
    """Returns the number of samples in a batch: the length of its first tensor; raises TypeError if there is none."""
    first = next(tensors_in(inputs if isinstance(inputs, Tensor) else entries(inputs)), None)
    if first is None or not first.dim():
        came = type(inputs).__name__ if first is None else "a scalar"
        raise TypeError(f"inputs: expected a batch with tensors of shape (N, ...), but got {came}")
    return len(first)


def pick_output(value: Any, output: OutputPicker | None = None) -> Any:
    """Returns the tensor of outputs among what the network returned, by ``output`` if that is given.

    Without it, that is what is named ``logits``, or the only tensor that there is; else the value as it is.

    Raises:
        TypeError: If ``output`` does not take the value.

    Example:
        >>> pick_output({"loss": torch.tensor(0.5), "logits": torch.tensor([[1.0, 2.0]])})
        tensor([[1., 2.]])
    """
    if output is not None:
        try:
            return output(value)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise TypeError(
                f"output: expected a callable that picks the outputs from what the network returns, but with "
                f"{type(value).__name__} it raised {type(error).__name__}: {error}"
            ) from error
    if isinstance(value, Tensor):
        return value
    parts = entries(value)
    logits = parts["logits"] if "logits" in parts else getattr(value, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    tensors = list(tensors_in(parts))
    return tensors[0] if len(tensors) == 1 else value


def find_wrt(model: nn.Module, inputs: Any) -> Wrt:
    """Finds the name or position of x in a batch that is not one tensor of floats; None where the choice is not clear.

    x is the only such tensor in the batch; or, where there is none, the output of the only embedding that looks up the
    batch's integers (those named ``input_ids``, if several are looked up), for which the model is called once.

    Example:
        >>> find_wrt(nn.Sequential(nn.Embedding(9, 2), nn.Flatten()), torch.zeros(1, 3, dtype=torch.long))
        '0'
    """
    parts = entries(inputs)
    floating = [name for name, value in parts.items() if isinstance(value, Tensor) and value.is_floating_point()]
    if floating:
        x = floating[0]
        fits = not isinstance(inputs, Mapping) or _takes(model, x) or _takes_whole(model, inputs)
        return x if len(floating) == 1 and parts[x].dim() > 1 and fits else None  # type: ignore[return-value]
    tokens = map_tensors(Tensor.clone, inputs)
    named = {0: tokens} if isinstance(tokens, Tensor) else entries(tokens)
    places = {held.untyped_storage().data_ptr(): name for name, held in named.items() if isinstance(held, Tensor)}
    found: list[tuple[str, Hashable]] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for tensor in tensors_in([*args, *kwargs.values()]):
                if tensor.untyped_storage().data_ptr() in places:
                    found.append((name, places[tensor.untyped_storage().data_ptr()]))

        return hook

    embeddings = {name: module for name, module in model.named_modules() if name and isinstance(module, nn.Embedding)}
    handles = [module.register_forward_pre_hook(look(name), with_kwargs=True) for name, module in embeddings.items()]
    try:
        if embeddings:
            with torch.no_grad():
                call_model(model, tokens)
    finally:
        for handle in handles:
            handle.remove()
    chosen = [name for name, place in found if place == "input_ids"] or [name for name, _ in found]
    return chosen[0] if len(chosen) == 1 else None

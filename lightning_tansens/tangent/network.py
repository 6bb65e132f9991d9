"""A network seen as a function of one tensor x: which tensor that is, which outputs count, and which are finite."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_tansens.checks import check_callable
from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.batches import (
    OutputPicker,
    Wrt,
    batch_length,
    call_model,
    entries,
    find_wrt,
    map_tensors,
    pick_output,
    rebuilt,
)
from lightning_tansens.tangent.isolation import evaluation, ordinary
from lightning_tansens.tangent.tracing import tensors_in


def call_on_copies(model: nn.Module, inputs: Any) -> Any:
    """Calls a model on copies of the inputs, because it may begin with an in-place call."""
    return call_model(model, map_tensors(lambda tensor: ordinary(tensor).clone(), inputs))


class Network:
    """f(x) on a batch, everything else held fixed.

    ``wrt`` names x: an input's name or position; or a submodule, when x is that module's output (an embedding of tokens),
    and parameters upstream of x do not count. None is for the lone tensor, or what
    :func:`~lightning_tansens.tangent.batches.find_wrt` finds.

    Raises:
        TypeError: If x is no floating-point tensor.
        ValueError: If ``wrt`` names nothing.
        UnsupportedNetworkError: If ``wrt`` names a module that is not called exactly once.
    """

    def __init__(self, model: nn.Module, inputs: Any, wrt: Wrt = None, output: OutputPicker | None = None) -> None:
        check_callable("output", output)
        if not isinstance(wrt, (str, int, type(None))):
            raise ValueError(f"wrt: expected the name or the position of an input or a submodule, but got {wrt!r}")
        if wrt == "":
            raise ValueError("wrt: expected the name of an input or of a submodule, but got an empty one")
        self.model = model
        self.output = output
        self._inputs = map_tensors(ordinary, inputs)
        if wrt is None and not (isinstance(self._inputs, Tensor) and self._inputs.is_floating_point()):
            wrt = find_wrt(model, self._inputs)
        self.wrt = wrt
        self._module = model.get_submodule(str(wrt)) if self._names_module(wrt) else None
        self.x = self._start()

    def _names_module(self, wrt: Wrt) -> bool:
        keys = [name for name in entries(self._inputs) if isinstance(name, str)]
        if not isinstance(wrt, str) or wrt in keys:
            return False
        if wrt in dict(self.model.named_modules()):
            return True
        raise ValueError(f"wrt: expected the name of an input {keys} or of a submodule, but got {wrt!r}")

    def _start(self) -> Tensor:
        inputs, wrt = self._inputs, self.wrt
        parts = entries(inputs)
        if self._module is not None:
            x = self._module_output()
        elif wrt is not None and wrt in parts:
            x = parts[wrt]
        elif wrt is None:
            x = inputs
        else:
            raise ValueError(f"wrt: expected the name or the position of an input or a submodule, but got {wrt!r}")
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(
                "inputs: expected a floating-point tensor, because the derivative with respect to it is taken, but got "
                f"{came}; convert it (images: .float() / 255), or name x with wrt: an input's name or position, or the "
                "module whose output is x (an embedding)"
            )
        if not x.dim():
            raise ValueError(
                f"inputs: expected a batch of shape (N, ...), but got shape {tuple(x.shape)}; add the batch dimension"
            )
        return x

    def _module_output(self) -> Any:
        found: list[Any] = []
        assert self._module is not None
        handle = self._module.register_forward_hook(
            lambda module, args, output: found.append(map_tensors(Tensor.clone, output))
        )
        try:
            with torch.no_grad():
                call_model(self.model, map_tensors(Tensor.clone, self._inputs))
        finally:
            handle.remove()
        if len(found) != 1:
            raise UnsupportedNetworkError(
                f"wrt: expected module '{self.wrt}' to be called once in a forward pass, so that its output can be x, but "
                f"it is called {len(found)} times; name another module"
            )
        return found[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Returns f(x), shape (N, C); the model may change x in place, but no other input."""
        inputs = self._inputs
        if self._module is not None:
            handle = self._module.register_forward_hook(lambda module, args, output: x)
            try:
                result = call_model(self.model, map_tensors(Tensor.clone, inputs))
            finally:
                handle.remove()
        else:
            parts = {name: x if name == self.wrt else map_tensors(Tensor.clone, v) for name, v in entries(inputs).items()}
            result = call_model(self.model, x if self.wrt is None else rebuilt(inputs, parts))
        return self._flat(pick_output(result, self.output), len(x))

    def _flat(self, output: Any, samples: int) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise UnsupportedNetworkError(
                f"expected {type(self.model).__name__} to return one floating-point tensor, but got "
                f"{type(output).__name__}; pass output=callable that picks it, for example lambda out: out['logits']"
            )
        if samples == 1:  # the network may squeeze the batch away
            return output.reshape(1, -1)
        if output.dim() == 0 or len(output) != samples:
            raise UnsupportedNetworkError(
                f"expected outputs of shape (N, ...) with N = {samples} samples, but got {tuple(output.shape)}"
            )
        return output.reshape(samples, -1)

    def differentiable(self) -> tuple[Tensor, Tensor]:
        """Returns x as a leaf of the graph, and f(x)."""
        x = self.x.clone().requires_grad_()
        with torch.enable_grad():
            return x, self(x.clone())  # the network may begin with an in-place call

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.x)

    def part(self, samples: slice | Sequence[int]) -> Network:
        """The same network on some of the samples."""
        count = len(self)
        own = map_tensors(lambda t: t[samples] if t.dim() and len(t) == count else t, self._inputs)
        return Network(self.model, own, self.wrt, self.output)

    def first_three(self) -> Network:
        """The same network on its first three samples, or on fewer again and again."""
        if not len(self):
            raise ValueError("inputs: expected at least one sample, but got an empty batch")
        return self.part([n % len(self) for n in range(3)])

    def moved(self, x: Tensor) -> Network:
        """The same network at another x, everything else held fixed."""
        other = copy.copy(self)
        other.x = x
        return other

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that count, by name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}


#: "sum" takes the paths to any output (u = 1), "each" one output at a time (u = e_c), a tensor weights them (u).
Weightings = Literal["sum", "each"] | Tensor


def derivatives(scalar: Tensor, tensors: Sequence[Any], **options: Any) -> tuple[Tensor | None, ...]:
    """Returns ``torch.autograd.grad``, and None for each tensor or edge of a graph that the scalar does not depend on."""
    if not tensors or not scalar.requires_grad:
        return (None,) * len(tensors)
    return torch.autograd.grad(scalar, tensors, allow_unused=True, **options)


def check_outputs(outputs: object) -> None:
    """Raises ValueError unless ``outputs`` is "sum", "each" or a vector."""
    if isinstance(outputs, Tensor):
        if outputs.dim() != 1:
            raise ValueError(f"outputs: expected a weighting of shape (C,), but got shape {tuple(outputs.shape)}")
    elif outputs not in ("sum", "each"):
        raise ValueError(f"outputs: expected 'sum', 'each' or a weighting of shape (C,), but got {outputs!r}")


def output_weightings(outputs: Weightings, output: Tensor) -> Tensor:
    """Returns the weightings u of outputs (N, C) as rows, shape (U, C), in at least single precision.

    U is C for "each", else 1. Raises ValueError if a weighting does not have one entry for each output.
    """
    count = output.shape[1]
    dtype = torch.promote_types(output.dtype, torch.float32)
    if isinstance(outputs, Tensor):
        if len(outputs) != count:
            raise ValueError(
                f"outputs: expected a weighting of shape ({count},), one for each output of the network, but got shape "
                f"{tuple(outputs.shape)}"
            )
        return outputs.to(output.device, dtype).unsqueeze(0)
    if outputs == "each":
        return torch.eye(count, device=output.device, dtype=dtype)
    return torch.ones(1, count, device=output.device, dtype=dtype)


def finite_samples(tensor: Tensor) -> Tensor:
    """Returns for which samples a tensor of shape (N, ...) is finite, as booleans of shape (N,)."""
    flat = tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)
    if not flat.is_floating_point():
        return torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    return flat.sum(1, dtype=torch.promote_types(flat.dtype, torch.float32)).isfinite()  # faster than to look at each


def finite_outputs(model: nn.Module, inputs: Any, output: OutputPicker | None = None) -> Tensor | None:
    """Finds the samples with finite outputs in a batch in which something is not finite, as booleans of shape (N,).

    A derivative may be finite where the function is not: ReLU hides a nan. Returns None where all inputs are finite, which
    costs no forward pass.
    """
    samples = batch_length(inputs)
    if all(bool(finite_samples(tensor).all()) for tensor in tensors_in(inputs) if tensor.dim() and len(tensor) == samples):
        return None
    with evaluation(model), torch.no_grad():
        result = call_on_copies(model, inputs)
    found = tensors_in(pick_output(result, output))
    masks = [finite_samples(tensor) for tensor in found if tensor.dim() and len(tensor) == samples]
    return torch.stack(masks).all(0) if masks else None

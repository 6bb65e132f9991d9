"""A forward pass that also returns the features: what the last weight layer gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_tansens.tangent.batches import OutputPicker, call_model, pick_output
from lightning_tansens.tangent.operators.registry import operator_of
from lightning_tansens.tangent.tracing import CallTracer


def outputs_and_features(model: nn.Module, inputs: Any, output: OutputPicker | None = None) -> tuple[Any, Tensor | None]:
    """Calls a model and keeps the input of the linear or convolutional layer that is called last.

    Returns:
        The outputs, and the features, shape (N, F); None where no such layer is called with a row for each output.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> outputs, features = outputs_and_features(network, torch.randn(5, 4))
        >>> features.shape
        torch.Size([5, 6])
    """
    tracer = _LastInput(model)
    with tracer.running():
        outputs = pick_output(call_model(model, inputs), output)
    features = tracer.features
    if features is None or not isinstance(outputs, Tensor) or features.dim() < 2 or outputs.shape[:1] != features.shape[:1]:
        return outputs, None
    return outputs, features.detach().flatten(1)


class _LastInput(CallTracer):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.features: Tensor | None = None

    def on_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if operator_of(func).is_weight_layer:
            self.features = (args[0] if args else kwargs["input"]).clone()  # the network may change it in place
        return func(*args, **kwargs)

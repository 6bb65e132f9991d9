"""A forward pass that also returns the features: what the last weight layer gets."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_tansens.tangent.batches import OutputPicker, call_model, pick_output
from lightning_tansens.tangent.operators.registry import operator_of


def outputs_and_features(
    model: nn.Module, inputs: Any, output: OutputPicker | None = None, once: bool = False
) -> tuple[Any, Tensor | None]:
    """Calls a model and keeps the input of the linear or convolutional layer that is called last.

    Args:
        model: The model, which is called again if it calls fewer layers than ever, as some do for some inputs.
        inputs: The batch.
        output: Picks the tensor of outputs out of what the model returns.
        once: Whether to copy the input of each layer, so that the model is never called again.

    Returns:
        The outputs, and the features, shape (N, F); None where no such layer is called with a row for each output.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> outputs, features = outputs_and_features(network, torch.randn(5, 4))
        >>> features.shape
        torch.Size([5, 6])
    """
    tracer = _LastInput(0 if once else _calls.get(model, 0))
    with tracer:
        outputs = pick_output(call_model(model, inputs), output)
    features = tracer.features
    if not once and tracer.calls < _calls.setdefault(model, tracer.calls):  # fewer layers than ever: nothing was copied
        _calls[model] = tracer.calls
        return outputs_and_features(model, inputs, output)
    if features is None or not isinstance(outputs, Tensor) or features.dim() < 2 or outputs.shape[:1] != features.shape[:1]:
        return outputs, None
    return outputs, features.detach().flatten(1)


#: The smallest number of layers that a forward pass of a network has called.
_calls: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


class _LastInput(TorchFunctionMode):
    """Copies the input of the layer with a number and of those after it, as the network may change it in place.

    To copy the input of each layer would take long, and so would following the modules.
    """

    def __init__(self, copied_from: int) -> None:
        super().__init__()
        self.features: Tensor | None = None
        self.calls, self._copied_from = 0, copied_from

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if operator_of(func).is_weight_layer:
            self.calls += 1
            if self.calls >= self._copied_from:
                self.features = (args[0] if args else kwargs["input"]).clone()
        return func(*args, **kwargs)

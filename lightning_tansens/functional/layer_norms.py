"""The largest weight of each layer: the part of Theorem 1 that needs no data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.isolation import evaluation

_NO_LAYERS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, ParametrizationList)


def weight_layers(model: nn.Module) -> dict[str, Tensor]:
    """Finds the weights of a network's layers, in the order of registration.

    These are the weights of Linear and convolutional modules, and matrices that other modules hold as parameters of
    their own (recurrent and attention layers, handwritten ones), but not embeddings. Frozen layers count too: they are
    on the paths.

    Args:
        model: The network.

    Returns:
        Name and weight of each layer; its length is the depth k of the papers' formulas.

    Raises:
        UnsupportedNetworkError: If there is no such layer.

    Example:
        >>> from torch import nn
        >>> list(weight_layers(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))))
        ['0.weight', '2.weight']
    """
    layers = {}
    with evaluation(model):  # in train mode, reading a spectrally normalised weight takes a step of its power iteration
        for prefix, module in model.named_modules():
            if isinstance(module, (nn.Linear, _ConvNd)):
                layers[f"{prefix}.weight".lstrip(".")] = module.weight.detach()
            elif not isinstance(module, _NO_LAYERS):
                matrices = module.named_parameters(prefix, recurse=False)
                layers.update((name, matrix.detach()) for name, matrix in matrices if matrix.dim() == 2)
    if not layers:
        raise UnsupportedNetworkError(
            f"expected a network with Linear or convolutional layers, but {type(model).__name__} has no weight matrix; "
            "leave the measures that need one out"
        )
    return layers


def log_max_weights(model: nn.Module) -> Tensor:
    r"""Computes log w_max,i = log max ``|W_i|`` of each layer (Eqs. 1 and 6 of Daróczy 2022).

    Args:
        model: The network.

    Returns:
        Natural logarithms, float64, shape (k,); -inf for a layer of zeros.

    Raises:
        UnsupportedNetworkError: If the network has no weight layer.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, -1.0)
        >>> log_max_weights(layer)
        tensor([0.], dtype=torch.float64)
    """
    maxima = [weight.abs().amax().cpu().double() for weight in weight_layers(model).values()]
    return torch.stack(maxima).log()

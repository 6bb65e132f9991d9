"""A chain of Linear layers and ReLU on a batch: the networks that the papers' theorems speak of."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.closed_form.exact import verified_chain
from lightning_tansens.tangent.closed_form.links import ElementwiseLink, LinearLink
from lightning_tansens.tangent.isolation import evaluation
from lightning_tansens.tangent.network import Network

#: The number of a layer's largest weights that are looked at before all of them are.
CANDIDATES = 256

#: Entries of a weight that are masked for a part of the samples at once.
CHUNK_ENTRIES = 2**22


@dataclass(frozen=True)
class ReluChain:
    """The weights of a ReLU chain of k layers, and which of its hidden units are active for each of N samples."""

    weights: tuple[Tensor, ...]  #: W_1, …, W_k, each of shape (N_i, N_{i-1}); they share their memory with the network.
    trainable: tuple[bool, ...]  #: Whether each of them is trainable, and so has a block in S.
    active: tuple[Tensor, ...]  #: Which units of the hidden layers 1, …, k − 1 are active, each of shape (N, N_i).
    num_parameters: int  #: P, the number of trainable parameters, biases included.
    samples: int  #: N, the number of samples.

    @property
    def depth(self) -> int:
        """The number of weight layers, k."""
        return len(self.weights)

    @property
    def input_dim(self) -> int:
        """The number of input coordinates, D."""
        return self.weights[0].shape[1]

    @property
    def num_outputs(self) -> int:
        """The number of outputs, C."""
        return len(self.weights[-1])

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """The widths N_1, …, N_{k−1} of the hidden layers."""
        return tuple(len(weight) for weight in self.weights[:-1])

    @property
    def max_weights(self) -> Tensor:
        """The largest magnitudes w_max,i = max |W_i|, float64, shape (k,)."""
        return torch.stack([weight.abs().amax() for weight in self.weights]).double()

    @property
    def active_nodes(self) -> Tensor:
        """The numbers of active units n_i(x) of the hidden layers, int64, shape (N, k − 1)."""
        none = self.weights[0].new_zeros(self.samples, 0, dtype=torch.int64)
        return torch.cat([none, *(mask.sum(1, keepdim=True) for mask in self.active)], 1)

    def active_node_moments(self) -> tuple[float, float]:
        """Returns μ and σ, the mean and the standard deviation over the samples of T(x) = Σ_i n_i(x), in units."""
        total = self.active_nodes.sum(1).double()
        return float(total.mean()), float(total.std(correction=0))

    def log_max_active_weights(self) -> Tensor:
        """Returns log w_A(x), see :func:`~lightning_tansens.functional.regions.log_max_active_weights`."""
        if self.depth == 1:
            return self.max_weights.log().repeat(self.samples)
        first, last = self.weights[0].abs().amax(1), self.weights[-1].abs().amax(0)
        largest = [torch.where(self.active[0], first, 0).amax(1), torch.where(self.active[-1], last, 0).amax(1)]
        between = zip(self.weights[1:-1], self.active, self.active[1:])
        largest += [_largest_between(weight, before, after) for weight, before, after in between]
        # where a layer has no active unit, the weights between the others are on no active path
        alive = (self.active_nodes > 0).all(1)
        return torch.where(alive, torch.stack(largest).amax(0).double(), 0).log()


def relu_chain(model: nn.Module, inputs: Any, *, wrt: Wrt = None, output: OutputPicker | None = None) -> ReluChain:
    """Traces a network as the chain f = W_k relu(W_{k−1} … relu(W_1 x + b_1) …) + b_k.

    Besides ReLU, any activation with slopes 0 and 1 is allowed (ReLU6, Hardtanh); its unit is active where the slope
    is 1. Linear layers without an activation between them count as layers with all units active, and biases change
    nothing, since their block of S is zero (the networks of Theorems 1 and 2 in Daróczy 2022). The model is evaluated
    in eval mode and left as it was.

    Args:
        model: The network.
        inputs: A batch of at least one sample, as :func:`~lightning_tansens.functional.tangent_sensitivity` takes it.
        wrt: Which tensor is x, as there.
        output: Picks the tensor of outputs, as there.

    Returns:
        The chain of the present weights; it shares their memory, so the next step changes it.

    Raises:
        UnsupportedNetworkError: If the network is no chain, or has slopes other than 0 and 1.
        ValueError: If the batch is empty.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> chain = relu_chain(net, torch.randn(5, 3))
        >>> chain.depth, chain.input_dim, chain.hidden_widths, chain.num_outputs
        (2, 3, (4,), 2)
    """
    with evaluation(model):
        network = Network(model, inputs, wrt, output)
        if not len(network):
            raise ValueError("inputs: expected at least one sample, but got an empty batch; leave it out")
        try:
            links = verified_chain(network).links
        except UnsupportedNetworkError as error:
            raise UnsupportedNetworkError(f"expected a chain of Linear layers and ReLU: {error}") from error
    weights: list[LinearLink] = []
    active: list[Tensor] = []
    for link in links:
        if isinstance(link, LinearLink):
            weights.append(link)
            active.append(link.weight.new_ones(len(network), len(link.weight), dtype=torch.bool))
        else:
            mask = _mask(link, model, len(weights))
            if weights:  # what an activation of the input switches off only makes the bounds looser
                active[-1] = active[-1] & mask
    if not weights:
        raise UnsupportedNetworkError(
            f"expected a chain of Linear layers and ReLU, but {type(model).__name__} has no Linear layer; "
            "leave the bounds for chains out"
        )
    return ReluChain(
        weights=tuple(link.weight for link in weights),
        trainable=tuple(link.parameter is not None for link in weights),
        active=tuple(active[:-1]),
        num_parameters=sum(parameter.numel() for parameter in network.trainable.values()),
        samples=len(network),
    )


def _mask(link: ElementwiseLink, model: nn.Module, layer: int) -> Tensor:
    """Which units an activation lets through."""
    mask = link.slopes == 1
    if link.gain is not None or not (mask | (link.slopes == 0)).all():
        trainable = f", of parameter '{link.parameter}'" if link.gain else ""
        raise UnsupportedNetworkError(
            f"expected a chain of Linear layers and ReLU, but {type(model).__name__} has slopes other than 0 and 1 behind "
            f"weight layer {layer}{trainable} (LeakyReLU, PReLU, BatchNorm, a constant factor); fold constant factors into "
            "the weights, or leave the bounds for chains out"
        )
    return mask


def _largest_between(weight: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The largest magnitude of a weight (I, J) between active units, shape (N,), for masks (N, J) and (N, I)."""
    magnitudes = weight.abs()
    # about a quarter of the weights lies between active units, so that one of the very largest almost always does
    largest, places = magnitudes.flatten().topk(min(CANDIDATES, weight.numel()))
    between = after[:, places // weight.shape[1]] & before[:, places % weight.shape[1]]
    result = largest[between.int().argmax(1)]
    others = (~between.any(1)).nonzero().squeeze(1)
    for part in others.split(max(1, CHUNK_ENTRIES // weight.numel())):
        by_row = torch.where(before[part].unsqueeze(1), magnitudes, 0).amax(2)
        result[part] = torch.where(after[part], by_row, 0).amax(1)
    return result

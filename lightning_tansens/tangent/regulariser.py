"""Tangent sensitivity as a term of a training loss."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_tansens.checks import check_callable, check_choice, check_counts, check_model, check_numbers
from lightning_tansens.tangent.batches import OutputPicker, Wrt
from lightning_tansens.tangent.isolation import modes, seed_devices, undisturbed
from lightning_tansens.tangent.network import Network
from lightning_tansens.tangent.operators.substitutes import twice_differentiable
from lightning_tansens.tangent.probes.parameter_space import product_with
from lightning_tansens.tangent.probes.vectors import input_probes, parameter_probes
from lightning_tansens.tangent.sensitivity import choose_way

#: Which sensitivity is penalised: the summed output's, or the sum over the outputs.
PenalisedOutputs = Literal["sum", "each"]


class TangentSensitivityRegulariser(nn.Module):
    r"""The mean squared tangent sensitivity of a batch, estimated by random probes, as a differentiable term of a loss.

    .. math:: R(\theta) = \frac{\lambda}{N} \sum_n \| S_{u_n}(x_n)^T w \|^2, \qquad
        S_u(x)^T w = \nabla_x \langle w, \nabla_\theta (u \cdot f)(x) \rangle

    (S as in Definition 1 of Daróczy 2022 and of Rácz et al. 2023, who leave the regulariser to future work.) w is drawn anew
    in each call, with independent signs over all trainable parameters, so E R is λ times the mean of ‖S(x)‖_F² (Eq. 3 of
    Daróczy 2022), and the gradient of R an unbiased estimate of that mean's gradient. The network must be differentiable
    three times; piecewise-linear ones are, almost everywhere.

    The network runs in the mode in which it is, but BatchNorm normalises by its running statistics, because batch statistics
    mix samples. Dropout draws masks of its own. Buffers, gradients and the global random states are left as they were. The
    number of calls, which names the probes, is part of the ``state_dict``, so that a resumed run repeats; make the
    regulariser an attribute of the LightningModule. It is called on the model and a batch, as
    :func:`~lightning_tansens.functional.tangent_sensitivity` takes them, and returns R, a scalar to be added to the loss.

    Args:
        strength: λ, in units of loss / (output / (parameter · input))².
        outputs: "sum" for u = (1, …, 1); "each" for Σ_c ‖S_{e_c}‖², where u_n are random signs for each sample, E u uᵀ = I.
        num_probes: The number of probes w to average over; each costs as much as the first.
        seed: Names the sequence of probes; not negative.
        wrt: Which tensor is x, see :func:`~lightning_tansens.functional.tangent_sensitivity`; x itself is held constant.
        output: Picks the tensor of outputs, as there.

    Raises:
        ValueError: If an argument has a value that is not allowed, or a batch is empty.
        TypeError: If x is no floating-point tensor.
        UnsupportedNetworkError: If the network mixes the samples of a batch.

    Example:
        >>> linear = nn.Linear(5, 1)  # f = w·x + b has S = I, so ‖Sᵀ w‖² = D for any signs w
        >>> TangentSensitivityRegulariser(strength=0.1)(linear, torch.randn(2, 5))
        tensor(0.5000)
        >>> network, inputs = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 5)
        >>> regulariser = TangentSensitivityRegulariser(strength=0.1, outputs="each")
        >>> loss = network(inputs).square().mean() + regulariser(network, inputs)
        >>> loss.backward()
    """

    def __init__(
        self,
        strength: float,
        outputs: PenalisedOutputs = "sum",
        num_probes: int = 1,
        seed: int = 0,
        wrt: Wrt = None,
        output: OutputPicker | None = None,
    ) -> None:
        super().__init__()
        check_numbers(at_least=0, strength=strength)
        check_callable("output", output)
        check_choice("outputs", outputs, get_args(PenalisedOutputs))
        check_counts(num_probes=num_probes)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed: expected an integer that is not negative, but got {seed!r}")
        self.strength = strength
        self.outputs: PenalisedOutputs = outputs
        self.num_probes = num_probes
        self.seed = seed
        self.wrt = wrt
        self.output = output
        #: The number of calls so far.
        self.calls = 0

    def forward(self, model: nn.Module, inputs: Any) -> Tensor:
        """Returns R on a batch, with a graph to the trainable parameters."""
        return self.strength * self.estimate(model, inputs)

    def estimate(self, model: nn.Module, inputs: Any) -> Tensor:
        """Returns R/λ, the estimate of the mean of ‖S‖_F² with a graph to the trainable parameters.

        The model may be the LightningModule that holds this regulariser.
        """
        # in a compiled training step too, because dynamo cannot trace what is done here
        value: Tensor = torch.compiler.disable(self._estimate)(model, inputs)
        return value

    def _estimate(self, model: nn.Module, inputs: Any) -> Tensor:
        check_model(model)
        trained = [module for module in model.modules() if module.training]
        training = {module: not isinstance(module, _BatchNorm) for module in trained}
        with undisturbed(model):
            choose_way(self._network(model, inputs), "parameter_space")  # refuses mixed samples, examined once
            with modes(training), twice_differentiable(model, thrice=True):
                _detach_buffers(trained)
                seed = int(np.random.SeedSequence((self.seed, self.calls)).generate_state(1, np.uint64)[0])
                torch.default_generator.manual_seed(seed % 2**63)  # of dropout; the states are put back at the end
                seed_devices(seed % 2**63)
                value = self._mean_square(self._network(model, inputs), seed)
        self.calls += 1  # here, because the module may hold this one, which is left as it was within the block
        return value

    def _network(self, model: nn.Module, inputs: Any) -> Network:
        network = Network(model, inputs, self.wrt, self.output)
        if not len(network):
            raise ValueError("inputs: expected a batch of at least one sample, but got none; leave empty batches out")
        return network

    def _mean_square(self, network: Network, seed: int) -> Tensor:
        x, output = network.differentiable()
        squares = []
        for probe in range(self.num_probes):
            weighting = torch.ones_like(output)
            if self.outputs == "each":
                weighting = input_probes(output.shape[1:], seed, range(len(x)), probe, output)
            w = parameter_probes(network.trainable, seed, 0, probe)
            product = product_with(w, network, x, (output * weighting).sum(), create_graph=True)
            squares.append(product.square().sum())
        return torch.stack(squares).mean() / len(x)

    def get_extra_state(self) -> int:
        """Returns what the ``state_dict`` holds: the number of calls."""
        return self.calls

    def set_extra_state(self, state: int) -> None:
        """Continues after that number of calls."""
        self.calls = state


def _detach_buffers(trained: list[nn.Module]) -> None:
    """Has this pass write to copies, and the training's own to others than those that the graph of this one keeps."""
    for module in trained:
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_inference():
                module._buffers[name] = buffer.clone()

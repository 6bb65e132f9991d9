"""The squared norm of the tangent sensitivity as a user would write it, beside the package's, in one run.

    python -m tests.benchmarks.bench_by_hand [--threads 1]

Per-sample gradients of Opacus and BackPACK are measured where these packages are installed (``opacus``,
``backpack-for-pytorch``).

Each way gives ‖S(x_n)‖² of the sum of the outputs for every sample of a batch, and is checked against the package's exact
value, or is one probe. Times are the best of several rounds in which the ways take turns, in processor time.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torchvision.models import resnet18

from lightning_tansens.functional import tangent_sensitivity
from tests.benchmarks.bench_exact import mlp, table


class ByHand:
    """One network, and the ways to its sensitivity that ``torch`` alone offers."""

    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        self.network, self.inputs = network.eval(), inputs
        self.parameters = {name: p.detach() for name, p in network.named_parameters()}
        self.buffers = dict(network.named_buffers())

    def output(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(self.network, (parameters, self.buffers), (x[None],)).sum()

    def _squares(self, jacobians: dict[str, Tensor]) -> Tensor:
        return torch.stack([block.flatten(1).square().sum(1) for block in jacobians.values()]).sum(0)

    def jacrev_of_the_gradient(self) -> Tensor:
        """Vmap of jacrev of the parameters' gradient, over the inputs: a reverse pass for each parameter."""
        return self._squares(vmap(jacrev(grad(self.output), 1), (None, 0), chunk_size=1)(self.parameters, self.inputs))

    def jacfwd_of_the_gradient(self) -> Tensor:
        """Vmap of jacfwd of the parameters' gradient: a forward pass for each entry of the input."""
        return self._squares(vmap(jacfwd(grad(self.output), 1), (None, 0), chunk_size=1)(self.parameters, self.inputs))

    def double_backward(self) -> Tensor:
        """A reverse pass through the input gradient for each of its entries, a sample at a time."""
        found = []
        for x in self.inputs:
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.network(x[None]).sum(), x, create_graph=True)
            total = torch.zeros(())
            for entry in slope.flatten():
                rows = torch.autograd.grad(entry, list(self.network.parameters()), retain_graph=True, allow_unused=True)
                total = total + sum(row.square().sum() for row in rows if row is not None)
            found.append(total)
        return torch.stack(found)

    def probe_by_per_sample_gradients(self) -> Tensor:
        """Jvp, along a random direction of each input, of per-sample gradients: what Opacus and BackPACK stop short of."""
        direction = torch.randn_like(self.inputs).sign()

        def gradients(inputs: Tensor) -> dict[str, Tensor]:
            return vmap(grad(self.output), (None, 0))(self.parameters, inputs)

        _, change = jvp(gradients, (self.inputs,), (direction,))
        return self._squares(change)

    def differences_by_opacus(self) -> Tensor:
        """A central difference, along a random direction, of Opacus' per-sample gradients; it has none in eval mode."""
        from opacus import GradSampleModule

        if not hasattr(self, "wrapped"):
            self.wrapped = GradSampleModule(copy.deepcopy(self.network), loss_reduction="sum").train()

        def gradients(inputs: Tensor) -> list[Tensor]:
            self.wrapped.zero_grad(set_to_none=True)
            self.wrapped(inputs).sum().backward()
            return [p.grad_sample for p in self.wrapped.parameters()]

        return self._differences(gradients)

    def differences_by_backpack(self) -> Tensor:
        """The same by BackPACK."""
        from backpack import backpack, extend
        from backpack.extensions import BatchGrad

        if not hasattr(self, "extended"):
            self.extended = extend(copy.deepcopy(self.network), use_converter=not isinstance(self.network, nn.Sequential))

        def gradients(inputs: Tensor) -> list[Tensor]:
            self.extended.zero_grad(set_to_none=True)
            with backpack(BatchGrad()):
                self.extended(inputs).sum().backward()
            return [p.grad_batch for p in self.extended.parameters()]

        return self._differences(gradients)

    def _differences(self, gradients: Callable[[Tensor], list[Tensor]], step: float = 1e-2) -> Tensor:
        direction = torch.randn_like(self.inputs).sign()
        after, before = (gradients(self.inputs + sign * step * direction) for sign in (1, -1))
        return self._squares({str(k): (a - b) / (2 * step) for k, (a, b) in enumerate(zip(after, before, strict=True))})

    def exact(self) -> Tensor:
        return tangent_sensitivity(self.network, self.inputs, method="exact")

    def probe(self) -> Tensor:
        return tangent_sensitivity(self.network, self.inputs, method="input_space")


def timed(calls: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """The least processor time of each way; the ways take turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - start)
    return least


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = []
    small = ByHand(mlp(32, 16, 16, 10), torch.randn(4, 32))
    wide = ByHand(mlp(3072, 100, 100, 100, 100, 10), torch.randn(64, 3072))
    images = ByHand(resnet18(num_classes=10), torch.randn(8, 3, 32, 32))
    probes = ["probe_by_per_sample_gradients"]
    probes += [f"differences_by_{name}" for name in ("opacus", "backpack") if find_spec(name) is not None]
    exact = ("jacrev_of_the_gradient", "jacfwd_of_the_gradient", "double_backward")
    for name, one, ways, own in (
        ("MLP 32-16-16-10, 4 samples", small, exact, "exact"),
        ("the same", small, probes, "probe"),
        ("MLP 3072-100x4-10, 64 samples", wide, probes, "probe"),
        ("ResNet-18 (torchvision), 8 images of 32 px", images, probes, "probe"),
    ):
        expected, usable = getattr(one, own)(), []
        for way in ways:
            try:
                found = getattr(one, way)()
            except Exception as error:
                rows.append([name, way, "refused", own, "", f"{type(error).__name__}: {error}".splitlines()[0][:90]])
                continue
            usable.append(way)
            if own == "exact":
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
        taken = timed({way: getattr(one, way) for way in (*usable, own)}, arguments.repeats)
        rows += [
            [name, way, f"{taken[way]:.4f} s", own, f"{taken[own]:.4f} s", f"{taken[way] / taken[own]:.1f}"]
            for way in usable
        ]
    table("By hand and by the package", ("network", "by hand", "time", "package", "time", "ratio"), rows)


if __name__ == "__main__":
    main()

"""What the exact value of convolutional networks costs, against probes that give a mean of the same precision.

    python -m tests.benchmarks.bench_convolutions

In training steps on as many samples, processor time of one thread. ``prototype`` takes a sample's δ once and pushes
the D unit vectors through the linear maps; ``local`` counts its products if only the entries that a unit sees are pushed.
"""

from __future__ import annotations

import copy
import warnings
from functools import partial
from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lightning_tansens.functional import tangent_sensitivity
from tests.benchmarks.bench_by_hand import timed
from tests.benchmarks.bench_exact import mlp, processor, table
from tests.modules import Residual

SAMPLES = 128  # what the monitor measures of each set by default


def convolutions(*channels: int, size: int, padding: int) -> list[nn.Module]:
    """Convolutions, each with ReLU and max pooling, and Flatten."""
    layers = [(nn.Conv2d(*pair, size, padding=padding), nn.ReLU(), nn.MaxPool2d(2)) for pair in pairwise(channels)]
    return [*chain.from_iterable(layers), nn.Flatten()]


def networks() -> dict[str, tuple[nn.Sequential, tuple[int, int]]]:
    """Networks, with the channels and the size of their images."""
    cnn = [*convolutions(3, 32, 64, 128, size=3, padding=1), nn.Linear(2048, 10)]
    blocks = [Residual(16, nn.Identity) for _ in range(3)]
    residual = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), *blocks, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, 10)]
    return {
        "LeNet, 1×8×8": (nn.Sequential(*convolutions(1, 6, 16, size=3, padding=1), *mlp(64, 120, 84, 10)), (1, 8)),
        "LeNet, 1×28×28": (nn.Sequential(*convolutions(1, 6, 16, size=5, padding=2), *mlp(784, 120, 84, 10)), (1, 28)),
        "3 convolutions, 3×32×32": (nn.Sequential(*cnn), (3, 32)),
        "residual, 7 convolutions, 3×32×32": (nn.Sequential(*residual), (3, 32)),
    }


def push(module: nn.Module, a: Tensor, columns: Tensor, delta: dict[nn.Module, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Pushes a sample's value (1, ...) and derivatives (D, ...) on; returns both and the sum of the blocks on the way."""
    total = torch.zeros(())
    if isinstance(module, nn.Sequential):
        for layer in module:
            a, columns, block = push(layer, a, columns, delta)
            total = total + block
        return a, columns, total
    if isinstance(module, Residual):
        b, derivatives, total = push(nn.Sequential(module.first, module.act, module.second), a, columns, delta)
        return F.relu(a + b), (columns + derivatives) * (a + b > 0), total
    if isinstance(module, nn.Conv2d):  # Σ_d ‖Σ_p δ_p ⊗ ∂a_p/∂x_d‖² over positions p, which is no product of two norms
        options = {"stride": module.stride, "padding": module.padding}
        patches = F.unfold(columns, module.kernel_size, **options)
        total = (patches @ delta[module].flatten(2).mT).square().sum()
        return module(a), F.conv2d(columns, module.weight, **options), total
    if isinstance(module, nn.Linear):
        return module(a), columns @ module.weight.T, delta[module].square().sum() * columns.square().sum()
    if isinstance(module, nn.MaxPool2d):
        a, places = F.max_pool2d(a, module.kernel_size, return_indices=True)
        columns = columns.flatten(2).gather(2, places.flatten(2).expand(len(columns), -1, -1))
        return a, columns.unflatten(2, a.shape[2:]), total
    return module(a), columns * (a > 0) if isinstance(module, nn.ReLU) else module(columns), total


def outputs_of(net: nn.Module, x: Tensor) -> dict[nn.Module, Tensor]:
    """What each convolution, pooling and linear layer returns, in the order of the calls."""
    found: dict[nn.Module, Tensor] = {}
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.Linear))]
    hooks = [m.register_forward_hook(lambda module, _, output: found.update({module: output})) for m in layers]
    net(x)
    for hook in hooks:
        hook.remove()
    return found


def prototype(net: nn.Sequential, x: Tensor) -> Tensor:
    """The exact ‖S(x)‖² of one sample (1, ...) for the sum of the outputs, shape ()."""
    outputs = outputs_of(net, x)
    delta = dict(zip(outputs, torch.autograd.grad([*outputs.values()][-1].sum(), [*outputs.values()])))
    units = torch.eye(x.numel()).view(-1, *x.shape[1:])
    with torch.no_grad():
        return torch.stack([push(net, x, columns, delta)[2] for columns in units.split(64)]).sum()


def local(net: nn.Module, x: Tensor) -> float:
    """The prototype's products in training steps, with as many columns as input entries that a unit of a layer sees."""
    side, stride, counts = 1, 1, []
    for module, output in outputs_of(net, x).items():
        if isinstance(module, nn.Linear):
            counts.append((module.weight.numel(), min(x.numel(), module.in_features)))
            continue
        kernel, step = (value[0] if isinstance(value, tuple) else value for value in (module.kernel_size, module.stride))
        side, stride = side + (kernel - 1) * stride, stride * step
        if isinstance(module, nn.Conv2d):
            counts.append((module.weight[0].numel() * output.numel(), 2 * min(x.numel(), x.shape[1] * side**2)))
    return sum(size * columns for size, columns in counts[1:-1]) / (3 * sum(size for size, _ in counts))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """Trains on a batch."""
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()


def main() -> None:
    """Trains and measures the networks, and prints the table."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(f"{processor()}, 1 thread, torch {torch.__version__}")
    digits = load_digits()
    torch.manual_seed(0)
    rows = []
    for name, (net, (channels, size)) in networks().items():
        x = F.interpolate(torch.tensor(digits.images / 16).float().unsqueeze(1), size, mode="bilinear")
        x, y = x.repeat(1, channels, 1, 1)[: 9 * SAMPLES], torch.tensor(digits.target[: 9 * SAMPLES])
        adam, copied = torch.optim.Adam(net.parameters()), copy.deepcopy(net)
        for _ in range(40):
            for part in torch.randperm(8 * SAMPLES).split(SAMPLES):
                step(net, adam, x[part], y[part])
        few, probe = x[-SAMPLES:], partial(tangent_sensitivity, net, x[-SAMPLES:], method="input_space")
        training = partial(step, copied, torch.optim.SGD(copied.parameters(), 1e-3, momentum=0.9), few, y[-SAMPLES:])
        exact, pushed = partial(tangent_sensitivity, net, few[:1], method="exact"), partial(prototype, net, few[:1])
        torch.testing.assert_close(pushed(), exact()[0], rtol=1e-3, atol=0)
        times = timed({"step": training, "probe": probe}, 5) | timed({"exact": exact, "pushed": pushed}, 1)
        draws = torch.stack([probe(generator=torch.Generator().manual_seed(seed)) for seed in range(32)])
        noise = draws.var(0).mean()
        sampling = draws.mean(0).var() - noise / len(draws)
        deviations = [float((variance / SAMPLES).sqrt() / draws.mean()) for variance in (sampling, noise)]
        ratio = times["probe"] / times["step"]
        forward, columns = (SAMPLES * times[way] / times["step"] for way in ("exact", "pushed"))
        prices = [ratio, ratio * float(1 + noise / sampling), forward, columns, local(net, few[:1])]
        right = (net(few).argmax(1) == y[-SAMPLES:]).float().mean()
        printed = [f"{right:.0%}", *(f"{error:.1%}" for error in deviations), *(f"{price:,.3g}" for price in prices)]
        rows.append((name, f"{1e3 * times['step']:.1f} ms", *printed))
    header = "network,step,accuracy,sampling error,one probe's error,probe,probes as precise,forward mode,prototype,local"
    table(f"{SAMPLES} samples, costs in steps", header.split(","), rows)


if __name__ == "__main__":
    main()

"""Spectral norms against dense singular values of matrices whose columns are the images of unit vectors."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import layer_norms as module_under_test
from lightning_tansens.functional.layer_norms import SpectralCache, spectral_norms
from tests.cases import Lambda, mlp
from tests.helpers import mixed_modes, state_of

CONVOLUTIONS = {
    "3 × 3": (lambda: nn.Conv2d(2, 3, 3), (2, 6, 7)),
    "padded": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 6, 7)),
    "padded, same": (lambda: nn.Conv2d(2, 3, 4, padding="same"), (2, 6, 7)),
    "strided": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 7, 8)),
    "strided past positions": (lambda: nn.Conv2d(2, 3, 2, stride=3), (2, 7, 8)),
    "dilated": (lambda: nn.Conv2d(2, 3, 3, dilation=(2, 1)), (2, 7, 6)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 5, 6)),
    "depthwise": (lambda: nn.Conv2d(5, 5, 3, padding=1, groups=5, bias=False), (5, 5, 6)),
    "pointwise": (lambda: nn.Conv2d(5, 4, 1), (5, 3, 4)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 6, 7)),
    "reflected": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 6, 7)),
    "1d": (lambda: nn.Conv1d(3, 4, 5, stride=2, padding=2), (3, 17)),
    "3d": (lambda: nn.Conv3d(1, 2, 2, padding=1), (1, 3, 4, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1), (3, 4, 5)),
    "transposed, output padding": (lambda: nn.ConvTranspose2d(3, 2, 3, 2, 1, output_padding=1), (3, 4, 5)),
    "transposed, output padding in dilation": (
        lambda: nn.ConvTranspose2d(3, 2, 2, 1, output_padding=2, dilation=3), (3, 4, 5)
    ),
    "transposed, groups": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 4, 3)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(3, 2, 4, 3), (3, 8)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 1, 2, 2, 1), (2, 3, 2, 3)),
}  # fmt: skip


def dense(layer, shape, call=None):
    """The largest singular value of a layer's linear part on inputs of a shape."""
    call = call or layer
    with torch.no_grad():
        units = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
        images = call(units) - call(torch.zeros_like(units[:1]))
    return float(np.linalg.svd(images.flatten(1).numpy(), compute_uv=False)[0])


def only(norms):
    (norm,) = norms.values()
    return float(norm)


@pytest.fixture(params=["dense", "iterative"])
def way(request, monkeypatch):
    """Either way of small layers."""
    monkeypatch.setattr(module_under_test, "SMALL", 10**6 if request.param == "dense" else 2)
    return request.param


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, way):
    build, shape = CONVOLUTIONS[name]
    torch.manual_seed(0)
    layer = build().double()
    norms = spectral_norms(layer, torch.randn(2, *shape, dtype=torch.float64))
    assert list(norms) == ["weight"]
    assert only(norms) == pytest.approx(dense(layer, shape), rel=1e-6)
    assert norms["weight"].dtype == torch.float64


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (30, 30), (1, 7), (7, 1)])
def test_matrices(shape, way):
    torch.manual_seed(0)
    layer = nn.Linear(*shape).double()
    expected = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)[0]
    assert only(spectral_norms(layer)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-8])
def test_close_singular_values(spread):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(300, 300, generator=generator).double())[0] for _ in range(2))
    values = 2 - spread * torch.arange(300, dtype=torch.float64)
    layer = nn.Linear(300, 300, bias=False).double()
    layer.weight.data = left @ values.diag() @ right
    assert only(spectral_norms(layer)) == pytest.approx(2, rel=1e-6)
    if spread < 1e-6:
        return
    assert only(spectral_norms(layer, tolerance=1e-9)) == pytest.approx(2, rel=1e-9)


def test_circular_convolution_by_fourier_transform():
    # on a torus a convolution is diagonal in frequencies (Sedghi et al. 2019)
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular", bias=False).double()
    symbols = np.fft.fft2(layer.weight.detach().numpy(), (16, 16)).transpose(2, 3, 0, 1)
    expected = np.linalg.svd(symbols, compute_uv=False).max()
    inputs = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    assert only(spectral_norms(layer, inputs)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("length", [20, 400])
def test_second_differences(length):
    layer = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    layer.weight.data = torch.tensor([[[-1.0, 2.0, -1.0]]])
    expected = 2 + 2 * math.cos(math.pi / (length + 1))
    assert only(spectral_norms(layer, torch.zeros(1, 1, length))) == pytest.approx(expected, rel=1e-6)


def test_layers_of_a_network_and_their_order():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(27, 9),
        nn.Linear(9, 4),
    ).double()
    inputs = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    norms = spectral_norms(model, inputs)
    expected = {
        "0.weight": dense(model[0], (1, 8, 8)),
        "5.weight": np.linalg.norm(model[5].weight.detach().numpy(), 2),
        "6.weight": np.linalg.norm(model[6].weight.detach().numpy(), 2),
    }
    assert {name: float(norm) for name, norm in norms.items()} == pytest.approx(expected, rel=1e-6)
    assert list(norms) == list(expected)


def test_a_transposed_convolution_has_the_size_that_it_was_called_with():
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(2, 2, 3, stride=3).double()
    model = Lambda(lambda m, x: m.up(x, output_size=(11, 10)), up=layer)
    call = lambda x: layer(x, output_size=(11, 10))  # noqa: E731
    inputs = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    assert only(spectral_norms(model, inputs)) == pytest.approx(dense(layer, (2, 3, 3), call), rel=1e-6)


def test_the_largest_of_several_sizes_counts():
    torch.manual_seed(0)
    layer = nn.Conv1d(1, 1, 5, padding=2).double()
    model = Lambda(lambda m, x: m.conv(x) + m.conv(input=x[..., ::8]).mean(2, keepdim=True), conv=layer)
    inputs = torch.zeros(2, 1, 24, dtype=torch.float64)
    small, large = dense(layer, (1, 3)), dense(layer, (1, 24))
    assert small < 0.99 * large
    assert only(spectral_norms(model, inputs)) == pytest.approx(large, rel=1e-6)
    only_small = Lambda(lambda m, x: m.conv(x[..., ::8]), conv=layer)
    assert only(spectral_norms(only_small, inputs)) == pytest.approx(small, rel=1e-6)


def test_convolutions_that_are_not_called_are_left_out():
    model = Lambda(lambda m, x: m.used(x), used=nn.Conv1d(1, 1, 3), auxiliary=nn.Conv1d(1, 1, 3))
    assert list(spectral_norms(model, torch.zeros(1, 1, 9))) == ["used.weight"]
    with pytest.raises(UnsupportedNetworkError, match="calls convolutional layers, but Lambda calls none of its own; leave"):
        spectral_norms(Lambda(lambda m, x: x, conv=nn.Conv1d(1, 1, 3)), torch.zeros(1, 1, 9))


def test_unbatched_images():
    layer = nn.Conv2d(1, 2, 3).double()
    image = torch.zeros(1, 6, 5, dtype=torch.float64)
    assert only(spectral_norms(layer, image)) == pytest.approx(dense(layer, (1, 6, 5)), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-35, 1e-12, 1.0, 1e15, 1e35])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_scale_and_dtype(scale, dtype, way):
    torch.manual_seed(0)
    layer = nn.Linear(20, 30).double()
    layer.weight.data *= scale
    layer.to(dtype)
    expected = np.linalg.norm(layer.weight.detach().double().numpy(), 2)
    assert only(spectral_norms(layer)) == pytest.approx(expected, rel=1e-6, abs=0)


def test_zeros_and_values_that_are_not_finite(way):
    layer = nn.Linear(20, 20)
    nn.init.zeros_(layer.weight)
    assert only(spectral_norms(layer)) == 0
    for value in (math.nan, math.inf):
        layer.weight.data[3, 3] = value
        assert math.isnan(only(spectral_norms(layer)))
    # only the kernel's centre meets this image
    empty = nn.Conv2d(3, 1, 3, padding=1, bias=False)
    empty.weight.data[:, :, 1, 1] = 0
    assert only(spectral_norms(empty, torch.zeros(1, 3, 1, 1))) == 0


@pytest.fixture
def products(monkeypatch):
    """Counts the products with WᵀW."""
    counted = []
    linear_operator = module_under_test.LinearOperator

    def counting(shape, matvec, dtype):
        return linear_operator(shape, matvec=lambda v: counted.append(1) or matvec(v), dtype=dtype)

    monkeypatch.setattr(module_under_test, "LinearOperator", counting)
    return counted


def layer_of(kind):
    torch.manual_seed(0)
    if kind == "matrix":
        return nn.Linear(300, 300).double(), None, (300,)
    layer = nn.Conv2d(2, 2, 3, padding=1).double()
    return layer, torch.zeros(1, 2, 14, 14, dtype=torch.float64), (2, 14, 14)


@pytest.mark.parametrize("kind", ["matrix", "convolution"])
def test_vectors_are_kept_and_make_the_next_measurement_cheaper(kind, products):
    layer, inputs, shape = layer_of(kind)
    cache = SpectralCache()
    spectral_norms(layer, inputs, cache=cache)
    warm, cold = 0, 0
    for _ in range(4):
        layer.weight.data *= 1 + 0.01 * torch.randn_like(layer.weight)
        expected = dense(layer, shape)
        products.clear()
        assert only(spectral_norms(layer, cache=cache)) == pytest.approx(expected, rel=1e-6)
        warm += len(products)
        products.clear()
        assert only(spectral_norms(layer, inputs)) == pytest.approx(expected, rel=1e-6)
        cold += len(products)
    assert 0 < warm < 0.8 * cold


def two_blocks(kind):
    """A layer of two blocks that do not mix, each of norm 1, and a batch."""
    torch.manual_seed(1)
    if kind == "grouped":
        layer = nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False).double()
        blocks, inputs = layer.weight.data.chunk(2), torch.zeros(1, 16, 10, 10, dtype=torch.float64)
    else:
        layer, inputs = nn.Linear(300, 300, bias=False).double(), None
        layer.weight.data[:150, 150:] = layer.weight.data[150:, :150] = 0
        blocks = layer.weight.data[:150, :150], layer.weight.data[150:, 150:]
    scales = []
    for other in blocks[::-1]:
        kept = other.clone()
        other.zero_()
        scales.append(only(spectral_norms(layer, inputs, tolerance=1e-12)))
        other.copy_(kept)
    for block, scale in zip(blocks, scales):
        block /= scale
    return layer, blocks, inputs


@pytest.mark.parametrize("before", [0.0, 0.9])
@pytest.mark.parametrize(("kind", "after"), [("matrix", 1.1), ("matrix", 1.01), ("grouped", 1.1), ("grouped", 1.0001)])
def test_the_start_does_not_hide_that_another_block_has_overtaken(kind, before, after):
    layer, blocks, inputs = two_blocks(kind)
    second, cache = blocks[1].clone(), SpectralCache()
    for scale in (before, after):
        blocks[1].copy_(scale * second)
        assert only(spectral_norms(layer, inputs, cache=cache)) == pytest.approx(max(scale, 1), rel=1e-6)


def test_a_loose_tolerance_costs_less_and_bounds_the_error(products):
    layer, inputs, shape = layer_of("matrix")
    exact = dense(layer, shape)
    costs = {}
    for tolerance in (1e-1, 1e-3, 1e-6, 1e-10):
        products.clear()
        assert only(spectral_norms(layer, inputs, tolerance=tolerance)) == pytest.approx(exact, rel=tolerance)
        costs[tolerance] = len(products)
    assert costs[1e-1] < costs[1e-6] < costs[1e-10]


def test_a_cache_knows_networks_apart_and_forgets_those_that_are_gone():
    cache = SpectralCache()
    first, second = nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 3, padding=1)
    cache.learn_sizes(first, torch.zeros(1, 1, 300))
    with pytest.raises(ValueError, match="inputs: expected a batch, because the spectral norm of the convolution 'Conv1d'"):
        spectral_norms(second, cache=cache)
    cache.learn_sizes(second, torch.zeros(1, 1, 9))
    assert only(spectral_norms(second, cache=cache)) == pytest.approx(only(spectral_norms(second, torch.zeros(1, 1, 9))))
    assert only(spectral_norms(first, cache=cache)) == pytest.approx(only(spectral_norms(first, torch.zeros(1, 1, 300))))
    cache.learn_sizes(first, torch.zeros(1, 1, 150))  # another size: the vectors of the first do not fit
    assert only(spectral_norms(first, cache=cache)) == pytest.approx(only(spectral_norms(first, torch.zeros(1, 1, 150))))
    assert len(cache._memories) == 2
    del second
    assert len(cache._memories) == 1
    assert copy.deepcopy(cache) is cache
    assert len(pickle.loads(pickle.dumps(cache))._memories) == 0


@pytest.mark.parametrize("parametrization", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_nothing_is_left_behind(parametrization):
    torch.manual_seed(0)
    model = nn.Sequential(
        parametrization(nn.Conv2d(1, 2, 3)),
        nn.BatchNorm2d(2),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(72, 160),
        nn.Linear(160, 150),
    )
    mixed_modes(model)
    inputs = torch.randn(3, 1, 8, 8)
    before, numpy_state = state_of(model), np.random.get_state()[1].tolist()
    norms = spectral_norms(model, inputs)
    assert state_of(model) == before
    assert np.random.get_state()[1].tolist() == numpy_state
    assert not any(norm.requires_grad for norm in norms.values())
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert {k: float(v) for k, v in spectral_norms(model, inputs).items()} == {k: float(v) for k, v in norms.items()}


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        layer = nn.Linear(200, 200).double()
    assert only(spectral_norms(layer)) == pytest.approx(np.linalg.norm(layer.weight.detach().numpy(), 2), rel=1e-6)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1e-6, 1, "small", None, math.nan])
def test_tolerances_that_are_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance: expected a number between 0 and 1, both excluded, but got"):
        spectral_norms(mlp(4, 2), tolerance=tolerance)


def test_networks_that_are_refused():
    with pytest.raises(
        ValueError, match=r"of the convolution '1' depends on the size of its input, but got None; pass inputs"
    ):
        spectral_norms(nn.Sequential(nn.ReLU(), nn.Conv1d(1, 1, 3)))
    with pytest.raises(UnsupportedNetworkError, match="ReLU has no weight matrix"):
        spectral_norms(nn.ReLU())

"""Every way is right or refuses by name: derivatives that a trace or autograd does not see whole."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from lightning_tansens.errors import UnsupportedNetworkError
from lightning_tansens.functional import chosen_method, input_output_norms, tangent_sensitivity, tangent_sensitivity_blocks
from lightning_tansens.tangent import methods, verification
from tests.cases import Lambda, mlp
from tests.helpers import assert_equal
from tests.modules import normal
from tests.tiers import cases

WAYS = ["auto", "exact", "stochastic", "input_space", "parameter_space"]


def truth(function, parameters, x):
    """‖S(x_n)‖_F² by plain double backward; complex parameters count by their real and imaginary parts."""
    totals = []
    for sample in x:
        one = sample[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(one).sum(), one, create_graph=True)
        rows = [torch.autograd.grad(g, parameters, retain_graph=True, allow_unused=True) for g in slope.flatten()]
        totals.append(sum(part.abs().square().sum() for row in rows for part in row if part is not None))
    return torch.stack(totals).detach()


def check(model, same, x, way, refused=None):
    """A way gives the values of the same function without hidden parts, or refuses."""
    if refused:
        with pytest.raises(UnsupportedNetworkError, match=refused):
            tangent_sensitivity(model, x, method=way)
        return
    choice = chosen_method(model, x, way)
    if choice.way in ("closed_form", "forward_mode"):
        expected = truth(same, [p for p in model.parameters() if p.requires_grad], x)
        torch.testing.assert_close(tangent_sensitivity(model, x, method=way), expected, rtol=1e-9, atol=0)
    elif same is not model:  # the same probes
        plain = Lambda(lambda m, x: same(x), **dict(model.named_children()))
        expected = tangent_sensitivity(plain, x, method=choice.way, num_probes=3)
        torch.testing.assert_close(tangent_sensitivity(model, x, method=way, num_probes=3), expected, rtol=1e-9, atol=0)
    else:
        expected = truth(same, [p for p in model.parameters() if p.requires_grad], x)
        values = tangent_sensitivity(model, x, method=way, num_probes=150)
        torch.testing.assert_close(values, expected, rtol=0.4, atol=0)


def energy_gradient(m, x):
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        (g,) = torch.autograd.grad(m.e(x).sum(), x, create_graph=True)
    return g


def functorch_gradient(m, x):
    return torch.func.vmap(torch.func.grad(lambda one: m.e(one).sum()))(x)


def penalised(m, x):
    """A layer, and the norm of the gradient of another use of it."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        h = torch.tanh(m.e(x))
        (g,) = torch.autograd.grad(h.square().sum(), x, create_graph=True)
    return torch.cat([h, g], 1)


DERIVATIVES = {"energy": energy_gradient, "torch.func": functorch_gradient, "penalty": penalised}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_derivative_inside_of_forward(name, way):
    torch.manual_seed(0)
    net = nn.Linear(3, 2) if name == "penalty" else nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    model = Lambda(DERIVATIVES[name], e=net).double()
    refused = "method='input_space': " if way == "input_space" else None
    check(model, model, normal(3)(3), way, refused)


def detached(m, x):
    return energy_gradient(m, x.detach())


def detached_part(m, x):
    return m.head(torch.tanh(m.e(x)) * x.detach().sum(1, keepdim=True))


def data_part(m, x):
    return m.head(torch.tanh(m.e(x) + x.data[:, :1]))


DETACHED = {"derivative": detached, "part": detached_part, "data": data_part}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DETACHED)
def test_detached_inputs_are_refused_by_name(name, way):
    torch.manual_seed(0)
    net = nn.Linear(3, 4) if name != "derivative" else nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    model = Lambda(DETACHED[name], e=net, head=nn.Linear(4, 2)).double()
    message = r"derivative is cut off: torch.Tensor.(detach|data.__get__) called in module 'Lambda' \(Lambda\)"
    hidden_use = "|parameter 'e.0.weight' is also used where no layer rule sees it" if name == "derivative" else ""
    check(model, None, normal(3)(3), way, message + (hidden_use if way == "input_space" else ""))
    with pytest.raises(UnsupportedNetworkError, match=message):
        input_output_norms(model, normal(3)(3))


def frozen_backbone(m, x, hide=True):
    with torch.set_grad_enabled(not hide):
        features = m.e(x)
    return m.head(features)


def gate_without_grad(m, x, hide=True):
    with torch.set_grad_enabled(not hide):
        gate = torch.sigmoid(m.e(x))
    return m.head(gate * x.repeat(1, 2)[:, :4])


def normalised_without_grad(m, x, hide=True):
    with torch.set_grad_enabled(not hide):
        x = torch.tanh(m.e(x)) / (1 + x.square().sum(1, keepdim=True))
    return torch.tanh(m.head(x))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("forward", [frozen_backbone, gate_without_grad, normalised_without_grad])
def test_parts_under_no_grad(forward, way):
    torch.manual_seed(0)
    model = Lambda(forward, e=nn.Sequential(nn.Linear(3, 4), nn.ReLU()).requires_grad_(False), head=nn.Linear(4, 2)).double()
    refused = "is cut off: .* called in module 'e.0' .* under torch.no_grad" if way == "parameter_space" else None
    check(model, lambda x: forward(model, x, hide=False), normal(3)(3), way, refused)


class HiddenLinear(torch.autograd.Function):
    """A linear layer that a tracer does not see."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x


class ConstantExp(torch.autograd.Function):
    """An exponential whose backward holds its value for a constant."""

    @staticmethod
    def forward(ctx, x):
        value = x.exp()
        ctx.value = value.clone()
        return value

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.value


def scripted(m, x):
    return m.head(m.hidden(x) + torch.tanh(m.hidden.layer(x)))


def twice_by_function(m, x):
    return m.head(torch.tanh(m.e(x)) + HiddenLinear.apply(x, m.e.weight).tanh())


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        return torch.tanh(self.layer(x))


def hidden(name):
    torch.manual_seed(0)
    if name == "scripted":
        model = Lambda(scripted, hidden=torch.jit.script(Layer().double()), head=nn.Linear(4, 2)).double()
        layer = model.hidden.layer
        return model, lambda x: m_head(model, torch.tanh(F.linear(x, layer.weight, layer.bias)) * 2)
    model = Lambda(twice_by_function, e=nn.Linear(3, 4), head=nn.Linear(4, 2)).double()
    return model, lambda x: m_head(model, torch.tanh(model.e(x)) + (x @ model.e.weight.T).tanh())


def m_head(model, h):
    return F.linear(h, model.head.weight, model.head.bias)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["scripted", "function"])
def test_uses_that_are_hidden_from_tracing(name, way):
    model, same = hidden(name)
    check(model, same, normal(3)(3), way, "method='input_space': " if way == "input_space" else None)


@pytest.mark.parametrize("way", WAYS)
def test_a_function_whose_second_derivative_is_wrong_is_refused(way):
    torch.manual_seed(0)
    model = Lambda(lambda m, x: m.head(ConstantExp.apply(m.e(x))), e=nn.Linear(3, 4), head=nn.Linear(4, 2)).double()
    message = "gradients of Lambda to move .* cut off: the custom autograd function ConstantExp|method='input_space'"
    check(model, None, normal(3)(3), way, message)


@pytest.mark.parametrize("way", ["auto", "exact"])
def test_a_use_beside_a_chain_is_not_missed(way):
    """The trace takes what it does not see for a constant; a product of it with a layer is no constant factor."""
    torch.manual_seed(0)
    model = Lambda(lambda m, x: m.b(m.a(x).relu() * HiddenLinear.apply(torch.ones(1, 3).double(), m.a.weight).detach()),
                   a=nn.Linear(3, 4), b=nn.Linear(4, 2)).double()  # fmt: skip
    same = lambda x: model.b(model.a(x).relu() * (torch.ones(1, 3).double() @ model.a.weight.T).detach())  # noqa: E731
    check(model, same, normal(3)(3), way)


class Spectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, dtype=torch.cdouble) / 3)

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x)[..., :3] * self.w, n=x.shape[-1])


COMPLEX = {
    "Fourier layer": lambda: nn.Sequential(Spectral(), nn.Tanh(), nn.Linear(6, 2).double()),
    "modulus": lambda: Lambda(lambda m, x: (x.to(torch.cdouble) @ m.w).abs(), w=nn.Parameter(torch.randn(6, 2).cdouble())),
    "real gain": lambda: Lambda(
        lambda m, x: torch.fft.irfft(torch.fft.rfft(torch.tanh(x)) * m.g), g=nn.Parameter(torch.randn(4).double())
    ),
}


@pytest.mark.parametrize("way", ["auto", "exact", "parameter_space"])
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_parameters_and_activations(name, way):
    torch.manual_seed(0)
    model, x = COMPLEX[name](), normal(6)(3)
    try:
        torch.autograd.grad(model(x.clone().requires_grad_()).sum(), list(model.parameters()))
    except RuntimeError as error:
        pytest.skip(f"torch itself cannot differentiate it: {error}")  # torch 2.6 with some builds of MKL
    check(model, model, x, way)
    assert tangent_sensitivity(model, x, method=way).dtype == torch.float64
    with pytest.raises(UnsupportedNetworkError, match="method='input_space': there is no layer rule for parameter"):
        chosen_method(model, x, "input_space")


INPLACE = {
    "Linear, ReLU": lambda: [nn.Linear(4, 5), nn.ReLU(inplace=True)],
    "Linear, SiLU": lambda: [nn.Linear(4, 5), nn.SiLU(inplace=True)],
    "Linear, F.relu_": lambda: [nn.Linear(4, 5), Lambda(lambda m, h: F.relu_(h))],
    "Linear, add_": lambda: [nn.Linear(4, 5), Lambda(lambda m, h: h.add_(1).mul_(2)), nn.Tanh()],
    "LayerNorm, LeakyReLU": lambda: [nn.Linear(4, 5), nn.LayerNorm(5), nn.LeakyReLU(inplace=True)],
}


@pytest.mark.parametrize(
    ("name", "way"),
    cases(
        {f"{name}, {way}": (name, way) for name in INPLACE for way in WAYS},
        *(f"{name}, auto" for name in INPLACE),
        *(f"Linear, add_, {way}" for way in WAYS if way != "auto"),
    ),
)
def test_in_place_operators_on_sequences(name, way):
    torch.manual_seed(0)
    model = Lambda(lambda m, x: m.o(m.n(x).mean(1)), n=nn.Sequential(*INPLACE[name]()), o=nn.Linear(5, 2)).double()
    check(model, model, normal(3, 4)(3), way)


def mixture(m, x):
    expert = m.gate(x).argmax(1)
    out = x.new_zeros(len(x), 2)
    for e, net in enumerate(m.experts):
        (rows,) = torch.where(expert == e)
        if len(rows):
            out = out.index_add(0, rows, net(x[rows]))
    return out


def by_sign(m, x):
    """One of two layers for the whole batch."""
    return m.experts[0](x) if x.sum() > 0 else m.experts[1](m.experts[0](x) @ torch.ones(2, 3).to(x))


@pytest.mark.parametrize("forward", [mixture, by_sign])
def test_layers_that_depend_on_the_data(forward):
    torch.manual_seed(0)
    experts = nn.ModuleList(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)) for _ in range(2))
    model = Lambda(forward, gate=nn.Linear(3, 2), experts=experts).double()
    x = normal(3)(8)
    alone = [tangent_sensitivity(model, one[None] if forward is mixture else one.expand(2, 3)) for one in x]
    assert all(value.isfinite().all() for value in alone)
    if forward is mixture:
        assert chosen_method(model, x).way == "parameter_space"
        values = tangent_sensitivity(model, x, num_probes=150)
        torch.testing.assert_close(values, truth(model, list(model.parameters()), x), rtol=0.4, atol=0)


def test_another_way_is_taken_when_a_later_batch_takes_another_path():
    torch.manual_seed(0)
    experts = nn.ModuleList(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)) for _ in range(2))
    model = Lambda(by_sign, experts=experts)
    assert tangent_sensitivity(model, torch.ones(3, 3)).shape == (3,)
    assert chosen_method(model, torch.ones(3, 3)).way == "input_space"
    assert tangent_sensitivity(model, -torch.ones(3, 3)).shape == (3,)
    choice = chosen_method(model, torch.ones(3, 3))
    assert choice.way == "parameter_space"
    assert choice.reason.startswith("input space failed for a later batch: expected Lambda to call the same layers")
    tangent_sensitivity(model, torch.ones(3, 3), method="input_space")
    with pytest.raises(UnsupportedNetworkError, match="call the same layers for every batch"):
        tangent_sensitivity(model, -torch.ones(3, 3), method="input_space")


SQUEEZED = {
    "one logit": lambda: Lambda(lambda m, x: m.net(x).squeeze(), net=mlp(4, 5, 1, activation=nn.Tanh)),
    "chain": lambda: Lambda(lambda m, x: m.net(x).squeeze(), net=mlp(4, 5, 1)),
    "in the middle": lambda: Lambda(lambda m, x: m.b(torch.tanh(m.a(x)).squeeze()), a=nn.Linear(4, 5), b=nn.Linear(5, 2)),
    "LSTM": lambda: Lambda(lambda m, x: m.o(m.r(x.unsqueeze(1))[0][:, -1]).squeeze(), r=nn.LSTM(4, 3, batch_first=True),
                           o=nn.Linear(3, 1)),
}  # fmt: skip


@pytest.mark.parametrize("way", ["auto", "exact", "stochastic", "parameter_space"])
@pytest.mark.parametrize("name", SQUEEZED)
def test_squeezed_batches(name, way):
    torch.manual_seed(0)
    model, x = SQUEEZED[name]().double(), normal(4)(3)
    values = tangent_sensitivity(model, x, method=way, num_probes=2)
    for n in range(3):
        assert_equal(tangent_sensitivity(model, x[n : n + 1], method=way, num_probes=2, positions=[n]), values[n : n + 1])


@pytest.mark.parametrize("way", WAYS)
def test_scalar_inputs(way):
    torch.manual_seed(0)
    model = Lambda(lambda m, x: m.net(x[:, None])[:, 0], net=mlp(1, 6, 1, activation=nn.Tanh)).double()
    check(model, model, normal()(4), way)
    with pytest.raises(ValueError, match=r"expected a batch of shape \(N, ...\), but got shape \(4,\); add the batch dim"):
        tangent_sensitivity(Lambda(lambda m, x: m.net(x), net=mlp(4, 6, 4)), torch.randn(4), method=way)


def test_the_next_way_is_taken_where_one_fails(monkeypatch):
    model, x = mlp(4, 5, 2, activation=nn.Tanh), torch.randn(3, 4)

    def fails(network, **_):
        raise RuntimeError("an internal assertion\nof autograd")

    monkeypatch.setattr(methods, "find_batch_axes", fails)
    choice = chosen_method(model, x)
    assert choice.way == "parameter_space"
    assert "; input space fails with RuntimeError: an internal assertion (" in choice.reason
    assert "of autograd" not in choice.reason
    with pytest.raises(UnsupportedNetworkError, match="method='input_space': input space fails with RuntimeError: an int"):
        chosen_method(model, x, "input_space")

    def is_full(network, **_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(methods, "find_batch_axes", is_full)
    methods._choices.clear()
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        chosen_method(model, x)


def test_a_network_is_examined_again_on_more_samples():
    torch.manual_seed(0)
    model, x = (
        Lambda(mixture, gate=nn.Linear(3, 2), experts=nn.ModuleList(nn.Linear(3, 2) for _ in range(2))),
        torch.randn(8, 3),
    )
    assert chosen_method(model, x[:1]).way == "input_space"
    assert chosen_method(model, x).way == "parameter_space"
    assert chosen_method(model, x[:1]).way == "parameter_space"


def test_surrogate_gradients_and_random_forwards_are_measured():
    """A derivative that is a surrogate by intent, and values that differ from call to call, show no cut derivative."""
    rounded = Lambda(
        lambda m, x: m.b(m.a(x) + (torch.round(m.a(x)) - m.a(x)).detach()), a=nn.Linear(4, 3), b=nn.Linear(3, 2)
    )
    with torch.no_grad():
        rounded.a.weight.mul_(1e-3)
        rounded.a.bias.fill_(0.3)
    assert tangent_sensitivity(rounded, torch.randn(3, 4), method="parameter_space").all()
    noisy = Lambda(lambda m, x: m.net(F.dropout(x, 0.5, True)), net=mlp(4, 5, 2, activation=nn.Tanh))
    assert chosen_method(noisy, torch.randn(3, 4)).way == "input_space"


def test_kinks_are_not_taken_for_cuts():
    """Black pixels and layers without biases put every unit on its kink."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(), nn.Linear(6, 40, bias=False), nn.ReLU(), nn.Linear(40, 2, bias=False), nn.Sigmoid())
    x = torch.randn(3, 6)
    x[0], x[1, :3] = 0, 0
    for way in WAYS:
        assert tangent_sensitivity(model, x, method=way).shape == (3,)


def test_networks_with_many_kinks_are_not_refused():
    torch.manual_seed(0)
    model = mlp(20, 500, 500, 500, 3)
    for way in WAYS:
        assert tangent_sensitivity(model, torch.randn(4, 20), method=way).all()


@pytest.mark.parametrize(
    "options", cases({"plain": {}, "bidirectional": {"bidirectional": True}, "projected": {"proj_size": 2}}, "bidirectional")
)
def test_lstm_is_measured(options):
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 3, num_layers=2, batch_first=True, **options)
    width = lstm(torch.randn(1, 2, 4))[0].shape[-1]
    model = Lambda(lambda m, x: m.head(m.lstm(x)[0][:, -1]), lstm=lstm, head=nn.Linear(width, 2)).double()
    check(model, model, normal(3, 4)(2), "auto")
    assert "torch.lstm" in chosen_method(model, normal(3, 4)(2)).reason
    blocks = tangent_sensitivity_blocks(nn.LSTM(4, 3, batch_first=True), torch.randn(2, 3, 4), output=lambda out: out[0])
    assert blocks["all"].all()


def test_verification_says_nothing_of_half_precision(monkeypatch):
    calls = []
    monkeypatch.setattr(verification, "_differ", lambda *args: calls.append(args))
    chosen_method(mlp(4, 5, 2, activation=nn.Tanh).bfloat16(), torch.randn(3, 4).bfloat16(), "stochastic")
    assert not calls


@pytest.mark.parametrize("way", ["input_space", pytest.param("parameter_space", marks=pytest.mark.thorough)])
def test_deep_networks_in_16_bits(way):
    # rounding moves the first layers' gradients by a fifth of their norm; it is not taken for a part that is missing
    torch.manual_seed(0)
    model, x = torchvision.models.resnet18(num_classes=10), torch.randn(8, 3, 32, 32)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    for _ in range(4):  # away from a new network's means and biases, which round to the same in any order
        model(x).square().sum().backward()
        optimizer.step()
    expected = tangent_sensitivity(copy.deepcopy(model), x[:2], method=way)
    values = tangent_sensitivity(model.bfloat16(), x[:2].bfloat16(), method=way)
    torch.testing.assert_close(values.float(), expected, rtol=0.15, atol=0)


def test_derivatives_are_compared_in_full_precision():
    seen = []

    def settings():
        return [getattr(owner, name) for owner, name, _ in verification._PRECISIONS]

    def forward(m, x):
        seen.append(settings())
        return m.head(torch.tanh(m.e(x)))

    before, full = settings(), [full for *_, full in verification._PRECISIONS]
    try:
        for owner, name, value in verification._PRECISIONS:
            setattr(owner, name, "tf32" if value == "ieee" else True)
        of_the_user = settings()
        tangent_sensitivity(Lambda(forward, e=nn.Linear(3, 4), head=nn.Linear(4, 2)), torch.randn(5, 3))
        assert full in seen
        assert seen[-1] == settings() == of_the_user != full
    finally:
        for (owner, name, _), value in zip(verification._PRECISIONS, before, strict=True):
            setattr(owner, name, value)

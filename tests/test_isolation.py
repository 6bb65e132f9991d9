"""What a forward pass may leave behind is put back, or refused by name; hooks of the user are silent."""

import copy
import functools
import gc
import random
import weakref
from collections import deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as all_modules
from torch.nn.utils import parametrizations, prune

from lightning_tansens.errors import DisturbedTrainingError
from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.tangent.isolation import evaluation, memory, randomness, seed_devices, undisturbed
from lightning_tansens.tangent.random_forward import is_random
from lightning_tansens.tangent.regulariser import TangentSensitivityRegulariser
from tests.boring import BoringModule, fit, make_monitor
from tests.cases import Lambda, mlp


class Shadow:
    """A moving average as people write it by hand: no module, and a counter."""

    def __init__(self, tensor):
        self.average, self.steps = tensor.detach().clone(), 0

    def update(self, tensor):
        self.average.mul_(0.9).add_(tensor.detach(), alpha=0.1)
        self.steps += 1


class Restless(nn.Module):
    """Does in ``forward`` one thing that changes it, in every mode."""

    def __init__(self, act):
        super().__init__()
        self.act = act
        self.linear, self.teacher = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("queue", torch.tensor([[-0.0, float("nan")] * 4] * 3))
        self.register_buffer("nothing", None)
        self.plain = torch.ones(2, 3)
        self.view = self.plain[0]
        self.array = np.ones(3)
        self.calls, self.seen, self.cache, self.recent = 0, [1], {"a": [torch.ones(2)]}, deque([1, 2], maxlen=2)
        self.shadow = Shadow(self.linear.weight)
        self.hidden = [nn.BatchNorm1d(4)]
        self.unset = None

    def forward(self, x):
        self.act(self, x)
        return self.linear(x)


def replaced(m, x):
    m.plain, m.nothing, m.new, m.queue = m.plain + 1, x, x, m.queue + 1


def momentum_update(m, x):
    for teacher, student in zip(m.teacher.parameters(), m.linear.parameters()):
        teacher.data = 0.9 * teacher.data + 0.1 * student.data


ACTS = {
    "a buffer through .data": lambda m, x: m.queue.data.add_(1),
    "the sign of a zero": lambda m, x: m.queue.data.copy_(m.queue.abs()),
    "a buffer through NumPy": lambda m, x: m.queue.numpy().fill(3),
    "a resized buffer": lambda m, x: m.queue.resize_(5, 9).fill_(1.0),
    "a shrunk buffer": lambda m, x: m.queue.resize_(1).fill_(1.0),
    "other objects": replaced,
    "weights through .data": lambda m, x: m.linear.weight.data.clamp_(-0.01, 0.01),
    "a teacher's weights": momentum_update,
    "another dtype": lambda m, x: m.teacher.half(),
    "a new attribute": lambda m, x: setattr(m, "new", x),
    "a missing attribute": lambda m, x: vars(m).pop("unset", None),
    "a view": lambda m, x: m.view.add_(1),
    "an array": lambda m, x: m.array.__iadd__(1),
    "a counter": lambda m, x: setattr(m, "calls", m.calls + 1),
    "a list": lambda m, x: m.seen.append(x),
    "a nested cache": lambda m, x: (m.cache["a"][0].add_(1), m.cache["a"].append(x), m.cache.update(b=x)),
    "a queue": lambda m, x: m.recent.append(x),
    "an object's tensor": lambda m, x: m.shadow.update(m.linear.weight),
    "a module in a list": lambda m, x: m.hidden[0](x),
    "a gradient": lambda m, x: m.linear(x.detach()).sum().backward(),
    "frozen weights": lambda m, x: m.linear.requires_grad_(False),
    "a mode": lambda m, x: m.linear.train(),
    "an extra layer": lambda m, x: setattr(m, "extra", nn.Linear(1, 1)),
    "a registered hook": lambda m, x: m.linear.register_forward_hook(print_nothing),
    "another class": lambda m, x: setattr(m.teacher, "__class__", nn.Identity),
}


def print_nothing(*_):
    pass


def everything(value, seen=None):
    """Nested values of all that a module holds, with the identities of objects."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        grad = value.grad if value.is_leaf else None
        inner = None if grad is None else everything(grad)
        data = value.detach().clone().numpy().tobytes()  # of a clone, as NumPy would forbid a resize
        return id(value), data, value.untyped_storage()._cdata, value.shape, value.dtype, value.requires_grad, inner
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if id(value) in seen or not (hasattr(value, "__dict__") or isinstance(value, (list, dict, set, deque, tuple))):
        return id(value)
    seen.add(id(value))
    if isinstance(value, dict):
        return id(value), [(name, everything(item, seen)) for name, item in value.items()]
    if isinstance(value, (list, set, deque, tuple)):
        return id(value), [everything(item, seen) for item in value]
    if not isinstance(value, (nn.Module, Shadow)):
        return id(value)
    return id(value), type(value), everything(vars(value), seen)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ACTS)
def test_everything_is_put_back(name, nested, fails):
    torch.manual_seed(0)
    model, x = Restless(ACTS[name]), torch.randn(3, 4)
    model.linear(x).sum().backward()
    before = everything(model)
    try:
        with undisturbed(model):
            if nested:
                with evaluation(model):
                    model(x)
            model(x)
            assert name in ("a mode", "frozen weights") or everything(model) != before
            if fails:
                raise ArithmeticError
    except ArithmeticError:
        pass
    assert everything(model) == before
    model(x)
    assert name == "a mode" or everything(model) != before


@pytest.mark.parametrize("name", ["a buffer through .data", "a buffer through NumPy", "weights through .data", "a view"])
def test_calls_within_a_measurement_do_not_see_one_another(name):
    model, x, seen = Restless(ACTS[name]), torch.randn(3, 4), []
    before = everything(model)
    with undisturbed(model):
        for _ in range(6):
            with evaluation(model):
                seen.append(everything(model))
                model(x)
                assert everything(model) != seen[-1]
    assert all(state == seen[0] for state in seen)
    assert everything(model) == before


def test_what_is_averaged_in_each_forward_pass_does_not_drift_from_batch_to_batch():
    model, x = Restless(momentum_update), torch.randn(3, 4)
    model.teacher.weight.data.zero_()
    with undisturbed(model):
        for _ in range(6):
            with evaluation(model):
                model(x)
                assert torch.equal(model.teacher.weight, 0.1 * model.linear.weight)


def test_writes_that_no_version_counts_are_noticed_late_and_then_at_once():
    # bytes are compared after the first, second, fourth, … block: all of them would take longer than the measurement
    model = nn.Linear(2, 2)
    start, found = model.weight.detach().clone(), []
    with undisturbed(model):
        for block in range(8):
            with evaluation(model):
                found.append(torch.equal(model.weight, start))
                if block >= 2:
                    model.weight.data.add_(1)
    assert found == [True] * 3 + [False] + [True] * 4
    assert torch.equal(model.weight, start)


def test_between_batches_few_bytes_are_read(monkeypatch):
    compared, differs = [], memory._Storage.differs
    monkeypatch.setattr(memory._Storage, "differs", lambda self: compared.append(self.name) or differs(self))
    model, x = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), torch.randn(4, 3)
    with undisturbed(model):
        for _ in range(40):
            with evaluation(model):
                model(x)
    tensors = len([*model.parameters(), *model.buffers()])
    assert len(compared) == 7 * tensors  # after 1, 2, 4, 8, 16 and 32 blocks, and at the end


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_too_large_to_copy_is_refused_by_name(tied, monkeypatch):
    monkeypatch.setattr(memory, "COPIED_BYTES", 100)
    model, x = Restless(ACTS["weights through .data"]), torch.randn(3, 4)
    model.linear.weight = nn.Parameter(torch.randn(400, 4)[::100]) if tied else model.linear.weight
    with pytest.raises(DisturbedTrainingError, match=r"leave Restless as it was, .* changed linear\.weight, which cannot"):
        tangent_sensitivity(model, x, method="parameter_space")
    with evaluation(model):
        model.linear.weight.detach()
    with pytest.raises(DisturbedTrainingError), evaluation(model):  # the sum of all numbers is the same
        model.linear.weight.data.copy_(model.linear.weight.detach().roll(1, 0))


def test_without_memory_for_a_copy_a_change_is_still_found(monkeypatch):
    def fail(self, *args, **kwargs):
        raise torch.OutOfMemoryError("no memory")

    model = nn.Linear(4, 4)
    monkeypatch.setattr(torch.Tensor, "clone", fail)
    with pytest.raises(DisturbedTrainingError, match="weight"), evaluation(model):
        model.weight.data.add_(1)


# ------------------------------------------------------------------------------------------------ lazy modules


LAZY = {
    "linear": (lambda: nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(2)), (3, 4)),
    "convolution and batch norm": (
        lambda: nn.Sequential(nn.LazyConv2d(2, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2)),
        (3, 1, 5, 5),
    ),
    "instance norm": (lambda: nn.Sequential(nn.LazyInstanceNorm1d(affine=True, track_running_stats=True)), (3, 2, 4)),
}


class LazilyNormed(nn.modules.lazy.LazyModuleMixin, nn.Module):
    """Makes a layer of its own when it is initialised."""

    def __init__(self):
        super().__init__()
        self.weight = nn.UninitializedParameter()

    def initialize_parameters(self, x):
        self.weight.materialize((x.shape[1],))
        nn.init.ones_(self.weight)
        self.norm = nn.BatchNorm1d(x.shape[1], affine=False)

    def forward(self, x):
        return self.norm(x) * self.weight


def test_what_a_lazy_module_makes_stays_until_the_end_of_the_measurement():
    model, x = LazilyNormed(), torch.randn(3, 4)
    with undisturbed(model):
        made = []
        for _ in range(3):
            with evaluation(model):
                model(x)
                made.append(model.norm)
        assert made[0] is made[1] is made[2]
    assert not hasattr(model, "norm")
    assert nn.parameter.is_lazy(model.weight)


@pytest.mark.parametrize("name", LAZY)
def test_lazy_modules_are_initialised_by_the_first_batch_of_the_training(name):
    make, shape = LAZY[name]
    x, models = torch.randn(shape), []
    for measured in (False, True):
        torch.manual_seed(0)
        model = make()
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        if measured:
            kinds = [type(module) for module in model]
            with undisturbed(model):
                first = model(x)
                with evaluation(model):
                    assert torch.equal(model(x), first)  # initialised once for all of a measurement
            assert [type(module) for module in model] == kinds
            assert all(nn.parameter.is_lazy(parameter) for parameter in model.parameters())
            assert model[0].state_dict().keys() == make()[0].state_dict().keys()
        for _ in range(2):
            model(x).square().mean().backward()
            optimiser.step()
        models.append(model)
    plain, watched = models
    assert [type(module) for module in plain] == [type(module) for module in watched]
    assert repr(plain) == repr(watched)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key])
    assert not watched[0]._forward_pre_hooks


# ------------------------------------------------------------------------------------------------ hooks


def heard(model, x):
    """What hooks of all kinds hear in one block, and the function that counts them."""
    count = []

    def listen(*_):
        count.append(1)

    handles = [
        model[0].register_forward_hook(listen),
        model[0].register_forward_hook(lambda *_: count.append(1), with_kwargs=True, always_call=True),
        model[0].register_forward_pre_hook(functools.partial(listen, 1)),
        model[0].register_full_backward_hook(listen),
        model[0].register_full_backward_pre_hook(listen),
        model[0].weight.register_hook(listen),
        model[0].weight.register_post_accumulate_grad_hook(listen),
        all_modules.register_module_forward_hook(listen),
        all_modules.register_module_full_backward_hook(listen),
    ]
    return count, handles


def test_hooks_of_the_user_are_silent_and_can_be_removed_afterwards():
    model, x = mlp(4, 5, 2), torch.randn(3, 4)
    count, handles = heard(model, x)
    try:
        before = tangent_sensitivity(mlp_like(model), x)
        assert not count
        assert torch.equal(tangent_sensitivity(model, x), before)
        with undisturbed(model):
            model(x).sum().backward()
        TangentSensitivityRegulariser(1.0).estimate(model, x)
        assert not count
        model(x).sum().backward()
        # three forward and two backward hooks of the layer, two of its weight, two on all four modules
        assert len(count) == 3 + 2 + 2 + 4 + 4
    finally:
        for handle in handles:
            handle.remove()
    count.clear()
    model(x).sum().backward()
    assert not count
    assert not all_modules._global_forward_hooks


def mlp_like(model):
    return nn.Sequential(*[copy.deepcopy(module) if not list(module.parameters()) else bare(module) for module in model])


def bare(linear):
    new = nn.Linear(linear.in_features, linear.out_features)
    new.load_state_dict(linear.state_dict())
    return new


def doubled(module, args, output):
    return 2 * output


class Doubled:
    def __call__(self, module, args, output):
        return 2 * output

    def method(self, module, args, output):
        if output is not None:
            return 2 * output
        return None


class Watched:
    def __call__(self, module, args, output):
        if output is None:
            return
        self.output = output


@pytest.mark.parametrize(
    ("hook", "computes"),
    [
        (doubled, True),
        (Doubled(), True),
        (Doubled().method, True),
        (functools.partial(functools.partial(doubled)), True),
        (print_nothing, False),
        (Watched(), False),
        (lambda module, args, output: 2 * output, False),  # nobody can tell; the documentation says so
        (nn.Identity(), False),
    ],
)
def test_hooks_that_return_something_are_part_of_the_network(hook, computes):
    linear, x = nn.Linear(4, 1), torch.randn(3, 4)
    linear.register_forward_hook(hook)
    expected = 4.0 * (4 if computes else 1)
    assert tangent_sensitivity(linear, x, method="parameter_space", num_probes=64).mean() == pytest.approx(expected, rel=0.3)


class EveryOther(prune.BasePruningMethod):
    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t, default_mask):
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


def qat():
    model = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Linear(4, 3))
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    return torch.ao.quantization.prepare_qat(model.train())


LIBRARIES = {
    "pruning": lambda: prune.l1_unstructured(nn.Linear(4, 3), "weight", 0.5),
    "pruning of one's own": lambda: EveryOther.apply(module := nn.Linear(4, 3), "weight") and module,
    "weight norm": lambda: nn.utils.weight_norm(nn.Linear(4, 3)),
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(4, 3)),
    "weight norm, parametrised": lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
    "spectral norm, parametrised": lambda: parametrizations.spectral_norm(nn.Linear(4, 3)),
    "quantisation": qat,
}


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.filterwarnings("ignore")
def test_hooks_of_libraries_run(name):
    model, expected, x = LIBRARIES[name](), LIBRARIES[name](), torch.randn(3, 4)
    model(x)
    expected.load_state_dict(model.state_dict())
    expected.eval()
    for parameter in (*model.parameters(), *expected.parameters()):
        parameter.data.mul_(3)  # what hooks compute from weights is stale now
    before = everything(model)
    with undisturbed(model):
        actual = model(x)
    assert everything(model) == before
    assert torch.equal(actual, expected(x))


# ------------------------------------------------------------------------------------------------ random states


class Loud(nn.Module):
    """Draws from every source of random numbers, of which some are its own."""

    def __init__(self):
        super().__init__()
        self.own = {"torch": torch.Generator().manual_seed(1), "numpy": np.random.default_rng(1), "python": random.Random(1)}

    def forward(self, x):
        own = self.own
        drawn = torch.rand(1) + np.random.rand() + random.random()
        return x + drawn + torch.rand(1, generator=own["torch"]) + own["numpy"].random() + own["python"].random()


def test_random_states_are_put_back():
    model, x = Loud(), torch.zeros(1, 2)
    for fails in (False, True):
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        expected = copy.deepcopy(model)(x)
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        try:
            with undisturbed(model):
                model(x)
                if fails:
                    raise ArithmeticError
        except ArithmeticError:
            pass
        assert torch.equal(copy.deepcopy(model)(x), expected)


def test_devices_are_seeded_where_there_is_one(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    for available in (False, True):
        monkeypatch.setattr(randomness, "has_cuda", lambda available=available: available)
        seed_devices(7)
    assert seeds == [7]


def test_the_regulariser_leaves_random_states_alone_when_the_network_fails():
    def fail(m, x):
        torch.rand(1), np.random.rand(), random.random()
        raise ArithmeticError("no output")

    term, model, x = TangentSensitivityRegulariser(1.0), Lambda(fail, linear=nn.Linear(4, 2)), torch.randn(3, 4)
    states = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
    with pytest.raises(ArithmeticError, match="no output"):
        term(model, x)
    assert states == (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate())
    assert term.calls == 0


def sampled(m, x):
    mean, deviation = m.linear(x).chunk(2, 1)
    return mean + 1e-3 * deviation.exp() * torch.randn_like(mean)


def counted(m, x):
    m.count += 1
    return m.linear(x) * m.count


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (mlp(4, 5, 2), False),
        (nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)), False),
        (Lambda(lambda m, x: F.dropout(m.linear(x), 0.5, training=True), linear=nn.Linear(4, 8)), True),
        (Lambda(sampled, linear=nn.Linear(4, 2)), True),
        (Lambda(lambda m, x: {"out": [m.linear(x), torch.rand(2)]}, linear=nn.Linear(4, 2)), True),
        (Lambda(lambda m, x: m.linear(x)[: torch.randint(1, 50, ())], linear=nn.Linear(4, 2)), True),
        (Loud(), True),
        (Lambda(counted, linear=nn.Linear(4, 2), count=torch.zeros(1)), False),
        (Lambda(lambda m, x: m.linear(x) / 0, linear=nn.Linear(4, 2)), False),
    ],
)
def test_networks_that_are_random_in_eval_mode(model, expected):
    x = torch.randn(64, 4)
    before, state = everything(model), torch.get_rng_state()
    assert is_random(model, x) == expected
    assert everything(model) == before
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------------------------------------ the rest


def test_no_policy_passes_over_a_disturbed_training(monkeypatch):
    monkeypatch.setattr(memory, "COPIED_BYTES", 0)
    module = BoringModule(Lambda(lambda m, x: (m.linear.weight.data.add_(1), m.linear(x))[1], linear=nn.Linear(4, 3)))
    with pytest.raises(DisturbedTrainingError, match=r"changed network\.linear\.weight, which cannot be put back; do not"):
        fit(make_monitor(on_failure="ignore"), module=module)


def test_what_is_no_network():
    for context in (undisturbed, evaluation):
        with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, but got int"), context(3):
            pass


def test_nothing_keeps_a_measured_network_alive():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    alive = weakref.ref(model)
    gc.disable()  # a cycle of references would keep it until the next collection
    try:
        with undisturbed(model):
            model(torch.ones(3, 2))
        del model
        assert alive() is None
    finally:
        gc.enable()

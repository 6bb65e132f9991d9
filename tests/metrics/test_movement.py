"""How far the sensitivity moves, against matrices, over processes, and through a fit that is resumed."""

import copy
import math

import pytest
import torch

from lightning_tansens.functional import tangent_matrix
from lightning_tansens.metrics import EmpiricalSensitivity, SensitivityMovement
from tests.boring import BoringData, fit, make_monitor, untimed
from tests.cases import Case, mlp
from tests.metrics.test_metrics import assert_equal, gathered


def networks(count=3):
    """A network at several moments of a training."""
    model, inputs = Case(lambda: mlp(4, 6, 5, 3), outputs=3).make(samples=12)
    generator, moments = torch.Generator().manual_seed(1), [model]
    for _ in range(count - 1):
        moments.append(copy.deepcopy(moments[-1]))
        with torch.no_grad():
            for parameter in moments[-1].parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return moments, inputs


MOMENTS, INPUTS = networks()


def run(measure, batch=5, inputs=INPUTS):
    """The values at each moment."""
    found = []
    for model in MOMENTS:
        measure.reset()
        for start in range(0, len(inputs), batch):
            places = range(start, min(start + batch, len(inputs)))
            measure.update(model, inputs[places], places)
        found.append(measure.values())
        measure.remember()
    return found


def test_against_matrices():
    found = run(SensitivityMovement(num_probes=400), batch=12)
    matrices = [tangent_matrix(model, INPUTS) for model in MOMENTS]
    assert found[0] == {}
    for t, name, before in [(1, "movement", 0), (2, "movement", 1), (2, "movement_from_start", 0)]:
        expected = (matrices[t] - matrices[before]).norm() / matrices[before].norm()
        assert float(found[t][name]) == pytest.approx(float(expected), rel=0.08)
    assert_equal(found[1]["movement"], found[1]["movement_from_start"])


@pytest.mark.parametrize("batch", [1, 12])
def test_batches_do_not_matter(batch):
    for row, other in zip(run(SensitivityMovement(), batch), run(SensitivityMovement()), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            assert_equal(row[name], other[name])


@pytest.mark.parametrize("split", [[5, 7], [0, 12], [3, 0, 9]])
def test_processes(split):
    whole = run(SensitivityMovement())
    measures = [SensitivityMovement() for _ in split]
    places = torch.arange(len(INPUTS)).split(split)
    for t, model in enumerate(MOMENTS):
        for measure, own in zip(measures, places, strict=True):
            measure.reset()
            if len(own):
                measure.update(model, INPUTS[own], own.tolist())
        # each process syncs with the others before any remembers
        states = [copy.deepcopy(measure) for measure in measures]
        for measure in measures:
            with measure.sync_context(dist_sync_fn=gathered(*states), distributed_available=lambda: True):
                values = measure.values()
                measure.remember()
            assert values.keys() == whole[t].keys()
            for name, expected in whole[t].items():
                assert_equal(values[name], expected)


def test_memory_goes_through_a_checkpoint():
    measure = SensitivityMovement()
    run(measure)
    other = SensitivityMovement()
    other.load_memory(measure.memory())
    other.update(MOMENTS[0], INPUTS)
    measure.reset()
    measure.update(MOMENTS[0], INPUTS)
    assert float(other.compute()) == float(measure.compute()) > 0
    assert other.values().keys() == {"movement", "movement_from_start"}
    assert float(other.values()["movement_from_start"]) == 0


def test_without_a_past():
    measure = SensitivityMovement()
    measure.update(MOMENTS[0], INPUTS)
    assert math.isnan(measure.compute())
    assert SensitivityMovement().values() == {}


def test_another_set_of_samples_starts_anew():
    measure = SensitivityMovement()
    run(measure)
    measure.reset()
    measure.update(MOMENTS[0], INPUTS[:3])
    assert measure.values() == {}
    measure.remember()
    assert len(measure.memory()["first"]) == 3


@pytest.mark.parametrize(("name", "value"), [("outputs", "all"), ("num_probes", 0)])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        SensitivityMovement(**{name: value})


def movements(monitor):
    return [{key: value for key, value in row.items() if "movement" in key} for row in untimed(monitor.history)]


def test_in_a_fit(tmp_path):
    def monitor():
        return make_monitor(measures=[SensitivityMovement(), EmpiricalSensitivity(quantiles=())], num_samples=6)

    whole = monitor()
    fit(whole, data=BoringData(shuffle=False), max_epochs=4)
    rows = movements(whole)
    names = {f"tansens/{name}/{s}" for name in ("movement", "movement_from_start") for s in ("train", "test")}
    assert [row.keys() for row in rows] == [names] * 4  # from the first epoch on, as it is taken before the first step
    assert rows[0]["tansens/movement/test"] == rows[0]["tansens/movement_from_start/test"] > 0
    assert rows[3]["tansens/movement/test"] < rows[3]["tansens/movement_from_start/test"]

    first, second = monitor(), monitor()
    trainer = fit(first, data=BoringData(shuffle=False), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(second, data=BoringData(shuffle=False), max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert movements(second) == rows

"""Which form of the first Jacobian is taken, and in which parts."""

import pytest
import torch

from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.tangent.closed_form import exact
from lightning_tansens.tangent.closed_form.chain import trace_chain
from lightning_tansens.tangent.closed_form.jacobian import cheapest_form
from tests.cases import Case, mlp


@pytest.mark.parametrize(
    ("columns", "units", "device", "form"),
    [
        (20, [50, 50, 50], "cpu", "rows"),
        (100, [50, 50], "cpu", "rows"),
        (100, [50, 50, 50, 50], "cpu", "cholesky"),
        (100, [50, 500, 500], "cpu", "cholesky"),
        (3072, [1500, 1500, 1500], "cuda", "gram"),
        (3072, [1500, 1500], "cuda", "gram"),
        (3072, [1500] * 9, "cuda", "cholesky"),
        (256, [128, 1024, 1024], "cuda", "cholesky"),  # wide Gram matrices behind a narrow layer
        (1000, [1500] * 9, "cuda", "rows"),
        (3072, [1500], "cuda", "rows"),  # nothing to go through
    ],
)
def test_the_cheapest_form_is_taken(columns, units, device, form):
    assert cheapest_form(columns, units, torch.device(device)) == form


def test_memory_that_runs_out_halves_the_parts(monkeypatch):
    model, inputs = Case(lambda: mlp(4, 6, 5, 3), (4,)).make(samples=7)
    expected, sizes, blocks = tangent_sensitivity(model, inputs, method="exact"), [], exact._blocks

    def limited(chain, *args):
        sizes.append(len(chain.output))
        if len(chain.output) > 2:
            raise torch.OutOfMemoryError("no memory")
        return blocks(chain, *args)

    monkeypatch.setattr(exact, "_blocks", limited)
    torch.testing.assert_close(tangent_sensitivity(model, inputs, method="exact"), expected)
    assert sizes == [7, 4, 2, 2, 2, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_on_a_gpu_hold_what_is_gathered(dtype, monkeypatch):
    # a narrow input before wide layers: the weights that are gathered for each sample take most
    monkeypatch.setattr(exact, "budget", lambda device: 80 * 2**30)
    model, inputs = mlp(20, 1024, 1024, 1).to("meta", dtype), torch.zeros(5, 20, device="meta", dtype=dtype)
    chain = trace_chain(model, inputs)
    entries = 20 * 1024 + 1024**2 + 1024**2
    assert exact._chunk_size(chain, 1) == exact.CHUNK_BYTES_ON_GPU // (inputs.element_size() * entries)
    monkeypatch.setattr(exact, "budget", lambda device: 2**20)
    assert exact._chunk_size(chain, 1) == 1

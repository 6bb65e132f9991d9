"""In which parts a batch is measured exactly."""

import pytest
import torch

from lightning_tansens.functional import tangent_sensitivity
from lightning_tansens.tangent.closed_form import exact
from lightning_tansens.tangent.closed_form.chain import trace_chain
from tests.cases import Case, mlp


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
    entries = 20 * 1024 + 1024**2 + 1024**2 // 4
    assert exact._chunk_size(chain, 1) == exact.CHUNK_BYTES_ON_GPU // (inputs.element_size() * entries)
    monkeypatch.setattr(exact, "budget", lambda device: 2**20)
    assert exact._chunk_size(chain, 1) == 1

"""Second derivatives by double backward, a coordinate at a time."""

import torch

from lightning_tansens.tangent.probes.all_directions import double_backwards


def test_samples_may_be_single_numbers():
    x, w = torch.randn(4, requires_grad=True), torch.randn(3, requires_grad=True)
    (row,) = double_backwards(torch.einsum("n,c->nc", x.square(), w).sum(), x, [w])
    assert torch.allclose(row[0], (2 * x).sum().expand(3))

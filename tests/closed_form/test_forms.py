"""Which form of the first Jacobian is taken."""

import pytest
import torch

from lightning_tansens.tangent.closed_form.jacobian import cheapest_form


@pytest.mark.parametrize(
    ("columns", "rows", "maps", "device", "form"),
    [
        (20, 50, 3, "cpu", "rows"),
        (100, 50, 1, "cpu", "gram"),
        (100, 50, 3, "cpu", "cholesky"),
        (3072, 1500, 2, "cuda", "gram"),
        (3072, 1500, 8, "cuda", "cholesky"),
        (1000, 1500, 8, "cuda", "rows"),
    ],
)
def test_the_cheapest_form_is_taken(columns, rows, maps, device, form):
    taken, cost = cheapest_form(columns, rows, maps, torch.device(device))
    assert taken == form
    assert cost <= columns


def test_few_columns_cost_what_they_are():
    assert cheapest_form(20, 50, 3, torch.device("cpu")) == ("rows", 20)

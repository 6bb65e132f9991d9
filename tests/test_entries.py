"""Which entries of the inputs the estimators see."""

import pytest
import torch

from lightning_tansens.monitor.data.reading import MAX_ENTRIES, channels_of, some_entries


def test_entries_are_the_same_of_every_batch_and_a_copy():
    images = torch.rand(4, 3, 32, 32)
    whole, parts = some_entries(images), torch.cat([some_entries(images[:1]), some_entries(images[1:])])
    assert whole.shape == (4, MAX_ENTRIES)
    assert (whole == parts).all()
    assert torch.isin(whole[0], images[0]).all()
    rows = torch.rand(4, 7)
    found = some_entries(rows)
    rows.zero_()
    assert found.min() > 0
    assert some_entries(torch.rand(2, 3, 32, 32).bfloat16()).dtype == torch.float32


def test_the_channels_of_entries():
    images = torch.arange(3.0)[None, :, None, None].expand(2, 3, 32, 32)
    assert (some_entries(images) == torch.from_numpy(channels_of((3, 32, 32)))).all()
    assert channels_of((7,)) is channels_of(()) is channels_of((3, 0, 5)) is None


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": torch.rand(2, 3)},
        torch.zeros(2, 3).long(),
        torch.rand(2, 3, 4),
        torch.rand(2, 0),
        torch.rand(2, 3).to_sparse(),
        torch.nested.nested_tensor([torch.rand(1, 4, 4), torch.rand(1, 5, 5)]),
    ],
    ids=["dict", "tokens", "sequences", "empty", "sparse", "nested"],
)
def test_other_inputs_have_none(inputs):
    assert some_entries(inputs) is None

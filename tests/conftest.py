"""Settings of all tests."""

import pytest

# no torch up here: the process that hands the tests out to the others needs none


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """The networks are tiny; several threads only wait for one another."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def image_folder(tmp_path):
    """A few random images of ten classes in the layout of ImageFolder, the same in every test."""
    import torch
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for part, count in {"train": 8, "test": 4}.items():
        for label in range(10):
            folder = tmp_path / "images" / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8, generator=generator)
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return tmp_path / "images"

"""Settings of all tests."""

import pytest
import torch
from PIL import Image

# the networks are tiny; several threads only wait for one another
torch.set_num_threads(1)


@pytest.fixture
def image_folder(tmp_path):
    """A few random images of ten classes in the layout of ImageFolder, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    for part, count in {"train": 8, "test": 4}.items():
        for label in range(10):
            folder = tmp_path / "images" / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8, generator=generator)
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return tmp_path / "images"

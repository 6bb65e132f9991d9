"""Settings of all tests."""

import torch

# the networks are tiny; several threads only wait for one another
torch.set_num_threads(1)

"""The data of a measurement: what the Trainer has, copies of it, the fixed subsets, and how their batches are read."""

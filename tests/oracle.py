"""The dense reference: S as a matrix, entry by entry, from plain nested autograd."""

import copy

import torch


def tangent_matrices(model, inputs, weighting=None):
    """S_u(x_n) = ∂²(u·f)/∂θ∂x of any twice differentiable or piecewise-linear network.

    Args:
        model: The network; a copy in eval mode is used.
        inputs: Shape (N, ...).
        weighting: u, shape (C,), or None for ones.

    Returns:
        For each trainable parameter, by name, a tensor of shape (N, P_i, D).

    """
    model = copy.deepcopy(model).eval()
    names, parameters = zip(*[(name, p) for name, p in model.named_parameters() if p.requires_grad])
    blocks = {name: [] for name in names}
    for sample in inputs.detach():
        x = sample.unsqueeze(0).clone().requires_grad_()
        output = model(x.clone()).reshape(-1)
        scalar = output.sum() if weighting is None else output @ weighting.to(output)
        gradients = torch.autograd.grad(scalar, parameters, create_graph=True, allow_unused=True)
        for name, parameter, gradient in zip(names, parameters, gradients):
            rows = inputs.new_zeros(parameter.numel(), x.numel())
            if gradient is not None and gradient.requires_grad:
                g = gradient.reshape(-1)
                for j in range(len(g)):
                    (row,) = torch.autograd.grad(g[j], x, retain_graph=True, allow_unused=True)
                    if row is not None:
                        rows[j] = row.reshape(-1)
            blocks[name].append(rows)
    return {name: torch.stack(rows) for name, rows in blocks.items()}


def squared_norms(model, inputs, weighting=None):
    """‖S_u(x_n)‖_F², shape (N,)."""
    return sum(block.square().sum((1, 2)) for block in tangent_matrices(model, inputs, weighting).values())


def squared_norms_of_each(model, inputs, outputs):
    """‖S_{e_c}(x_n)‖_F² for every output c, shape (N, C)."""
    weightings = torch.eye(outputs, dtype=inputs.dtype)
    return torch.stack([squared_norms(model, inputs, u) for u in weightings], 1)


def dense_blocks(model, function, x, weighting=None):
    """S_u(x_n) of a function of x and of a sample's number, by one double backward for each input coordinate.

    Args:
        model: The network, whose parameters count; it is left as it is.
        function: Maps x, shape (1, ...), and n to the outputs of sample n.
        x: Shape (N, ...).
        weighting: u, shape (C,), or None for ones.

    Returns:
        For each trainable parameter, by name, a tensor of shape (N, P_i, D).

    """
    names, parameters = zip(*[(name, p) for name, p in model.named_parameters() if p.requires_grad])
    blocks = {name: [] for name in names}
    for n in range(len(x)):
        one = x[n : n + 1].detach().clone().requires_grad_()
        output = function(one.clone(), n).reshape(-1)
        scalar = output.sum() if weighting is None else output @ weighting.to(output)
        (slope,) = torch.autograd.grad(scalar, one, create_graph=True)
        columns = [
            torch.autograd.grad(s, parameters, retain_graph=True, allow_unused=True)
            if s.requires_grad
            else [None] * len(names)
            for s in slope.reshape(-1)
        ]
        for i, (name, parameter) in enumerate(zip(names, parameters)):
            column = [torch.zeros_like(parameter) if c[i] is None else c[i] for c in columns]
            blocks[name].append(torch.stack(column, -1).reshape(-1, x[0].numel()))
    return {name: torch.stack(rows) for name, rows in blocks.items()}

"""The torch functions that a piecewise-linear chain may be made of, by what they do to a unit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_T = Tensor

#: Piecewise-linear in each unit; the slope depends on the sample.
ACTIVATIONS = {
    F.relu, F.relu_, torch.relu, torch.relu_, _T.relu, _T.relu_, F.leaky_relu, F.leaky_relu_, F.rrelu, F.rrelu_,
    F.hardtanh, F.hardtanh_, F.relu6, F.threshold, torch.threshold_, F.hardshrink, F.softshrink, torch.clamp,
    torch.clamp_min, _T.clamp, _T.clamp_, _T.clamp_min, _T.clamp_min_, torch.abs, _T.abs,
}  # fmt: skip

#: Affine in each unit; the slope is the same for every sample.
AFFINE = {
    torch.mul, _T.mul, _T.mul_, _T.__mul__, _T.__rmul__, _T.__imul__, torch.div, _T.div, _T.div_, _T.__truediv__,
    _T.__itruediv__, torch.neg, _T.neg, _T.__neg__, torch.rsub, _T.__rsub__,
}  # fmt: skip

#: Adding a constant or a trainable bias: the Jacobian is unchanged, and ∂²f/∂bias∂x = 0.
SHIFTS = {
    torch.add, _T.add, _T.add_, _T.__add__, _T.__radd__, _T.__iadd__, torch.sub, _T.sub, _T.sub_, _T.__sub__,
    _T.__isub__,
}  # fmt: skip

#: Leave every unit as it is and in its place; only the shape or the precision may change.
RESHAPES = {
    torch.flatten, _T.flatten, _T.view, _T.reshape, torch.reshape, torch.squeeze, _T.squeeze, torch.unsqueeze,
    _T.unsqueeze, _T.unflatten, torch.unflatten, _T.contiguous, _T.clone, torch.clone, _T.to, _T.float, _T.double,
    _T.half, _T.bfloat16, _T.type_as,
}  # fmt: skip

#: Do nothing in eval mode.
DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}

#: Piecewise-linear with a trainable slope.
PRELUS = {F.prelu, torch.prelu, _T.prelu}

"""How colours look to readers without green cones."""

import numpy as np
from matplotlib.colors import to_rgb


def seen_by_deuteranopes(colour):
    """A colour in CIELAB as readers without green cones see it (Machado et al. 2009)."""
    simulated = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = (simulated @ linear).clip(0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-9))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(one, other):
    """The distance of two colours for them; from about 20 on they are told apart at a glance."""
    return float(np.linalg.norm(seen_by_deuteranopes(one) - seen_by_deuteranopes(other)))

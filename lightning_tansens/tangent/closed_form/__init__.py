"""The exact tangent sensitivity of piecewise-linear chains: from the trace of a network to Jacobians and block norms."""

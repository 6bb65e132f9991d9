"""Tangent sensitivity of any network: what the network is, its operators, closed forms and probes."""

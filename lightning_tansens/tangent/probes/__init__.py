"""Mixed derivatives of any network by directions: random probes, known derivatives of layers, rules for their norms."""

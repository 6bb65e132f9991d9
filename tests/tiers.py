"""Which cases of a long list the default tests take; the thorough tier takes the others."""

import pytest


def cases(named, *default):
    """Cases by name for ``parametrize``: the named ones by default, the others in the thorough tier alone.

    A case that is a tuple gives several arguments.
    """
    assert set(default) <= set(named), f"expected names of cases, but got {sorted(set(default) - set(named))}"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), id=name, marks=() if name in default else pytest.mark.thorough
        )
        for name, case in named.items()
    ]

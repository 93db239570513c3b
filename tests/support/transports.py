"""The transports of Check that tests run on."""

import pytest


def installed(name: str) -> str:
    """Return a transport's name; skip the test where its package is not installed."""
    if name != "grpcio":
        pytest.importorskip(name)
    return name

"""What the tests of log-ins share: the stand-in of the demo's tests, and a real Valkey."""

from collections.abc import Iterator

import pytest

from tests.demo.conftest import keys, world
from tests.support.valkey import ValkeyServer, valkey

__all__ = ["keys", "world"]


@pytest.fixture(scope="session")
def store() -> Iterator[ValkeyServer]:
    """A server that all tests share which leave it whole, each with a deployment of its own."""
    with valkey() as server:
        yield server

"""What the ledger's tests share: real servers, and the contract's fixture."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.ledger.queries import Contract
from tests.support.valkey import ValkeyServer, binaries, valkey


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for `server_name` on every server, and say aloud which is missing."""
    if not {"kind", "server_name"}.intersection(metafunc.fixturenames):
        return
    servers = [
        pytest.param(
            name,
            marks=[] if path else pytest.mark.skip(reason=f"{name} is NOT TESTED: no such server"),
        )
        for name, path in binaries().items()
    ]
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", ["in_memory", *servers])
    elif "server_name" in metafunc.fixturenames:
        metafunc.parametrize("server_name", servers)


@pytest.fixture(scope="session")
def shared() -> Iterator[Callable[[str], ValkeyServer]]:
    """Return the server of that name which all tests that leave it whole share."""
    with ExitStack() as stack:

        @cache
        def start(name: str) -> ValkeyServer:
            return stack.enter_context(valkey(name))

        yield start


@pytest.fixture
def server(server_name: str, shared: Callable[[str], ValkeyServer]) -> ValkeyServer:
    """Return a server for tests that leave it whole."""
    return shared(server_name)


@pytest.fixture
def fragile(server_name: str) -> Iterator[ValkeyServer]:
    """Run a server for one test, which may break it."""
    with valkey(server_name) as server:
        yield server


@pytest.fixture
def deployment() -> str:
    """Name a deployment that no other test shares."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def contract(kind: str, shared: Callable[[str], ValkeyServer], deployment: str) -> Contract:
    """Return one kind of ledger, empty."""
    return Contract(None if kind == "in_memory" else shared(kind), deployment)

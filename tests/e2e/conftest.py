"""One whole for all end-to-end tests: Envoy, Valkey, the service, an issuer, two servers."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.core.exchanges import SERVER_REQUESTS
from authz_demo.reporter import Reporter
from authz_demo.scenario import Scenario
from tests.e2e.authelia import issuer_of_the_environment
from tests.support.demo_environment import RunningEnvironment, running_environment
from tests.support.door import Door, running_door, words


@contextmanager
def _folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="authz-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a folder whose path is short enough for sockets."""
    with _folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def short_module() -> Iterator[Path]:
    """Return the same for all tests of a file."""
    with _folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def whole() -> Iterator[RunningEnvironment]:
    """Return the running whole; with AUTHELIA, a real Authelia is its issuer."""
    issuer = issuer_of_the_environment()
    with _folder() as folder, running_environment(folder / "w", issuer, unhurried) as running:
        yield running


@pytest.fixture(scope="session")
def direct_clients(whole: RunningEnvironment) -> None:
    """Skip where MCP clients cannot log in at the issuer itself.

    Authelia's master, as 4.39.21 and 4.39.22, answers `invalid_target` to the `resource` that they
    have to send (tests/fixtures/authelia/audience.json). The front door asks by `audience`.
    """

    async def log_in() -> None:
        async with whole.network.browser() as http:
            scenario = Scenario(whole.environment, Reporter(lambda _: None), whole.network, http)
            await scenario.call("notes", "demo", whole.environment.who.john, "whoami")

    try:
        asyncio.run(log_in())
    except Exception as error:
        if issuer_of_the_environment() is None or "invalid_target" not in words(error):
            raise
        pytest.skip("this Authelia refuses `resource`: no client can log in at it directly")


@pytest.fixture(scope="session")
def door() -> Iterator[Door]:
    """Return the running whole with its front door; with AUTHELIA, a real one is behind it.

    With ONE_NAME it is under a path of the gateway's name.
    """
    issuer, one_name = issuer_of_the_environment(), "ONE_NAME" in os.environ
    with _folder() as folder, running_door(folder, issuer, one_name=one_name) as running:
        yield running


def unhurried(text: str) -> str:
    """Raise the limits of a person: many tests are one person. The flood's own limit stays."""
    raised = text.replace("rate: 60/minute", "rate: 6000/minute")
    raised = raised.replace("gateway:\n", f"gateway:\n  streams_per_user: {SERVER_REQUESTS}\n")
    machines = "    machines: [nightly-backup]\n"
    assert raised.count(machines) == 1
    limits = "    limits: [{per: [client, user], rate: 6000/minute}]\n"
    return raised.replace(machines, machines + limits)

"""The official conformance suite against a server bare and through Envoy and authz."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients.clients import NODE22
from tests.clients.environment import Town, running_town
from tests.clients.kit import (
    EVERYTHING,
    SUITE,
    authorization,
    everything_server,
    suite,
    token,
    with_token,
)

pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in (EVERYTHING, SUITE, NODE22))
    and os.environ.get("AUTHZ_CLIENTS") != "required",
    reason="NOT TESTED: the conformance suite: `make matrix` installs it, with go and npm",
)
# The server of the Go SDK keeps sessions or does not; each version wants one of the two.
VERSIONS = {
    "2025-03-26": "sessions",
    "2025-06-18": "sessions",
    "2025-11-25": "sessions",
    "2026-07-28": "stateless",
}
PORTS: dict[str, int] = {}


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """Return the whole with both servers behind it."""
    folder = Path(tempfile.mkdtemp(prefix="authz-"))
    with ExitStack() as running:
        for name in ("sessions", "stateless"):
            server = everything_server(stateless=name == "stateless")
            PORTS[name] = running.enter_context(server)
        yield running.enter_context(running_town(folder, ["conformance"], PORTS))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("version", list(VERSIONS))
def test_what_passes_bare_passes_through_the_gateway(
    town: Town, version: str, tmp_path: Path
) -> None:
    """No check of the suite passes at the server itself and fails through Envoy and authz."""
    server = VERSIONS[version]
    asked = ("server", "--spec-version", version, "--suite", "all", "--url")

    async def both() -> tuple[dict[str, str], dict[str, str]]:
        network = town.network(3)
        person = town.residents.person("conformance")
        bare = await suite(*asked, f"http://127.0.0.1:{PORTS[server]}/mcp", folder=tmp_path / "1")
        bearer = await token(network, town.url(server), person)
        async with with_token(network, town.url(server), bearer) as url:
            through = await suite(*asked, url, folder=tmp_path / "2")
        return bare, through

    bare, through = asyncio.run(both())

    passed = {name for name, status in bare.items() if status == "SUCCESS"}
    assert passed
    lost = {name: through.get(name, "absent") for name in passed if through.get(name) != "SUCCESS"}
    assert lost == {}, lost


def test_the_front_door_is_an_authorization_server(town: Town, tmp_path: Path) -> None:
    """Its metadata and its code grant pass the suite's scenarios without a failure."""
    found = asyncio.run(
        authorization(
            town.network(4),
            f"https://localhost:{town.port}",
            town.url("sessions"),
            town.residents.person("conformance"),
            tmp_path / "1",
        )
    )

    assert any("authorization-code-grant" in name for name in found), found
    assert any("metadata" in name for name in found), found
    assert {name: status for name, status in found.items() if status == "FAILURE"} == {}

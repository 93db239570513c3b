"""One name for everything in containers: the portal is under a path of the gateway's name."""

import asyncio
import json
from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from tests.compose import caller
from tests.compose.deployment import ComposeDeployment, plan
from tests.compose.engine import Engine

_SERVICES: Final = ("envoy", "authz", "authz-pages", "authelia", "redis", "notes")


@pytest.fixture(scope="module")
def one_name(
    docker: Engine, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ComposeDeployment]:
    """What `authz init --one-name` makes, running."""
    folder = tmp_path_factory.mktemp("one-name") / "deploy"
    made = plan(docker, folder, one_name=True)
    made.write()
    try:
        made.compose("up", "-d", "envoy", timeout=400)
        made.until_healthy(*_SERVICES)
        yield made
    finally:
        if request.session.testsfailed:
            (folder.parent / "logs").write_text(made.compose("logs", check=False))
        made.compose("down", "-v", "-t", "0")


def test_the_official_client_logs_in_at_the_portal_under_the_path(
    one_name: ComposeDeployment,
) -> None:
    """Knowing the URL alone, with password and TOTP; the server gets neither token nor cookie, and
    the tokens are refreshed.
    """
    told, storage = asyncio.run(caller.log_in_to_stay(one_name, "notes", "2026-07-28"))
    assert told["x-authz-subject"]
    assert not told["authorization_arrived"]
    assert not told["cookie_arrived"]
    answer = asyncio.run(caller.refresh(one_name, storage))
    assert answer.status_code == httpx.codes.OK, answer.text


def test_the_portal_is_under_its_path_alone(one_name: ComposeDeployment) -> None:
    """The gateway's own document names the gateway; the portal's endpoints for programs are closed,
    and nothing of it is at the root.
    """

    async def asked(path: str, method: str = "GET") -> httpx.Response:
        async with one_name.network.browser() as http:
            return await http.request(method, f"{one_name.gateway}{path}")

    document = asyncio.run(asked("/.well-known/oauth-authorization-server"))
    assert document.status_code == httpx.codes.OK
    assert json.loads(document.text)["issuer"] == one_name.gateway
    closed = asyncio.run(asked("/auth/api/oidc/token", "POST"))
    assert closed.status_code in {403, 404}
    assert asyncio.run(asked("/api/health")).status_code == httpx.codes.NOT_FOUND

"""The whole journey through Envoy in containers, by the official client, with password and TOTP."""

import asyncio

import httpx
import pytest

from tests.compose import caller
from tests.compose.deployment import ComposeDeployment


@pytest.mark.parametrize(("server", "mode"), [("notes", "2026-07-28"), ("files", "legacy")])
def test_the_official_client_logs_in_and_calls_a_tool(
    deployment: ComposeDeployment, server: str, mode: str
) -> None:
    """Knowing the URL alone: it registers, the person consents and logs in with password and TOTP;
    in both eras; the MCP server learns who calls, and gets no token.
    """
    told, _ = asyncio.run(caller.log_in(deployment, server, mode))

    assert told["x-authz-subject"]
    assert not told["authorization_arrived"]
    assert not told["cookie_arrived"]
    assert told["host"] == f"{server}:8000"


def test_without_a_token_there_is_a_challenge(deployment: ComposeDeployment) -> None:
    """Who has none is told where to log in, over TLS 1.3 and with the folder's own certificate."""
    answer = asyncio.run(caller.once(deployment, "notes", None))

    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert f"{deployment.gateway}/.well-known/" in answer.headers["www-authenticate"]
    tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
    assert tls.version() == "TLSv1.3"


def test_a_token_is_of_use_at_its_own_server_only(deployment: ComposeDeployment) -> None:
    """The token of one server is refused by the other."""
    _, token = asyncio.run(caller.log_in(deployment, "notes", "2026-07-28"))

    assert asyncio.run(caller.once(deployment, "notes", token)).status_code == httpx.codes.OK
    answer = asyncio.run(caller.once(deployment, "files", token))
    assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_the_address_of_a_caller_is_its_own(deployment: ComposeDeployment) -> None:
    """What a caller claims to be in X-Forwarded-For is not what the decision log has."""
    asyncio.run(_claiming(deployment, "203.0.113.77"))

    log = deployment.engine.run("logs", "--tail=20", deployment.container("authz"))
    assert '"reason":"token_missing"' in log
    assert "203.0.113.77" not in log


async def _claiming(deployment: ComposeDeployment, address: str) -> None:
    async with deployment.network.browser() as http:
        await http.post(f"{deployment.gateway}/notes", headers={"x-forwarded-for": address})

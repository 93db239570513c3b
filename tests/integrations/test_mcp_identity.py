"""The middleware for MCP servers: the official SDK binds its states and sessions to the caller."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import httpx
import pytest
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import Elicit, MCPServer, Resolve
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel

from authz.integrations.mcp_identity import Caller, GatewayIdentity, IdentityError, Verify

META = "io.modelcontextprotocol"
JOHN = {
    "x-authz-issuer": "https://auth.example.com",
    "x-authz-subject": "john",
    "x-authz-client": "claude",
    "x-authz-scopes": "mcp:notes",
    "x-authz-groups": "a%2Cb,staff",
    "x-authz-server": "notes",
}
OTHERS = [
    {"x-authz-subject": "bob"},
    {"x-authz-client": "cursor"},
    {"x-authz-issuer": "https://other.example.com"},
    {"x-authz-subject": None},
]


class Sure(BaseModel):
    really: bool


def sdk_server() -> MCPServer:
    server: MCPServer = MCPServer("notes", version="1", log_level="CRITICAL")

    def confirmed() -> Elicit[Sure]:
        return Elicit("Really?", Sure)

    @server.tool()
    def read_diary(sure: Annotated[Sure, Resolve(confirmed)]) -> str:
        return f"{sure.really}"

    @server.tool()
    def whoami() -> dict[str, Any]:
        token = get_access_token()
        return {} if token is None else token.model_dump()

    return server


Post = Callable[..., Awaitable[httpx.Response]]


def run(
    law: Callable[[Post], Awaitable[None]], verify: Verify | None = None, **options: Any
) -> None:
    """Play a law before the SDK's server behind the middleware."""

    async def go() -> None:
        server = sdk_server()
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        app = server.streamable_http_app(transport_security=security)
        transport = httpx.ASGITransport(GatewayIdentity(app, verify, **options))
        async with (
            server.session_manager.run(),
            httpx.AsyncClient(transport=transport, base_url="http://notes") as http,
        ):

            async def post(headers: dict[str, str], body: dict[str, Any], **more: str) -> Any:
                accept = {"accept": "application/json, text/event-stream"}
                return await http.post("/mcp", json=body, headers=headers | accept | more)

            await law(post)

    asyncio.run(go())


def modern(tool: str, **params: Any) -> tuple[dict[str, Any], dict[str, str]]:
    meta = {
        f"{META}/protocolVersion": "2026-07-28",
        f"{META}/clientCapabilities": {"elicitation": {"form": {}}},
        f"{META}/clientInfo": {"name": "t", "version": "1"},
    }
    sent = {"name": tool, "arguments": {}, "_meta": meta} | params
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": sent}
    mirrors = {
        "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool,
    }  # fmt: skip
    return body, mirrors


def said(response: httpx.Response) -> dict[str, Any]:
    text = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        text = next(line[6:] for line in text.splitlines() if line.startswith("data: {"))
    found: dict[str, Any] = json.loads(text)
    return found


def going_on(asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    result = asked["result"]
    (name,) = result["inputRequests"]
    answer = {"action": "accept", "content": {"really": True}}
    return modern("read_diary", inputResponses={name: answer}, requestState=result["requestState"])


def changed(**changes: Any) -> dict[str, str]:
    return {name: value for name, value in (JOHN | changes).items() if value is not None}


@pytest.mark.attack("state-of-another")
@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_state_of_another_is_refused_by_the_server(other: dict[str, Any]) -> None:
    """The SDK seals its `requestState` for the caller that the gateway names."""

    async def law(post: Post) -> None:
        body, mirrors = modern("read_diary")
        asked = said(await post(JOHN, body, **mirrors))
        body, mirrors = going_on(asked)

        stolen = said(await post(changed(**other), body, **mirrors))
        assert "error" in stolen, stolen
        mine = said(await post(JOHN, body, **mirrors))
        assert mine["result"]["content"][0]["text"] == "True"

    run(law)


@pytest.mark.attack("session-of-another")
@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_session_of_another_is_refused_by_the_server(other: dict[str, Any]) -> None:
    """The SDK's own binding of sessions is on again, behind the gateway's."""

    async def law(post: Post) -> None:
        params = {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }  # fmt: skip
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        begun = await post(JOHN, hello)
        session = {
            "mcp-session-id": begun.headers["mcp-session-id"],
            "mcp-protocol-version": "2025-11-25",
        }
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await post(JOHN, told, **session)
        tools = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}

        assert (await post(changed(**other), tools, **session)).status_code in {403, 404}
        assert (await post(JOHN, tools, **session)).status_code == 200

    run(law)


def test_the_server_sees_its_caller() -> None:
    """What the gateway says is what `get_access_token` tells, decoded."""

    async def law(post: Post) -> None:
        body, mirrors = modern("whoami")
        sent = changed(**{"x-authz-subject": "j%C3%B6hn%20x"})
        seen = said(await post(sent, body, **mirrors))["result"]["structuredContent"]

        assert (seen["subject"], seen["client_id"], seen["scopes"]) == (
            "jöhn x", "claude", ["mcp:notes"],
        )  # fmt: skip
        assert seen["claims"] == {"iss": JOHN["x-authz-issuer"], "groups": ["a,b", "staff"]}
        assert seen["token"] == ""

    run(law)


@pytest.mark.attack("spoofed-identity")
@pytest.mark.parametrize(
    "missing",
    [
        dict.fromkeys(JOHN),
        {"x-authz-issuer": None},
        {"x-authz-client": None},
        {"x-authz-client": ""},
        {"x-authz-subject": "%ff"},
    ],
    ids=str,
)
def test_half_an_identity_is_none(missing: dict[str, Any]) -> None:
    """Without who knows the caller, and with what client, nobody is let in; nor with odd words."""

    async def law(post: Post) -> None:
        body, mirrors = modern("whoami")
        assert (await post(changed(**missing), body, **mirrors)).status_code == 403

    run(law)


def test_who_need_not_come_by_the_gateway_is_nobody() -> None:
    """Only where the server says so, and only without a word of identity."""

    async def law(post: Post) -> None:
        body, mirrors = modern("whoami")
        seen = said(await post({}, body, **mirrors))["result"]["structuredContent"]
        assert seen == {}
        half = await post({"x-authz-subject": "john"}, body, **mirrors)
        assert half.status_code == 403

    run(law, required=False)


@pytest.mark.attack("spoofed-identity")
def test_a_header_that_came_twice_is_no_identity() -> None:
    """The gateway sends each once."""

    async def go() -> list[int]:
        statuses = list[int]()

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        async def app(*_: Any) -> None:
            raise AssertionError("nobody is let in")

        headers = [(name.encode(), value.encode()) for name, value in JOHN.items()]
        scope = {"type": "http", "headers": [*headers, (b"X-Authz-Subject", b"bob")]}
        await GatewayIdentity(app)(scope, None, send)
        return statuses

    assert asyncio.run(go())[0] == 403


@pytest.mark.attack("spoofed-identity")
def test_where_signatures_are_checked_headers_count_for_nothing() -> None:
    """Whoever reaches the server past the gateway can write headers, not signatures."""

    async def verify(assertion: str) -> Caller:
        if assertion != "good":
            raise IdentityError("test")
        return Caller("https://auth.example.com", "ada", "claude")

    async def law(post: Post) -> None:
        body, mirrors = modern("whoami")
        assert (await post(JOHN, body, **mirrors)).status_code == 403
        forged = JOHN | {"x-authz-identity": "bad"}
        assert (await post(forged, body, **mirrors)).status_code == 403
        good = JOHN | {"x-authz-identity": "good"}
        seen = said(await post(good, body, **mirrors))["result"]["structuredContent"]
        assert seen["subject"] == "ada"

    run(law, verify)

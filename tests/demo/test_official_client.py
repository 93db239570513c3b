"""The official client logs in at the stand-in, over TLS 1.3, before there is any gateway.

A small edge takes the gateway's place: it ends TLS, adds the forwarded headers for the issuer, and
asks for a token in front of the sample servers, with the challenge and document of RFC 9728.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthToken
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from authz.setup.certificates import write_certificates
from authz_demo.client import (
    Httpx2LoopbackTransport,
    LoginHandler,
    MemoryTokenStorage,
    connect,
    provider,
)
from authz_demo.issuer import StandInIssuer, create_app
from authz_demo.issuer.keys import SigningKeys
from authz_demo.login_drivers import LoginFailedError
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import BrowserUser
from authz_demo.samples import PATH, Sample, app
from authz_demo.serving import TlsFiles, serve
from tests.demo.kit import ISSUER, SECRET, config, query

CALLBACK = "http://127.0.0.1:43210/callback"
GATE = "https://mcp.example.test"
JOHN = BrowserUser("john", "password", SECRET)


@dataclass(slots=True)
class Guard:
    """Asks for an active token for this server, as the gateway will."""

    server: ASGIApp
    issuer: StandInIssuer
    resource: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.server(scope, receive, send)
            return
        token = Headers(scope=scope).get("authorization", "").removeprefix("Bearer ")
        found = self.issuer.memory.tokens.get(token)
        if found is None or not found.active(self.issuer.now()):
            await self.challenge()(scope, receive, send)
        elif self.resource not in found.audience:
            await self.challenge('error="invalid_token", ')(scope, receive, send)
        else:
            await self.server({**scope, "path": PATH}, receive, send)

    def challenge(self, error: str = "") -> Response:
        document = self.resource.replace(GATE, f"{GATE}/.well-known/oauth-protected-resource")
        parameters = f'{error}resource_metadata="{document}", scope="mcp:tools"'
        return Response(status_code=401, headers={"www-authenticate": f"Bearer {parameters}"})

    def document(self) -> Response:
        return JSONResponse({"resource": self.resource, "authorization_servers": [ISSUER]})


@dataclass(slots=True)
class Edge:
    """Routes by name and path, and adds the forwarded headers."""

    issuer: ASGIApp
    guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.guard(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        host = headers["host"]
        headers["x-forwarded-proto"], headers["x-forwarded-host"] = "https", host
        if host == "auth.example.test":
            await self.issuer(scope, receive, send)
        elif scope["path"].startswith("/.well-known/oauth-protected-resource/"):
            await self.guard.document()(scope, receive, send)
        elif scope["path"] == self.guard.resource.removeprefix(GATE):
            await self.guard(scope, receive, send)
        else:
            await Response(status_code=404)(scope, receive, send)


@dataclass(slots=True)
class Stage:
    """Everything that a client needs to know."""

    network: LoopbackNetwork
    issuer: StandInIssuer
    url: str


@asynccontextmanager
async def stage(folder: Path, keys: SigningKeys, name: Sample) -> AsyncIterator[Stage]:
    names = ("mcp.example.test", "auth.example.test")
    paths = write_certificates(folder, names)
    issuer = StandInIssuer(config(time.time), keys)
    edge = Edge(create_app(issuer), Guard(app(name), issuer, f"{GATE}/{name}"))
    async with serve(edge, tls=TlsFiles(paths.certificate, paths.key)) as port:
        network = LoopbackNetwork(dict.fromkeys(names, port), paths.authority)
        yield Stage(network, issuer, f"{GATE}/{name}")


@pytest.mark.parametrize(
    ("name", "mode", "client_id"),
    [
        pytest.param("notes", "auto", "mcp-2fa", id="modern, JWT"),
        pytest.param("notes", "2026-07-28", "mcp-opaque", id="modern, opaque"),
        pytest.param("files", "auto", "mcp-2fa", id="fallen back"),
        pytest.param("files", "legacy", "mcp-es256", id="legacy, ES256"),
    ],
)
def test_the_official_client_logs_in_and_calls_a_tool(
    tmp_path: Path, keys: SigningKeys, name: Sample, mode: str, client_id: str
) -> None:
    """From a 401 to a tool's answer: discovery, log-in with a code, consent, token, call."""
    answers: list[tuple[int, str]] = []

    async def seen(response: httpx2.Response) -> None:
        answers.append((response.status_code, response.request.url.path))

    async def walk() -> tuple[Any, LoginHandler]:
        async with stage(tmp_path, keys, name) as it, it.network.browser() as browser:
            login = LoginHandler(JOHN, browser)
            auth = provider(it.url, client_id, CALLBACK, login)
            async with connect(it.network, it.url, auth, mode, seen=seen) as client:
                result = await client.call_tool("whoami", {})
            return result.structured_content, login

    content, login = asyncio.run(walk())

    assert content["authorization_arrived"]  # nobody takes it away here; the gateway will
    assert answers[:4] == [
        (401, f"/{name}"),
        (200, f"/.well-known/oauth-protected-resource/{name}"),
        (200, "/.well-known/oauth-authorization-server"),
        (200, "/api/oidc/token"),
    ]
    [opened] = login.opened
    asked = query(opened)
    assert asked["resource"] == [f"{GATE}/{name}"]
    assert asked["scope"] == ["mcp:tools offline_access"]
    assert asked["prompt"] == ["consent"]


def test_the_official_client_refreshes_without_a_person(tmp_path: Path, keys: SigningKeys) -> None:
    """With a refresh token in its storage and no valid access token, nobody is asked to log in."""

    async def walk() -> tuple[int, bool]:
        async with stage(tmp_path, keys, "notes") as it, it.network.browser() as browser:
            login = LoginHandler(JOHN, browser)
            auth = provider(it.url, "mcp-2fa", CALLBACK, login)
            async with connect(it.network, it.url, auth) as client:
                await client.list_tools()
            storage = auth.context.storage
            assert isinstance(storage, MemoryTokenStorage)
            assert storage.tokens is not None
            auth.context.token_expiry_time = 1.0  # long ago, as the SDK sees it
            before = storage.tokens.access_token
            async with connect(it.network, it.url, auth) as client:
                await client.list_tools()
            return len(login.opened), before == storage.tokens.access_token

    assert asyncio.run(walk()) == (1, False)


def messages(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(messages(part) for part in error.exceptions)
    return f"{type(error).__name__}: {error}"


def failed(
    tmp_path: Path, keys: SigningKeys, person: BrowserUser, client_id: str = "mcp-2fa"
) -> str:
    """What the client raises where a log-in does not succeed."""

    async def walk() -> None:
        async with stage(tmp_path, keys, "notes") as it, it.network.browser() as browser:
            auth = provider(it.url, client_id, CALLBACK, LoginHandler(person, browser))
            async with connect(it.network, it.url, auth) as client:
                await client.list_tools()

    with pytest.raises((ExceptionGroup, LoginFailedError)) as caught:
        asyncio.run(walk())
    return messages(caught.value)


@pytest.mark.parametrize(
    ("person", "client_id", "words"),
    [
        pytest.param(replace(JOHN, totp_secret=None), "mcp-2fa", "one-time code", id="no code"),
        pytest.param(replace(JOHN, consents=False), "mcp-2fa", "access_denied", id="no consent"),
        pytest.param(JOHN, "nobody", "does not exist", id="unknown client"),
    ],
)
def test_a_log_in_that_fails_is_told(
    tmp_path: Path, keys: SigningKeys, person: BrowserUser, client_id: str, words: str
) -> None:
    """Why a person got no further comes out of the client, in the issuer's words."""
    assert words in failed(tmp_path, keys, person, client_id)


def test_a_token_of_ones_own_can_be_put_into_the_storage(tmp_path: Path, keys: SigningKeys) -> None:
    """A stored token is sent first; only when it is refused the client logs in."""

    async def walk() -> list[int]:
        statuses: list[int] = []

        async def seen(response: httpx2.Response) -> None:
            statuses.append(response.status_code)

        async with stage(tmp_path, keys, "notes") as it, it.network.browser() as browser:
            login = LoginHandler(JOHN, browser)
            first: OAuthClientProvider = provider(it.url, "mcp-2fa", CALLBACK, login)
            storage = first.context.storage
            assert isinstance(storage, MemoryTokenStorage)
            storage.tokens = OAuthToken(access_token="forged")
            async with connect(it.network, it.url, first, seen=seen) as client:
                await client.list_tools()
        return statuses

    statuses = asyncio.run(walk())
    assert (statuses[0], statuses[-1]) == (401, 200)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_names_that_were_not_given_lead_nowhere(tmp_path: Path, library: Any) -> None:
    """A client of the demonstration cannot leave the machine, nor trust another authority."""
    network = LoopbackNetwork(
        {"mcp.example.test": 1}, write_certificates(tmp_path, ["mcp.example.test"]).authority
    )

    async def stray() -> None:
        transport = Httpx2LoopbackTransport(network)
        browser = network.browser() if library is httpx else httpx2.AsyncClient(transport=transport)
        async with browser:
            await browser.get("https://example.org/")

    with pytest.raises(library.ConnectError, match="not of this network"):
        asyncio.run(stray())


def test_each_name_has_connections_of_its_own(tmp_path: Path) -> None:
    """One port behind two names: the name in the TLS handshake is always the one in the URL."""
    names = ("mcp.example.test", "auth.example.test")
    paths = {name: write_certificates(tmp_path / name, [name]) for name in names}

    async def where(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host: Mapping[str, str] = Headers(scope=scope)
            await Response(json.dumps(host["host"]))(scope, receive, send)

    async def look() -> list[str]:
        one = paths[names[0]]
        async with serve(where, tls=TlsFiles(one.certificate, one.key)) as port:
            network = LoopbackNetwork(dict.fromkeys(names, port), one.authority)
            async with network.browser() as browser:
                first = (await browser.get(f"https://{names[0]}/")).json()
                # The certificate is the first name's: a shared connection would hide that.
                with pytest.raises(httpx.ConnectError, match="Hostname mismatch"):
                    await browser.get(f"https://{names[1]}/")
            return [first]

    assert asyncio.run(look()) == [names[0]]

"""The official MCP client (SDK 2.x), unchanged, driven through a log-in.

browser = network.browser()
login = LoginHandler(person, browser)
auth = provider(url, "my-client", "http://127.0.0.1:43210/callback", login)
async with connect(network, url, auth) as client:
await client.call_tool("whoami", {})
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import httpx
import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.session import ElicitationFnT
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from authz_demo.login_drivers import LoginDriver, LoginFailedError
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import FORMS, BrowserUser
from authz_demo.serving import LOOPBACK

Seen = Callable[[httpx2.Response], Awaitable[None]]
_PUBLIC: Final = "none"  # the method of a client without a secret
# The SDK's own: half a minute, and five for a stream that is held open.
_TIMEOUT = httpx2.Timeout(30, read=300)


@dataclass(slots=True)
class MemoryTokenStorage:
    """Keep tokens in memory, beside a client that was registered by hand (SDK: TokenStorage).

    Attributes:
        client_info: who the client is; None lets it try to register itself.
        tokens: what it was granted last; may be set, to begin with a token of one's own.
    """

    client_info: OAuthClientInformationFull | None
    tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """Return the tokens."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep the tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return who the client is: with this the SDK asks for no registration."""
        return self.client_info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep who the client has become."""
        self.client_info = client_info


@dataclass(slots=True)
class LoginHandler:
    """Stand between the SDK and a person: it opens a URL, it wants the callback.

    Attributes:
        person, browser, portal: who logs in, where, and how the issuer's pages are answered.
        opened: the authorization URLs so far: one for every log-in that the SDK asked for.
    """

    person: BrowserUser
    browser: httpx.AsyncClient
    portal: LoginDriver = FORMS
    opened: list[str] = field(default_factory=list)
    _callback: str = ""

    async def open(self, url: str) -> None:
        """Take the SDK's `redirect_handler` call: log in, all the way to the callback.

        Raises:
            LoginFailedError: where the person got no further.
        """
        self.opened.append(url)
        self._callback = await self.person.log_in(self.browser, url, self.portal)

    async def callback(self) -> AuthorizationCodeResult:
        """Answer the SDK's `callback_handler` call: what came back, `iss` included (RFC 9207).

        Raises:
            LoginFailedError: where an error came back.
        """
        answer = dict(parse_qsl(urlsplit(self._callback).query))
        if "error" in answer:
            raise LoginFailedError(f"{answer['error']}: {answer.get('error_description', '')}")
        return AuthorizationCodeResult(
            code=answer.get("code", ""), state=answer.get("state"), iss=answer.get("iss")
        )


def provider(
    server_url: str,
    client_id: str,
    redirect_uri: str,
    login: LoginHandler,
    storage: MemoryTokenStorage | None = None,
) -> OAuthClientProvider:
    """Return the SDK's OAuth for one server and a public client that the issuer knows.

    Args:
        server_url: the MCP server's canonical URL: what it sends as `resource`.
        client_id: as registered at the issuer.
        redirect_uri: one of the client's; nothing has to listen there.
        login: the person.
        storage: where tokens are kept; a new one by default.
    """
    uris = [AnyUrl(redirect_uri)]
    if storage is None:
        known = OAuthClientInformationFull(
            client_id=client_id, redirect_uris=uris, token_endpoint_auth_method=_PUBLIC
        )
        storage = MemoryTokenStorage(known)
    metadata = OAuthClientMetadata(
        client_name=client_id, redirect_uris=uris, token_endpoint_auth_method=_PUBLIC
    )
    return OAuthClientProvider(server_url, metadata, storage, login.open, login.callback)


@asynccontextmanager
async def connect(
    network: LoopbackNetwork,
    server_url: str,
    auth: httpx2.Auth | None,
    mode: str = "auto",
    *,
    seen: Seen | None = None,
    asked: ElicitationFnT | None = None,
) -> AsyncIterator[Client]:
    """Connect the official client; it logs in when the first answer is a 401.

    Args:
        network: where names lead and whom to trust.
        server_url: the MCP server.
        auth: `provider(...)`, or None for a client without a token.
        mode: `auto`, `legacy` or `2026-07-28`.
        seen: called with every response, those of the log-in included (for a scenario to print).
        asked: what the application does with a link that its person shall open; None where it
            cannot show any.

    Raises:
        ExceptionGroup: around whatever the SDK raises in its task groups.
    """
    hooks = {"response": [seen]} if seen is not None else None
    async with (
        httpx2.AsyncClient(
            auth=auth,
            transport=Httpx2LoopbackTransport(network),
            timeout=_TIMEOUT,
            event_hooks=hooks,
            trust_env=False,
        ) as http,
        Client(
            streamable_http_client(server_url, http_client=http),
            mode=mode,
            elicitation_callback=asked,
        ) as client,
    ):
        yield client


class Httpx2LoopbackTransport(httpx2.AsyncBaseTransport):
    """Do for httpx2, which the SDK speaks, what `LoopbackTransport` does for httpx."""

    def __init__(self, network: LoopbackNetwork) -> None:
        """Begin without connections."""
        self._network = network
        self._context = network.context()
        self._pools: dict[str, httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request.

        Raises:
            httpx2.ConnectError: for a name that was not given.
        """
        name = request.url.host
        if name not in self._network.ports:
            raise httpx2.ConnectError(f"{name} is not of this network", request=request)
        if name not in self._pools:
            self._pools[name] = httpx2.AsyncHTTPTransport(verify=self._context)
        redirected = httpx2.Request(
            request.method,
            request.url.copy_with(host=LOOPBACK, port=self._network.ports[name]),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": name},
        )
        return await self._pools[name].handle_async_request(redirected)

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

"""A running deployment with the front door, and the official client (SDK 2.x) at it.

A client is told the URL of a server and nothing else. People come from addresses of their own
(127.0.0.0/8), since the front door counts attempts by address.
"""

import asyncio
import http.server
import itertools
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from authz.core.exchanges import SERVER_REQUESTS
from authz.local import running as running_up
from authz.setup.certificates import CertificateFiles, write_certificates
from authz_demo import front_door
from authz_demo.client import Httpx2LoopbackTransport, LoginHandler, MemoryTokenStorage
from authz_demo.environment import IdentityProvider
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import BrowserUser
from authz_demo.reporter import headers, message
from tests.support.demo_environment import RunningEnvironment, running_environment
from tests.support.pages_with_names import knowing

CALLBACK: Final = "http://127.0.0.1:43210/callback"
# Seconds that a log-in lets its person delete things: long enough for slow machines between the
# password and the call, short enough to wait for its end.
AGE: Final = 8
DOCUMENTS: Final = "client.example.test"
_PATIENCE: Final = 120.0
_addresses = itertools.count(2)


class PublishedDocuments:
    """The host of client id metadata documents: what is put there is served, over TLS.

    Attributes:
        go_on: while it is not set, what is below `/slow/` is not answered.
        hangs: set once somebody waits for that.
    """

    def __init__(self, tls: CertificateFiles) -> None:
        self.authority = tls.authority
        self.asked: list[str] = []
        self.go_on, self.hangs = threading.Event(), threading.Event()
        self.go_on.set()
        self.kept: dict[str, Mapping[str, Any]] = {}
        documents = self

        class DocumentHandler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                documents.asked.append(self.path)
                if self.path.startswith("/slow/"):
                    documents.hangs.set()
                    documents.go_on.wait(_PATIENCE)
                body = json.dumps(documents.kept.get(self.path)).encode()
                self.send_response(200 if self.path in documents.kept else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                with suppress(OSError):  # whoever asked may have gone
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), DocumentHandler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def publish(self, path: str, title: str, *redirect_uris: str, **said: Any) -> str:
        """Put a client there, of which more may be said; return its URL, its client_id."""
        url = f"https://{DOCUMENTS}{path}"
        self.kept[path] = {
            "client_id": url,
            "client_name": title,
            "redirect_uris": list(redirect_uris),
            "token_endpoint_auth_method": "none",
            **said,
        }
        return url

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True, slots=True)
class Door:
    """Hold the whole, and the host of documents.

    Attributes:
        running: the whole.
        documents: where clients that have a URL for a name describe themselves.
    """

    running: RunningEnvironment
    documents: PublishedDocuments

    @property
    def john(self) -> BrowserUser:
        """Return who has TOTP."""
        return self.running.environment.who.john

    @property
    def bob(self) -> BrowserUser:
        """Return who has only a password."""
        return self.running.environment.who.bob

    def url(self, server: str) -> str:
        """Return a server's URL: all that a client is told."""
        return f"{self.running.environment.place.gateway}/{server}"

    def at(self, path: str) -> str:
        """Return a URL of the gateway."""
        return f"{self.running.environment.place.gateway}{path}"

    def network(self) -> LoopbackNetwork:
        """Return how somebody at a computer of their own reaches the whole."""
        return replace(self.running.network, source=f"127.0.0.{next(_addresses) % 250 + 2}")

    async def call(
        self, http: httpx.AsyncClient, server: str, token: str, tool: str, **arguments: object
    ) -> httpx.Response:
        """Call a tool of a server of 2026-07-28 over plain HTTP."""
        body = message("tools/call", {"name": tool, "arguments": arguments})
        return await http.post(self.url(server), json=body, headers=headers(body, token))

    async def called(
        self,
        http: httpx.AsyncClient,
        server: str,
        token: str,
        tool: str,
        true: Callable[[httpx.Response], bool],
        **arguments: object,
    ) -> httpx.Response:
        """Call a tool until the answer is another one, which time alone brings.

        Raises:
            AssertionError: where it does not come.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            answer = await self.call(http, server, token, tool, **arguments)
            if true(answer):
                return answer
            assert time.monotonic() < end, answer.text
            await asyncio.sleep(0.25)


@dataclass(slots=True)
class Assistant:
    """An application with the official client, and the person who uses it.

    Attributes:
        door: where it comes.
        person: who uses it.
        name: what it calls itself.
        browser: the person's.
        network: how both reach the door.
        storage: what it keeps; it begins with nothing.
        login: between the SDK and the person.
        document: its client id metadata document, where it has one.
        seen: what it was answered: status and path.
    """

    door: Door
    person: BrowserUser
    name: str
    browser: httpx.AsyncClient
    network: LoopbackNetwork
    document: str | None = None
    redirect_uri: str = CALLBACK
    storage: MemoryTokenStorage = field(default_factory=lambda: MemoryTokenStorage(None))
    login: LoginHandler = field(init=False)
    auths: dict[str, OAuthClientProvider] = field(default_factory=dict)
    seen: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        portal = self.door.running.environment.issuer.portal
        self.login = LoginHandler(self.person, self.browser, portal)

    @property
    def token(self) -> str:
        """Return its access token."""
        assert self.storage.tokens is not None
        return self.storage.tokens.access_token

    def auth(self, server: str) -> OAuthClientProvider:
        """Return the SDK's OAuth for a server: the same as long as the application runs."""
        if server not in self.auths:
            metadata = OAuthClientMetadata(
                client_name=self.name,
                redirect_uris=[AnyUrl(self.redirect_uri)],
                token_endpoint_auth_method="none",
            )
            self.auths[server] = OAuthClientProvider(
                self.door.url(server),
                metadata,
                self.storage,
                self.login.open,
                self.login.callback,
                client_metadata_url=self.document,
            )
        return self.auths[server]

    def let_it_expire(self, server: str) -> None:
        """Make the SDK think that its access token has."""
        self.auth(server).context.token_expiry_time = 1.0

    @asynccontextmanager
    async def at(self, server: str, mode: str = "auto", **options: Any) -> AsyncIterator[Client]:
        """Connect, logging in where that is needed."""

        async def seen(response: httpx2.Response) -> None:
            self.seen.append((response.status_code, response.request.url.path))

        url = self.door.url(server)
        async with (
            httpx2.AsyncClient(
                auth=self.auth(server),
                transport=Httpx2LoopbackTransport(self.network),
                timeout=30,
                event_hooks={"response": [seen]},
                trust_env=False,
            ) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode, **options) as client,
        ):
            yield client

    async def whoami(self, server: str, mode: str = "auto") -> dict[str, Any]:
        """Connect and ask what the server was told of the caller."""
        async with self.at(server, mode) as client:
            result = await client.call_tool("whoami", {})
        assert not result.is_error
        return dict(result.structured_content or {})


@asynccontextmanager
async def assistant(
    door: Door,
    person: BrowserUser,
    name: str,
    browser: httpx.AsyncClient | None = None,
    **more: Any,
) -> AsyncIterator[Assistant]:
    """Give an application, with a new browser where none is given."""
    network = door.network()
    async with network.browser() as fresh:
        yield Assistant(door, person, name, browser or fresh, network, **more)


def play(game: Callable[[], Awaitable[None]]) -> None:
    """Run one game to its end."""

    async def go() -> None:
        await game()

    asyncio.run(go())


def words(error: BaseException) -> str:
    """Return the words of an exception, or of all in a group."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(words(part) for part in error.exceptions)
    return f"{type(error).__name__}: {error}"


# The servers of the demo, five more, and a scope of one tool.
_SERVERS: Final = (
    *("notes", "board", "files", "open", "shelf", "drawer", "write"),
    *("asked-notes", "asked-files"),
)


def _whole(folder: Path, text: str) -> str:
    """Raise the limits of a person, let `files` have a tool that wants a recent log-in; add `open`,
    which has no scopes, and `shelf`, one of whose tools has a scope of its own; `drawer` is the
    same, and names its own scopes alone at the log-in. Of `asked-notes` and `asked-files` people
    approve each call that deletes or lists, at the first with a fresh second factor.
    """
    raised = text.replace("rate: 60/minute", "rate: 6000/minute")
    raised = raised.replace("gateway:\n", f"gateway:\n  streams_per_user: {SERVER_REQUESTS}\n")
    many = "    limits: [{per: [client, user], rate: 6000/minute}]\n"
    tools = (
        "    tools:\n      '*': {}\n      delete_*:\n"
        f"        second_factor: {{method: totp, max_login_age: {AGE}s}}\n"
    )
    machines = "    machines: [nightly-backup]\n"
    assert raised.count(machines) == 1
    versions = "    versions: ['2025-11-25', '2025-06-18', '2025-03-26']\n"
    where = f"    upstream: http://files/mcp\n    socket: {folder / 'files.sock'}\n"
    of_files = f"{where}{versions}{many}"
    writing = "    scopes: [mcp:shelf]\n    tools: {'*': {}, 'delete_*': {scopes: [mcp:write]}}\n"
    own = writing.replace("mcp:shelf", "mcp:drawer") + "    challenge_scopes: own\n"
    more = f"  open:\n{of_files}  shelf:\n{of_files}{writing}  drawer:\n{of_files}{own}"
    modern = (
        f"    upstream: http://notes/mcp\n    socket: {folder / 'notes.sock'}\n"
        f"    versions: ['2026-07-28']\n{many}"
    )
    both = "{approve: each_call, second_factor: {method: totp, evidence: [step_up]}}"
    for name, where, rule in (
        ("asked-notes", modern, both),
        ("asked-files", of_files, "{approve: each_call}"),
    ):
        of_tools = f"{{'*': {{}}, 'delete_*': {rule}, 'list_*': {rule}}}"
        guarded = f"    scopes: [mcp:{name}]\n    tools: {of_tools}\n"
        more += f"  {name}:\n{where}{guarded}"
    return raised.replace(machines, machines + many + tools) + more


@contextmanager
def running_door(
    folder: Path, issuer: IdentityProvider | None = None, *, one_name: bool = False
) -> Iterator[Door]:
    """Run the whole with its front door as long as the block does.

    Args:
        folder: for its files.
        issuer: who logs people in; the stand-in by default.
        one_name: whether the issuer is under a path of the gateway's name.
    """
    documents = PublishedDocuments(write_certificates(folder / "documents", [DOCUMENTS]))
    known = knowing(DOCUMENTS, documents.port, documents.authority)
    try:
        with ExitStack() as stack:
            # For the start alone: the whole runs for a session, and other tests beside it.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(running_up, "pages_service", known)
                patch.setattr(front_door, "_SERVERS", _SERVERS)
                change = partial(_whole, folder / "d")
                whole = running_environment(
                    folder / "d",
                    issuer,
                    change,
                    login="front_door",
                    age=f"{AGE}s",
                    one_name=one_name,
                )
                running = stack.enter_context(whole)
            yield Door(running, documents)
    finally:
        documents.close()

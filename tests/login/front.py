"""The whole front door in this process: the pages, a real Valkey, the stand-in, browsers, clients.

A client here is written by hand, so that it can do what no library would.
"""

import asyncio
import base64
import hashlib
import io
import json
import secrets
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz.config.load import read
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.login.wiring import LoginServer
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz_demo.issuer import StandInIssuer, create_app
from authz_demo.issuer.keys import StandInKeys
from authz_demo.issuer.run import forwarded_headers
from authz_demo.login_drivers import automatic_redirect
from authz_demo.person import BrowserUser
from tests.demo.kit import CLIENT_KEY, FILES, ISSUER, NOTES, SECRET, config
from tests.login.upstream.upstream_kit import HOME, ours
from tests.support.valkey import ValkeyServer

GATEWAY: Final = "https://mcp.example.test"
LOOPBACK: Final = "http://127.0.0.1:43210/callback"
OPEN: Final = "https://mcp.example.test/open"  # a server without scopes, where a test adds it
CONFIGURED: Final = "claude"
CLAUDE: Final = "https://claude.ai/api/mcp/auth_callback"

CONFIG: Final = """\
issuer: {{url: 'https://auth.example.test', internal: 'http://authelia:9091'}}
front_door: {{key_file: '{key}'}}
gateway: {{url: 'https://mcp.example.test', tls: {{certificate: /a.crt, key: /a.key}}}}
redis: {{url: '{redis}'}}
clients:
  claude: {{redirect_uris: ['https://claude.ai/api/mcp/auth_callback'], scopes: ['mcp:tools']}}
  narrow: {{redirect_uris: ['http://127.0.0.1/callback'], scopes: ['mcp:tools']}}
servers:
  files:
    upstream: 'http://files:8000/mcp'
    scopes: ['mcp:tools']
    tools:
      read_*: {{}}
      admin_*: {{scopes: ['mcp:admin'], second_factor: totp}}
  notes:
    upstream: 'http://notes:8000/mcp'
    scopes: ['mcp:tools']
"""

Change = Callable[[str], str]


class FrontDoorUpstream(httpx.AsyncBaseTransport):
    """Reach the stand-in; note what was sent; be away, slow, or refusing where a test says so."""

    def __init__(self, issuer: StandInIssuer) -> None:
        self._inner = httpx.ASGITransport(create_app(issuer))
        self.sent: list[httpx.Request] = []
        self.away = False
        self.fault: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        if self.hold is not None and request.url.path.endswith("/token"):
            await self.hold.wait()
        if self.fault is not None:
            raise self.fault
        if self.away:
            raise httpx.ConnectError("nobody answers")
        await asyncio.sleep(0)
        return await self._inner.handle_async_request(request)

    def calls(self, endpoint: str) -> list[httpx.Request]:
        return [each for each in self.sent if each.url.path.rpartition("/")[2] == endpoint]


@dataclass
class FrontDoorStage:
    """Everything together.

    Attributes:
        built: the pages.
        issuer: the stand-in's state.
        upstream: the way to it.
        ledger: the same Redis, as the check reads it.
        log: what the pages wrote.
        turns: who answers a request: one replica after the other.
    """

    built: LoginServer
    issuer: StandInIssuer
    upstream: FrontDoorUpstream
    ledger: RedisLedger
    valkey: ValkeyServer
    deployment: str
    log: io.StringIO
    turns: "ReplicaTurns"
    open: list[httpx.AsyncClient] = field(default_factory=list)

    def browser(self, address: str = HOME) -> httpx.AsyncClient:
        """A browser that reaches the gateway and the issuer, as Envoy would lead it."""
        browser = httpx.AsyncClient(
            mounts={
                GATEWAY: _Edge(self.turns, {"x-request-id": "r-1"}),
                ISSUER: _Edge(create_app(self.issuer), forwarded_headers(self.issuer.config)),
            },
            transport=httpx.MockTransport(lambda _: httpx.Response(418)),
            headers={"X-Forwarded-For": address},
        )
        self.open.append(browser)
        return browser

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def keys(self, kind: str = "") -> list[str]:
        pattern = f"{{{self.deployment}}}:{kind}*"
        return sorted(key.decode() for key in self.valkey.command("KEYS", pattern))


@dataclass
class ReplicaTurns:
    """Have one replica of the pages answer after the other, as Envoy does.

    Attributes:
        replicas: each with the same configuration and Redis.
        turn: whose turn it is.
        asked: how many requests each has had.
    """

    replicas: list[LoginServer]
    turn: int = 0
    asked: Counter[int] = field(default_factory=Counter)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        number, self.turn = self.turn, (self.turn + 1) % len(self.replicas)
        self.asked[number] += 1
        await self.replicas[number].app(scope, receive, send)


class _Edge(httpx.ASGITransport):
    """Overwrite what Envoy overwrites."""

    def __init__(self, app: Any, headers: dict[str, str]) -> None:
        super().__init__(app)
        self._headers = headers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for name, value in self._headers.items():
            request.headers[name] = value
        return await super().handle_async_request(request)


@dataclass
class FrontDoorClient:
    """One MCP client on one machine, with one browser."""

    stage: FrontDoorStage
    client_id: str = ""
    redirect_uri: str = LOOPBACK
    resource: str | None = FILES
    address: str = HOME
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    browser: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.browser = self.stage.browser(self.address)

    async def register(self, **changes: Any) -> httpx.Response:
        """Register (RFC 7591), and be that client from now on."""
        metadata = {"client_name": "Test", "redirect_uris": [self.redirect_uri]} | changes
        answer = await self.browser.post(f"{GATEWAY}/register", json=metadata)
        self.client_id = answer.json().get("client_id", "")
        return answer

    def parameters(self, **changes: Any) -> dict[str, Any]:
        """The parameters of an authorization request; None leaves one out."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest())
        found = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "resource": self.resource,
        }
        return {name: value for name, value in (found | changes).items() if value is not None}

    def url(self, **changes: Any) -> str:
        return f"{GATEWAY}/authorize?{urlencode(self.parameters(**changes), doseq=True)}"

    async def authorize(self, **changes: Any) -> httpx.Response:
        """The first answer, nothing followed."""
        return await self.browser.get(self.url(**changes))

    async def log_in(self, person: BrowserUser | None = None, **changes: Any) -> dict[str, str]:
        """Everything up to the client's callback: its parameters."""
        callback = await (person or john()).log_in(self.browser, self.url(**changes))
        return dict(parse_qsl(urlsplit(callback).query, keep_blank_values=True))

    async def post(self, path: str, **form: Any) -> httpx.Response:
        sent = {"client_id": self.client_id} | form
        data = {name: value for name, value in sent.items() if value is not None}
        return await self.browser.post(f"{GATEWAY}{path}", data=data)

    async def exchange(self, code: str, **changes: Any) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
            "resource": self.resource,
        }
        return await self.post("/token", **(form | changes))

    async def refresh(self, token: str, **changes: Any) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token}
        return await self.post("/token", **(form | changes))

    async def tokens(self, person: BrowserUser | None = None, **changes: Any) -> dict[str, Any]:
        """A whole log-in: the members of the token answer."""
        back = await self.log_in(person, **changes)
        answer = await self.exchange(back["code"])
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def onward(answer: httpx.Response) -> str:
    """Where a browser goes from an answer by itself."""
    url = automatic_redirect(answer)
    assert url is not None, answer.text
    return url


def john(**knows: Any) -> BrowserUser:
    return BrowserUser("john", "password", SECRET, **knows)


def bob(**knows: Any) -> BrowserUser:
    return BrowserUser("bob", "password", SECRET, **knows)


@asynccontextmanager
async def stage(
    valkey: ValkeyServer,
    keys: StandInKeys,
    folder: Path,
    change: Change = str,
    deployment: str = "",
    *,
    replicas: int = 1,
) -> AsyncIterator[FrontDoorStage]:
    """Run the pages and the stand-in as long as the block does.

    Args:
        valkey: the server, which may be others', too.
        keys: of the stand-in.
        folder: for the key of the pages.
        change: of authz.yaml.
        deployment: in Redis; one of its own where it is left out.
        replicas: of the pages.
    """
    deployment = deployment or f"test-{uuid.uuid4().hex}"
    key = folder / "front-door.pem"
    key.write_bytes(CLIENT_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    text = CONFIG.format(key=key, redis=valkey.url)
    settings = read(change(text), "authz.yaml", {})
    known = ours(config(time.time))
    issuer = StandInIssuer(replace(known, clients=tuple(map(_with_more, known.clients))), keys)
    log = io.StringIO()
    options = RedisOptions(valkey.url, deployment=deployment, timeout=20)
    upstream = FrontDoorUpstream(issuer)
    # Where the network would be; all else is as it runs.
    http = httpx.AsyncClient(transport=upstream)
    recorder = Recorder(Metrics(), EventLog("json", log))
    built = [LoginServer(settings, options, recorder, http=http) for _ in range(replicas)]
    ledger, turns = RedisLedger(options), ReplicaTurns(built)
    found = FrontDoorStage(built[0], issuer, upstream, ledger, valkey, deployment, log, turns)
    try:
        yield found
    finally:
        for browser in found.open:
            await browser.aclose()
        await ledger.aclose()
        for each in built:
            await each.aclose()


def _with_more(client: Any) -> Any:
    """Let the front door ask for the scopes and servers that tests add."""
    if not client.client_id.startswith("authz-"):
        return client
    scopes = dict.fromkeys((*client.scopes, "mcp:admin"))
    return replace(
        client,
        scopes=tuple(scopes),
        audience=(*client.audience, OPEN),
        redirect_uris=(
            *client.redirect_uris,
            *(f"{GATEWAY}/authz/{page}/callback" for page in ("admin", "log-ins")),
        ),
    )


__all__ = ["FILES", "HOME", "NOTES"]

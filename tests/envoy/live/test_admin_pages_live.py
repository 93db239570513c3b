"""Admin pages through the real Envoy, judged by the real check.

Invariant: a page's upstream is reached with a session's own cookie and nothing else; it learns who
asks from authz alone, and none of our secrets; no path leads from a page's host to MCP, the log-in
or the reverse.
"""

import asyncio
import io
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from authz.config.endpoints import Unix
from authz.core.browser_session import BrowserSession
from authz.core.principal import Person
from authz.core.second_factor import Method
from authz.envoy.render import Topology, render
from authz.ledger.browser_sessions import SessionRecords
from authz.ledger.deadline import Deadline
from authz.ledger.keys import RedisKeys, person_field
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import Revocation
from authz.server.browser_sessions import BrowserSessions
from authz.server.check import Check, Snapshot
from authz.server.grpc import GrpcTransport
from authz.server.grpc_calls import Calls
from authz.server.health import Health
from authz.server.page_check import PageCheck
from authz.server.refusal_limiter import RefusalLimiter
from authz.server.upstream_health import UpstreamHealth
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.page_tickets import open_page_ticket
from authz.tokens.sealing import Sealer
from tests.server.test_check import FakeVerifier
from tests.support import edge
from tests.support.admin_page import Directory, PageUpstream, RecordStore, john, page_upstream
from tests.support.envoy import running_envoy
from tests.support.gateway import tls
from tests.support.wild_client import WildAnswer, WildClient, http2

GATEWAY = "mcp.example.test"
HOST = "grafana.example.test"
ORIGIN = f"https://{HOST}"
SHARED = "admin.example.test"
SETTINGS = """
issuer: {{url: https://auth.example.test}}
gateway:
  url: https://mcp.example.test
  listen: 127.0.0.1:0
  tls: {{certificate: {folder}/tls/tls.crt, key: {folder}/tls/tls.key}}
  max_body: 64KiB
  address_rate: 1000000/second
  address_calls: 1000000/second
front_door: {{key_file: /run/secrets/front-door.pem, page_recheck: 6s}}
servers:
  files: {{upstream: 'http://files:8000/mcp', socket: {folder}/files}}
pages:
  grafana:
    host: grafana.example.test
    upstream: http://grafana:3000
    socket: {folder}/grafana
    groups: [admins]
    second_factor: totp
  prom: {{host: admin.example.test, path: /prom, upstream: 'http://p:1', socket: {folder}/prom}}
  gone: {{host: admin.example.test, path: /gone, upstream: 'http://g:1', socket: {folder}/gone}}
"""
_RECHECK = 6.0  # seconds, as above
_SLOW_MACHINE = 60.0
NAVIGATION = (
    ("Accept", "text/html,*/*"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"),
)  # fmt: skip
SCRIPT = (("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors"), ("Accept", "*/*"))
UPGRADE = (
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)  # fmt: skip


@dataclass
class Running:
    """Everything that runs, and how to talk to it."""

    health: Callable[[], Mapping[str, str]]
    folder: Path
    send: WildClient
    page: PageUpstream
    prom: PageUpstream
    front_door: edge.EdgeUpstream
    files: edge.EdgeUpstream
    store: RecordStore
    ledger: MemoryLedger
    sessions: BrowserSessions
    directory: Directory
    sealer: Sealer
    log: io.StringIO
    recorder: Recorder
    loop: asyncio.AbstractEventLoop
    ports: list[int] = field(default_factory=list)

    def run(self, coroutine: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(30)

    def session(self, login: BrowserSession | None = None, origin: str = ORIGIN) -> str:
        """Open a session as the log-in does; return its token."""
        token: str = self.run(self.sessions.begin(login or john(), origin))
        return token

    def decision(self) -> dict[str, Any]:
        """The last decision as it was logged."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        found: dict[str, Any] = [line for line in lines if line["event"] == "decision"][-1]
        return found

    def upgraded(self, *headers: tuple[str, str]) -> AbstractContextManager[tuple[Any, WildAnswer]]:
        """Ask for a WebSocket; yield the connection and the answer."""
        return self.opened("websocket", *headers)

    @contextmanager
    def opened(self, kind: str, *headers: tuple[str, str]) -> Iterator[tuple[Any, WildAnswer]]:
        """Ask for a WebSocket or for a stream of events; yield the connection and the answer."""
        target, more = ("/ws", UPGRADE) if kind == "websocket" else ("/stream", SCRIPT)
        with self.send.connect() as sock:
            lines = [f"GET {target} HTTP/1.1", f"Host: {HOST}"]
            lines += [f"{name}: {value}" for name, value in (*more, *headers)]
            sock.sendall("\r\n".join((*lines, "", "")).encode())
            head = b""
            while b"\r\n\r\n" not in head:
                received = sock.recv(1)
                if not received:
                    break
                head += received
            status = int(head.split(b" ")[1]) if head else 0
            yield sock, WildAnswer(status, body=head)


@pytest.fixture(scope="module")
def everything() -> Iterator[Running]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="a")))
        (folder / "tls").mkdir()
        edge.certificate(folder / "tls", 1, GATEWAY, HOST, SHARED, swap=True)
        page = stack.enter_context(page_upstream(folder / "grafana"))
        prom = stack.enter_context(page_upstream(folder / "prom"))
        front_door, _ = stack.enter_context(edge.upstream(folder / "pages"))
        files, _ = stack.enter_context(edge.upstream(folder / "files"))
        settings = edge.patient_settings(SETTINGS.format(folder=folder))

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        stack.callback(loop.close)
        stack.callback(thread.join)
        stack.callback(loop.call_soon_threadsafe, loop.stop)
        store, ledger = RecordStore(), MemoryLedger(time.time)
        sealer, log = Sealer(["k" * 32], time.time), io.StringIO()
        recorder = Recorder(Metrics(), EventLog("json", log))
        deadline = Deadline(10.0)
        directory = Directory()
        sessions = BrowserSessions(
            SessionRecords(store, RedisKeys("t")),
            sealer=sealer,
            revocations=ledger,
            groups=directory,
            issuer=settings.policy.issuer,
            clock=time.time,
        )
        check_pages = PageCheck(
            settings.policy,
            sessions=sessions,
            sealer=sealer,
            gateway=f"https://{GATEWAY}",
            deadline=deadline,
        )
        snapshot = Snapshot(settings.policy, FakeVerifier(), ledger, deadline, pages=check_pages)

        async def serve() -> GrpcTransport:
            health = Health()
            health.set("test", "")
            check = Check(snapshot, recorder, RefusalLimiter())
            transport = GrpcTransport(Calls(check, health, max_body=65536))
            transport.listen(f"unix:{folder}/check")
            await transport.start()
            return transport

        transport = asyncio.run_coroutine_threadsafe(serve(), loop).result(30)
        stack.callback(lambda: asyncio.run_coroutine_threadsafe(transport.stop(0), loop).result(30))
        where = Topology(
            authz=(Unix(f"{folder}/check"),),
            admin=f"{folder}/admin",
            folder=str(folder),
            pages=(Unix(f"{folder}/pages"),),
            stats=f"{folder}/stats",
        )
        envoy = stack.enter_context(
            running_envoy(render(settings, where), folder, folder / "admin")
        )
        client = WildClient(envoy.port("gateway"), HOST, tls("http/1.1"))
        upstreams = UpstreamHealth(f"{folder}/stats")

        def health() -> Mapping[str, str]:
            return {name: each.value for name, each in upstreams.look(settings.config).items()}

        yield Running(
            health,
            folder,
            client,
            page,
            prom,
            front_door,
            files,
            store,
            ledger,
            sessions,
            directory,
            sealer,
            log,
            recorder,
            loop,
        )


@pytest.fixture
def running(everything: Running) -> Running:
    """Everything, as if nobody had used it before."""
    everything.store.kept.clear()
    everything.store.away = False
    everything.directory.said = frozenset({"admins", "staff"})
    for each in (everything.page, everything.prom):
        each.arrived.clear()
        each.sets = ()
        each.go_on.clear()
    for server in (everything.files, everything.front_door):
        server.arrived.clear()
    for target in list(everything.run(everything.ledger.revocations())):
        everything.run(everything.ledger.lift(target))
    return everything


def cookie(token: str, *others: str) -> tuple[str, str]:
    return ("Cookie", "; ".join((*others, f"__Host-authz-session={token}")))


def test_a_session_opens_its_page_and_says_who_asks(running: Running) -> None:
    """Host, path, query, the page's own cookies and credentials arrive as they were sent; who asks
    comes from the log-in.
    """
    headers = (
        cookie(
            running.session(), "grafana_session=g", "__Host-authz-browser=b", "Authelia_session=a"
        ),
        ("Authorization", "Bearer its-own"),
    )
    answer = running.send("GET", "/d/a?x=%41", *headers, *SCRIPT)

    assert answer.status == 200
    assert answer.header("strict-transport-security") is not None
    (arrived,) = running.page.arrived
    assert arrived.line == "GET /d/a?x=%41 HTTP/1.1"
    assert arrived.values("host") == [HOST]
    assert arrived.values("cookie") == ["grafana_session=g"]
    assert arrived.values("authorization") == ["Bearer its-own"]
    assert arrived.values("remote-user") == ["john"]
    assert arrived.values("remote-groups") == ["admins,staff"]
    assert arrived.values("remote-name") == ["John Doe"]
    assert arrived.values("remote-email") == ["john@example.com"]
    assert arrived.values("x-forwarded-host") == [HOST]
    assert arrived.values("x-forwarded-proto") == ["https"]
    assert "authz" not in str(arrived.headers)
    decision = running.decision()
    assert (decision["verdict"], decision["page"], decision["subject"]) == (
        "allow", "grafana", "s-john",
    )  # fmt: skip


@pytest.mark.attack("page-spoofed-identity")
@pytest.mark.parametrize(
    "name",
    [
        "Remote-User", "REMOTE-GROUPS", "remote-name", "Remote-Email", "Remote-Anything",
        "X-Forwarded-User", "X-Forwarded-Email", "X-WEBAUTH-USER", "X-WebAuth-Groups",
        "X-Auth-Request-User", "X-Remote-User", "X-Authz-Subject", "X-authz-session",
        "x-authz-browser", "X-Authentik-Username", "X-Scope-OrgID", "Tailscale-User-Login",
        "Cf-Access-Authenticated-User-Email", "X-Pomerium-Jwt-Assertion", "X-Original-URL",
        "X-SSO-User", "X-Authenticated-Userid", "X-Consumer-Username", "Impersonate-User", "User",
        "Es-Security-Runas-User", "X-Hasura-Role", "X-Iap-Jwt-Assertion", "X-Proxy-User", "Groups",
        "X-Any-Product-Login", "X-Id-Token", "X-OAuth2-Subject", "My-Email", "X-Principal-Name",
    ],
)  # fmt: skip
@pytest.mark.parametrize("hop", [False, True], ids=["plain", "hop-by-hop"])
def test_nobody_says_who_they_are(running: Running, name: str, *, hop: bool) -> None:
    """What a web interface could believe of who asks is stripped, with a session and hop by hop."""
    login = john(groups=frozenset({"admins"}), name="", email="")
    more = [("Connection", f"keep-alive, {name}")] if hop else []
    answer = running.send(
        "GET", "/", cookie(running.session(login)), (name, "evil"),
        *more, *SCRIPT,
    )  # fmt: skip

    assert answer.status == 200
    (arrived,) = running.page.arrived
    assert "evil" not in str(arrived.headers)
    assert arrived.values("remote-user") == ["john"]
    assert arrived.values("remote-email") == []
    assert "authz" not in str(arrived.headers)


def test_what_pages_need_passes(running: Running) -> None:
    """Nothing is taken away that says nothing of who asks."""
    names = (
        "User-Agent", "Authorization", "X-CSRF-Token", "X-Requested-With", "X-Grafana-Org-Id",
        "X-Grafana-Device-Id", "X-Dashboard-Uid", "X-Datasource-Uid", "X-Panel-Id", "X-Plugin-Id",
        "X-Query-Group-Id", "If-None-Match", "Sec-Ch-Ua-Mobile", "Accept-Language", "Priority",
        "Last-Event-Id",
    )  # fmt: skip
    headers = [(name, f"v-{name}") for name in names]
    assert running.send("GET", "/", cookie(running.session()), *headers, *SCRIPT).status == 200
    (arrived,) = running.page.arrived
    assert [arrived.values(name.lower()) for name in names] == [[f"v-{name}"] for name in names]


@pytest.mark.attack("page-without-session")
def test_without_a_session_a_person_is_sent_to_log_in(running: Running) -> None:
    """The address holds no word of theirs in the clear; what comes back leads to the page alone."""
    answer = running.send("GET", "/d/a?secret=1", *NAVIGATION)

    assert answer.status == 303
    location = answer.header("location") or ""
    assert location.startswith(f"https://{GATEWAY}/authz/page?ticket=")
    assert "secret" not in location
    ticket = open_page_ticket(running.sealer, location.partition("ticket=")[2])
    assert (ticket.page, ticket.path) == ("grafana", "/d/a?secret=1")
    (sets,) = answer.values("set-cookie")
    assert sets.startswith("__Host-authz-browser=")
    for attribute in ("Path=/", "Secure", "HttpOnly", "SameSite=Lax"):
        assert attribute in sets
    # The same browser in another tab keeps it.
    value = sets.partition(";")[0]
    again = running.send("GET", "/", ("Cookie", value), *NAVIGATION)
    assert again.values("set-cookie")[0].partition(";")[0] == value
    assert running.page.arrived == []


@pytest.mark.attack("page-without-session", "path-games")
@pytest.mark.parametrize(
    "target",
    ["//evil.example/x", "/\\evil.example", "/%2f%2fevil.example", "/..//evil.example", "/a" * 600],
)
def test_the_way_back_leads_nowhere_else(running: Running, target: str) -> None:
    """Whatever is asked for, a browser comes back to the page's own origin."""
    answer = running.send("GET", target, *NAVIGATION)

    if answer.status == 303:
        location = answer.header("location") or ""
        path = open_page_ticket(running.sealer, location.partition("ticket=")[2]).path
        assert path.startswith("/")
        assert not path.startswith("//")
    else:
        assert answer.status in {400, 404}
    assert running.page.arrived == []


@pytest.mark.attack("page-without-session")
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", SCRIPT),
        ("GET", (("Accept", "application/json"),)),
        ("GET", (("Accept", "text/html"), ("Sec-Fetch-Mode", "cors"))),
        ("GET", (("Accept", "text/html"), ("Sec-Fetch-Dest", "iframe"))),
        ("POST", NAVIGATION),
        ("POST", SCRIPT),
        ("DELETE", ()),
        ("OPTIONS", (("Origin", "https://evil.example"),)),
        ("GET", (("Authorization", "Bearer good"), ("Accept", "*/*"))),
        ("GET", (("Cookie", "__Host-authz-session=short"),)),
        ("GET", (("Cookie", f"__Host-authz-session={'a' * 43}"),)),
        ("GET", (("X-Authz-Session", "a" * 43),)),
        ("GET", UPGRADE),
    ],
)
def test_without_a_session_a_call_is_told(
    running: Running, method: str, headers: tuple[tuple[str, str], ...]
) -> None:
    """No redirect for what no person reads, and no challenge that would make clients log in."""
    body = b"{}" if method == "POST" else None
    answer = running.send(method, "/api/x", *headers, body=body)

    assert answer.status == 401
    assert answer.json()["error"] == "session_missing"
    assert answer.header("www-authenticate") is None
    assert running.page.arrived == []


@pytest.mark.attack("page-session-of-another")
def test_a_session_is_of_one_origin(running: Running) -> None:
    """A session of another host, and a token that comes twice, open nothing."""
    token, other = running.session(), running.session(origin=f"https://{SHARED}")
    good, console = running.session(), running.session(origin=f"https://{GATEWAY}")
    for sent in (
        cookie(other),
        cookie(console),
        ("Cookie", f"__Host-authz-session={token}; __Host-authz-session={good}"),
        ("Cookie", f"__host-authz-session={token}"),
        ("Cookie", f"__Host-authz-session ={token}"),
    ):
        assert running.send("GET", "/", sent, *SCRIPT).status == 401, sent
    assert running.send("GET", "/prom", cookie(token), *SCRIPT, host=SHARED).status == 401
    assert running.page.arrived == running.prom.arrived == []
    assert running.send("GET", "/prom", cookie(other), *SCRIPT, host=SHARED).status == 200


@pytest.mark.attack("page-rules")
@pytest.mark.parametrize(
    ("login", "reason", "lifted"),
    [
        (john(groups=frozenset({"staff"})), "person_not_allowed", False),
        (john(method=Method.ANY), "second_factor_required", True),
        (john(method=Method.NONE), "second_factor_required", True),
    ],
)
def test_whoever_does_not_fulfil_the_rule(
    running: Running, login: BrowserSession, reason: str, lifted: bool
) -> None:
    """Groups and second factor are judged for every request; a log-in is offered where it helps."""
    running.directory.said = login.groups
    sent = cookie(running.session(login))
    answer = running.send("GET", "/", sent, *SCRIPT)
    assert (answer.status, answer.json()["error"]) == (403, reason)
    page = running.send("GET", "/", sent, *NAVIGATION)
    assert page.status == (303 if lifted else 403)
    assert running.page.arrived == []
    assert running.decision()["reason"] == reason


@pytest.mark.attack("page-revoked")
def test_log_out_and_revocation_end_access_at_once(running: Running) -> None:
    """The next request of a session that ended, or whose person was revoked, reaches nothing."""
    first, second = running.session(), running.session()
    assert running.send("GET", "/", cookie(first), *SCRIPT).status == 200
    running.run(running.sessions.end(ORIGIN, first))
    assert running.send("GET", "/", cookie(first), *SCRIPT).status == 401
    assert running.send("GET", "/", cookie(second), *SCRIPT).status == 200

    person = person_field(Person("https://auth.example.test", "s-john"))
    running.run(running.ledger.revoke(person, Revocation()))
    answer = running.send("GET", "/", cookie(second), *SCRIPT)
    assert (answer.status, answer.json()["error"]) == (401, "session_revoked")
    assert len(running.page.arrived) == 2


@pytest.mark.attack("page-session-of-another")
def test_a_copied_record_opens_nothing(running: Running) -> None:
    """Whoever can write to Redis alone makes of somebody's session none of their own."""
    running.session()
    (stolen,) = running.store.kept.values()
    mine = running.session(john(groups=frozenset({"staff"}), subject="s-eve"))
    for key in running.store.kept:
        running.store.kept[key] = stolen
    assert running.send("GET", "/", cookie(mine), *SCRIPT).status == 401
    assert running.page.arrived == []


@pytest.mark.attack("page-rules")
def test_a_group_that_is_taken_away_ends_access_within_the_bound(running: Running) -> None:
    """Of a person who goes on using the page, without a log-in between, by `page_recheck`."""
    sent = cookie(running.session(john(groups_at=int(time.time()))))
    assert running.send("GET", "/", sent, *SCRIPT).status == 200
    running.directory.said = frozenset({"staff"})
    taken_away = time.monotonic()
    answer = running.send("GET", "/", sent, *SCRIPT)
    while answer.status == 200:
        assert time.monotonic() - taken_away < _RECHECK + _SLOW_MACHINE
        answer = running.send("GET", "/", sent, *SCRIPT)
    assert (answer.status, answer.json()["error"]) == (403, "person_not_allowed")


def test_what_is_away_opens_nothing(running: Running) -> None:
    """Without Redis nobody is let in, and a person is told."""
    token = running.session()
    running.store.away = True
    answer = running.send("GET", "/", cookie(token), *NAVIGATION)
    assert answer.status == 503
    assert answer.header("retry-after") is not None
    assert running.page.arrived == []


CROSS = ("Sec-Fetch-Site", "cross-site")
SAME_SITE = ("Sec-Fetch-Site", "same-site")


@pytest.mark.attack("page-cross-site")
@pytest.mark.parametrize("site", [CROSS, SAME_SITE, ("Sec-Fetch-Site", "same-origin, cross-site")])
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", NAVIGATION),
        ("POST", (("Origin", ORIGIN),)),
        ("DELETE", ()),
        ("GET", (("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image"))),
        ("GET", (*NAVIGATION[:2], ("Sec-Fetch-Dest", "iframe"))),
        ("GET", (("Sec-Fetch-Mode", "cors"), ("Origin", "https://mcp.example.test"))),
    ],
)
def test_another_site_does_nothing_with_a_session(
    running: Running,
    method: str,
    headers: tuple[tuple[str, str], ...],
    site: tuple[str, str],
) -> None:
    """Neither forms nor scripts nor frames, of a sibling host either."""
    body = b"{}" if method == "POST" else None
    answer = running.send(method, "/", cookie(running.session()), *headers, site, body=body)
    assert (answer.status, answer.header("location")) == (403, None)
    assert running.decision()["reason"] == "cross_site"
    assert running.page.arrived == []


@pytest.mark.attack("page-cross-site")
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", (("Origin", "https://evil.example"),)),
        ("POST", (("Origin", "null"),)),
        ("POST", (("Origin", f"{ORIGIN}.evil.example"),)),
        ("POST", (("Origin", ORIGIN.replace("https", "http")),)),
        ("POST", (("Origin", ORIGIN), ("Origin", "https://evil.example"))),
        ("POST", (("Sec-Fetch-Site", "none"),)),
        ("POST", ()),
        ("GET", (("Origin", "https://evil.example"),)),
    ],
)
def test_what_changes_something_says_where_it_is_from(
    running: Running, method: str, headers: tuple[tuple[str, str], ...]
) -> None:
    """A browser that sends no Fetch Metadata is judged by Origin; without both nothing changes."""
    body = b"{}" if method == "POST" else None
    answer = running.send(method, "/", cookie(running.session()), *headers, body=body)
    assert answer.status == 403
    assert running.page.arrived == []


def test_what_a_page_sends_itself_passes(running: Running) -> None:
    """Forms and calls of the page's own, a link from elsewhere, and an address that was typed."""
    sent = cookie(running.session())
    for method, headers in (
        ("POST", (("Origin", ORIGIN),)),
        ("POST", (("Sec-Fetch-Site", "same-origin"),)),
        ("PUT", (("Origin", ORIGIN), ("Sec-Fetch-Site", "same-origin"))),
        ("GET", (*NAVIGATION, CROSS)),
        ("GET", (*NAVIGATION, ("Sec-Fetch-Site", "none"))),
        ("HEAD", ()),
    ):
        body = None if method in {"GET", "HEAD"} else b"x" * 200_000
        assert running.send(method, "/api", sent, *headers, body=body).status == 200, headers
    assert [len(each.body) for each in running.page.arrived[:3]] == [200_000] * 3


def test_a_web_socket_is_echoed(running: Running) -> None:
    """A WebSocket of the page's own opens, and bytes pass both ways; it ends after
    `page_recheck`, to be decided about anew.
    """
    sent = cookie(running.session())
    with running.upgraded(sent, ("Origin", ORIGIN)) as (sock, answer):
        assert answer.status == 101
        masked = bytes(each ^ mask for each, mask in zip(b"hello", b"abcda", strict=True))
        sock.sendall(b"\x81\x85abcd" + masked)
        assert sock.recv(100) == b"\x81\x05hello"
        assert sock.recv(100) == b""
    assert running.page.arrived[0].values("remote-user") == ["john"]


@pytest.mark.attack("page-revoked")
@pytest.mark.parametrize("how", ["log-out", "revocation", "group"])
@pytest.mark.parametrize("kind", ["websocket", "events"])
def test_what_is_open_ends_within_the_bound(running: Running, how: str, kind: str) -> None:
    """A WebSocket or stream lives on for `page_recheck` at most, and is not opened again."""
    token = running.session(john(groups_at=int(time.time())))
    headers = (("Origin", ORIGIN),) if kind == "websocket" else ()
    opened = time.monotonic()
    with running.opened(kind, cookie(token), *headers) as (sock, answer):
        assert answer.status == (101 if kind == "websocket" else 200)
        if how == "log-out":
            running.run(running.sessions.end(ORIGIN, token))
        elif how == "revocation":
            person = person_field(Person("https://auth.example.test", "s-john"))
            running.run(running.ledger.revoke(person, Revocation()))
        else:
            running.directory.said = frozenset({"staff"})
        with suppress(ConnectionError):
            while sock.recv(4096):
                pass
        assert time.monotonic() - opened < _RECHECK + _SLOW_MACHINE
    if how == "group":  # confirmed when the stream was opened
        while running.send("GET", "/", cookie(token), *SCRIPT).status == 200:
            assert time.monotonic() - opened < 2 * _RECHECK + _SLOW_MACHINE
    with running.opened(kind, cookie(token), *headers) as (_, answer):
        assert answer.status in {401, 403}
    target = "/ws" if kind == "websocket" else "/stream"
    arrived = [each for each in running.page.arrived if each.line.startswith(f"GET {target} ")]
    assert len(arrived) == 1


@pytest.mark.attack("page-cross-site-websocket")
@pytest.mark.parametrize(
    "headers",
    [
        (("Origin", "https://evil.example"),),
        (("Origin", "https://mcp.example.test"),),
        (("Origin", "null"),),
        (),
        (("Sec-Fetch-Site", "same-origin"),),
        (("Origin", ORIGIN), CROSS),
        (("Origin", ORIGIN), SAME_SITE),
    ],
)
def test_no_other_site_opens_a_web_socket(
    running: Running, headers: tuple[tuple[str, str], ...]
) -> None:
    """A WebSocket knows no CORS: the Origin has to be the page's own."""
    with running.upgraded(cookie(running.session()), *headers) as (_, answer):
        assert answer.status == 403
    assert running.page.arrived == []


@pytest.mark.attack("page-cross-site-websocket")
def test_nothing_else_is_upgraded(running: Running) -> None:
    """On a page's routes only to a WebSocket, on the gateway's to nothing."""
    sent = cookie(running.session())
    headers = [("Connection", "Upgrade"), ("Upgrade", "tcp"), ("Origin", ORIGIN), sent]
    assert running.send("GET", "/", *headers).status in {400, 403, 426}
    gateway = running.send("GET", "/files", *UPGRADE, sent, host=GATEWAY)
    assert gateway.status in {400, 401, 403}
    assert running.page.arrived == []
    assert running.files.arrived == []


def test_events_stream(running: Running) -> None:
    """An event arrives before the next one is sent."""
    sent = cookie(running.session())
    with running.send.connect() as sock:
        lines = ["GET /stream HTTP/1.1", f"Host: {HOST}", ": ".join(sent), "", ""]
        sock.sendall("\r\n".join(lines).encode())
        received = b""
        while b"first" not in received:
            received += sock.recv(4096)
        assert b"second" not in received
        running.page.go_on.set()
        while b"second" not in received:
            received += sock.recv(4096)


@pytest.mark.attack("page-sets-our-cookie")
def test_an_upstream_sets_none_of_our_cookies(running: Running) -> None:
    """It sets its own, as many as it likes."""
    running.page.sets = (
        "__Host-authz-session=evil; Path=/; Secure",
        "__host-AUTHZ-browser=evil; Path=/; Secure",
        " __Host-authz-csrf-1=evil; Path=/; Secure",
        "authelia_session=evil; Domain=example.test",
        # Without a name: browsers send the value alone, which reads as a cookie of that name.
        "=__Host-authz-session=evil; Path=/; Secure",
        " = authelia_session=evil; Domain=example.test",
        "grafana_session=1; HttpOnly",
        "theme=dark",
    )
    answer = running.send("GET", "/", cookie(running.session()), *SCRIPT)
    assert answer.values("set-cookie") == ["grafana_session=1; HttpOnly", "theme=dark"]


PATHS = (
    "/files", "/files/", "/token", "/authorize", "/register", "/revoke", "/authz/log-ins",
    "/authz/page", "/authz/admin", "/authz/consent", "/authz/page/session/x", "/authz/",
    "/authz/../authz/log-ins",
    "/x/../authz/log-ins", "//authz/log-ins", "/%61uthz/log-ins", "/authz%2flog-ins",
    "/authz/page/../log-ins", "/AUTHZ/log-ins", "/authz;/log-ins",
    "/.well-known/oauth-protected-resource/files",
)  # fmt: skip


@pytest.mark.attack("page-apart", "path-games")
@pytest.mark.parametrize("path", PATHS)
def test_no_path_of_a_page_leads_to_mcp_or_to_the_log_in(running: Running, path: str) -> None:
    """On a page's host there are the page and two paths of ours, however a path is spelled."""
    sent = cookie(running.session())
    running.send("GET", path, sent, *SCRIPT)
    running.send("POST", path, sent, ("Origin", ORIGIN), ("Authorization", "Bearer a"), body=b"{}")
    assert running.files.arrived == running.front_door.arrived == []


@pytest.mark.attack("page-apart", "path-games")
@pytest.mark.parametrize(
    "path", ["/authz/", "/authz/log-ins", "//authz/x", "/x/../authz/admin", "/%61uthz/x"]
)
def test_our_own_paths_are_nobody_s_on_a_page_s_host(running: Running, path: str) -> None:
    """A web interface is not asked below the path of our pages: nothing there passes for ours."""
    answer = running.send("GET", path, cookie(running.session()), *NAVIGATION)
    assert answer.status == 404
    assert running.page.arrived == []


@pytest.mark.attack("page-apart", "path-games")
@pytest.mark.parametrize(
    "path", ["/", "/prom", "/prom/", "/d/a", "/files/../prom", "/files", "/api/x"]
)
def test_no_path_of_the_gateway_leads_to_a_page(running: Running, path: str) -> None:
    """A session's cookie opens nothing at the gateway, nor under a name that is nobody's."""
    for host in (GATEWAY, "other.example.test", f"{HOST}.evil.example", "prom"):
        sent = cookie(running.session(origin=f"https://{GATEWAY}"))
        for headers in (SCRIPT, (*NAVIGATION, ("X-Forwarded-Host", HOST))):
            running.send("GET", path, sent, *headers, host=host)
    assert running.page.arrived == running.prom.arrived == []
    assert running.files.arrived == []


@pytest.mark.attack("page-apart", "path-games")
@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("/prom", "/prom"), ("/prom/", "/prom/"), ("/prom/../prom/x", "/prom/x"), ("/promx", None),
        ("/", None), ("/prom%2fx", None), ("/prom/..", None), ("/PROM", None), ("//prom", "/prom"),
    ],
)  # fmt: skip
def test_a_page_below_a_path_has_that_path_alone(
    running: Running, path: str, arrives: str | None
) -> None:
    """What was judged is what arrives."""
    sent = cookie(running.session(origin=f"https://{SHARED}"))
    running.send("GET", path, sent, *SCRIPT, host=SHARED)
    expected = [] if arrives is None else [f"GET {arrives} HTTP/1.1"]
    assert [each.line for each in running.prom.arrived] == expected


def test_what_is_ours_on_a_page_s_host(running: Running) -> None:
    """The two paths of the log-in get our cookies alone, and the host that Envoy says."""
    for path in ("/authz/page/session?code=x", "/authz/page/log-out"):
        running.send(
            "GET", path, cookie("t" * 43, "grafana_session=g"), ("X-Forwarded-Host", "evil"),
            ("Authorization", "Bearer a"), *NAVIGATION,
        )  # fmt: skip
    assert [each.path for each in running.front_door.arrived] == [
        "/authz/page/session?code=x", "/authz/page/log-out",
    ]  # fmt: skip
    for each in running.front_door.arrived:
        assert each.values("cookie") == [f"__Host-authz-session={'t' * 43}"]
        assert each.values("x-forwarded-host") == [HOST]
        assert each.values("authorization") == []


def test_over_http_2(running: Running) -> None:
    """Cookies come in several fields there (RFC 9113, section 8.2.3)."""
    token = running.session()
    fields = (
        (":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/a"),
        ("cookie", "a=1"), ("cookie", f"__Host-authz-session={token}"), ("cookie", "b=2"), *(
            (name.lower(), value) for name, value in SCRIPT
        ),
    )  # fmt: skip
    answer = http2(replace(running.send, tls=tls("h2")), *fields)
    assert answer.status == 200
    assert running.page.arrived[0].values("cookie") == ["a=1; b=2"]


def test_envoy_tells_which_upstream_it_does_not_reach(running: Running) -> None:
    """By its own figures: away as long as connections fail, well from the first that is made."""
    sent = cookie(running.session(origin=f"https://{SHARED}"))
    assert running.health()["page gone"] == "unused"
    assert running.send("GET", "/prom", sent, *SCRIPT, host=SHARED).status == 200
    assert running.send("GET", "/gone", sent, *SCRIPT, host=SHARED).status == 503
    found = running.health()
    assert (found["page prom"], found["page gone"]) == ("well", "away")
    assert found["server files"] in {"unused", "well"}
    with page_upstream(running.folder / "gone"):
        assert running.send("GET", "/gone", sent, *SCRIPT, host=SHARED).status == 200
        assert running.health()["page gone"] == "well"


def test_metrics_have_pages_of_the_configuration_alone(running: Running) -> None:
    """No caller chooses a label."""
    running.send("GET", "/", *SCRIPT, host=f"x{HOST}")
    running.send("GET", "/", *SCRIPT)
    counter = running.recorder.metrics.registry
    samples = [each for metric in counter.collect() for each in metric.samples]
    pages = {each.labels["page"] for each in samples if each.name == "authz_page_decisions_total"}
    assert pages <= {"grafana", "prom", "gone"}

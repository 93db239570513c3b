"""What one address can hold of Envoy while others want to be served, through a real Envoy.

Unfinished requests of one address are answered, refused or dropped before they take the
memory from which Envoy refuses everybody.
"""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from authz.config.endpoints import Unix
from authz.envoy.render import Topology, render
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.gateway import GATEWAY, GOOD, PORTAL, Gateway
from tests.support.wild_client import WildClient, is_json_rpc_error

FLOOD = 1050
# Of each unfinished body; all of them together are more than the memory below.
SENT = 128 * 1024
MEMORY = 112 << 20
SETTINGS = """
issuer: {url: https://auth.example.test}
gateway:
  url: https://mcp.example.test
  listen: 127.0.0.1:0
  address_rate: 1000000/second
  address_calls: 1000000/second
servers: {files: {upstream: http://files:8000/mcp}}
"""
ATTACKER = "127.0.0.2"
_SOMEWHERE = "/somewhere"


@dataclass(frozen=True, slots=True)
class StrangersSite:
    """Hold an Envoy with little memory, and a client of 127.0.0.1."""

    envoy: RunningEnvoy
    authz: edge.Authz
    files: edge.EdgeUpstream
    client: WildClient
    port: int

    def begin(self, *headers: str) -> socket.socket:
        """Begin a POST from the attacker's address that will never be whole."""
        lines = ["POST /files HTTP/1.1", f"Host: {GATEWAY}", "Content-Length: 1000000", *headers]
        sock = socket.create_connection(
            ("127.0.0.1", self.port), timeout=60, source_address=(ATTACKER, 0)
        )
        with suppress(OSError):  # answered and closed before all of it was sent
            sock.sendall("\r\n".join((*lines, "", "")).encode() + bytes(SENT))
        return sock

    def overloaded(self) -> int:
        """Return how many requests Envoy refused for want of memory."""
        stat = "http.gateway.downstream_rq_overload_close"
        return int(self.envoy.ask(f"/stats?filter=^{stat}$").rpartition(":")[2])


@pytest.fixture
def site() -> Iterator[StrangersSite]:
    with running(SETTINGS) as site:
        yield site


@pytest.fixture
def tight() -> Iterator[StrangersSite]:
    """An edge on which an address has a budget of three large bodies."""
    with running(SETTINGS.replace("servers", "  address_bodies: 3/hour\nservers")) as site:
        yield site


@pytest.fixture
def narrow() -> Iterator[StrangersSite]:
    """An edge that passes three requests at a time to a server."""
    with running(SETTINGS, ("max_requests: 4096", "max_requests: 3")) as site:
        yield site


@cache
def somewhere(text: str, memory: int) -> str:
    """Return the rendered configuration of some folder: to render takes a second of CPU."""
    where = Topology(
        authz=(Unix(f"{_SOMEWHERE}/check"),),
        admin=f"{_SOMEWHERE}/admin",
        folder=_SOMEWHERE,
        upstreams={"files": Unix(f"{_SOMEWHERE}/files")},
        memory=memory,
    )
    (rendered,) = render(edge.patient_settings(text), where).values()
    return rendered


@contextmanager
def running(
    text: str, change: tuple[str, str] = ("", ""), memory: int = MEMORY
) -> Iterator[StrangersSite]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        files, _ = stack.enter_context(edge.upstream(folder / "files"))
        rendered = {"envoy.yaml": somewhere(text, memory).replace(_SOMEWHERE, str(folder))}
        rendered["envoy.yaml"] = rendered["envoy.yaml"].replace(*change)
        authz = stack.enter_context(edge.authz(f"unix:{folder}/check"))
        envoy = stack.enter_context(running_envoy(rendered, folder, folder / "admin"))
        envoy.wait_for("cluster.authz.membership_healthy", 1)
        port = envoy.port("gateway")
        yield StrangersSite(envoy, authz, files, WildClient(port, GATEWAY), port)


def first_line(sock: socket.socket, patience: float) -> bytes:
    """Return the status line of an answer; nothing where none has come."""
    sock.settimeout(patience)
    try:
        return sock.recv(12)
    except OSError:
        return b""


@pytest.mark.attack("unfinished-bodies")
@pytest.mark.parametrize("header", [(), ("Authorization: Basic eA==",), ("Authorization: Bearer",)])
def test_a_request_without_a_token_is_answered_before_its_body(
    site: StrangersSite, header: tuple[str, ...]
) -> None:
    """401 at once, whatever scheme stands there; nobody waits for what may never come."""
    with site.begin(*header) as sock:
        assert first_line(sock, 60) == b"HTTP/1.1 401"
    assert site.authz.last.body == b""


@pytest.mark.attack("unfinished-bodies")
@pytest.mark.parametrize("header", [(), ("Authorization: Bearer made.up",)], ids=["none", "junk"])
def test_unfinished_bodies_of_one_address_stop_nobody_else(
    site: StrangersSite, header: tuple[str, ...]
) -> None:
    """1,050 at once; another address is answered meanwhile, also with a large body."""
    with ExitStack() as stack:
        for _ in range(FLOOD):
            stack.enter_context(site.begin(*header))
        answers = [site.client("POST", "/files", GOOD, body=b"x" * 200_000) for _ in range(5)]

    assert [answer.status for answer in answers] == [200] * 5
    assert site.overloaded() == 0


def test_large_bodies_of_one_address_are_counted_and_small_ones_are_not(
    tight: StrangersSite,
) -> None:
    """Past its budget an address is told to wait; its small messages pass, and so do others."""
    large, small = [
        [tight.client("POST", "/files", GOOD, body=b"x" * size) for _ in range(4)]
        for size in (10_000, 9_999)
    ]

    assert [answer.status for answer in large] == [200] * 3 + [429]
    assert [answer.status for answer in small] == [200] * 4
    assert is_json_rpc_error(large[-1])
    assert large[-1].header("retry-after") == "1200"
    with tight.begin(f"{GOOD[0]}: {GOOD[1]}") as sock:  # of another address
        assert first_line(sock, 0.2) == b""


@pytest.mark.attack("unfinished-bodies")
@pytest.mark.parametrize("line", ["Content-Length: 10000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_a_body_of_another_method_is_not_held(tight: StrangersSite, method: str, line: str) -> None:
    """GET and DELETE have none: more than a byte of it is refused while it comes."""
    head = f"{method} /files HTTP/1.1\r\nHost: {GATEWAY}\r\n{GOOD[0]}: {GOOD[1]}\r\n{line}\r\n\r\n"
    with tight.client.connect() as sock:
        sock.sendall(head.encode() + b"5\r\n12345\r\n")
        assert first_line(sock, 60) == b"HTTP/1.1 413"
    assert tight.authz.checks == []


def test_what_has_no_body_is_no_large_one(tight: StrangersSite) -> None:
    """Streams and ends of sessions cost nothing of the budget."""
    for method in ("GET", "DELETE") * 3:
        assert tight.client(method, "/files", GOOD).status == 200
    assert tight.client("POST", "/files", GOOD, body=b"x" * 10_000).status == 200


@pytest.mark.attack("open-streams")
def test_beyond_a_servers_streams_the_answer_is_at_once(narrow: StrangersSite) -> None:
    """Where all that a server may have are open, the next request does not wait in silence."""
    head = f"GET /files?stream HTTP/1.1\r\nHost: {GATEWAY}\r\n{GOOD[0]}: {GOOD[1]}\r\n\r\n"
    narrow.files.go_on.clear()
    with ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(narrow.client.connect())
            sock.sendall(head.encode())
            assert first_line(sock, 60) == b"HTTP/1.1 200"
        answer = narrow.client("POST", "/files", GOOD, body=b"{}")
        narrow.files.go_on.set()

    assert answer.status == 503
    assert is_json_rpc_error(answer)
    assert answer.header("retry-after") == "5"


@pytest.mark.attack("a client that names the cluster of the route without a token")
@pytest.mark.parametrize("name", ["x-authz-nowhere", "x_authz_nowhere"])
def test_no_client_can_name_a_server_for_the_route_without_a_token(
    site: StrangersSite, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Envoy chooses the cluster before it strips what clients say. Were a request allowed there,
    whose body authz has not seen, it would still arrive at nobody.
    """
    basic = ("Authorization", "Basic eA==")
    monkeypatch.setitem(edge._ALLOWED, basic[1], edge._ALLOW)

    answer = site.client("POST", "/files", basic, (name, "mcp:files"), body=b"{}")

    assert answer.status == (400 if "_" in name else 503)
    assert site.files.arrived == []


PASSWORDS = (
    "/api/firstfactor", "/api/secondfactor/password", "/api/reset-password",
    "/api/change-password", "/api/authz/auth-request", "/api/verify",
)  # fmt: skip


@pytest.mark.attack("many-passwords")
@pytest.mark.parametrize("path", PASSWORDS)
def test_few_passwords_are_hashed_at_a_time(gateway: Gateway, path: str) -> None:
    """64 MiB each at Authelia: the fifth is turned away at once, and everything else is served."""
    issuer = gateway.servers["issuer"]
    head = f"GET /api/firstfactor?stream HTTP/1.1\r\nHost: {PORTAL}\r\n\r\n"
    issuer.go_on.clear()
    with ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(gateway.portal.connect())
            sock.sendall(head.encode())
            assert first_line(sock, 60) == b"HTTP/1.1 200"
        refused = gateway.portal("POST", path, body=b"{}")
        page = gateway.portal("GET", "/api/state")
        issuer.go_on.set()

    assert (refused.status, refused.header("retry-after")) == (503, "5")
    assert (refused.header("content-type") or "").startswith("text/plain")
    assert page.status == 200

"""Behind another proxy, with tight limits and a dead worker, through a real Envoy of its own.

An address counts as the trusted proxy says it; a flood, a stream and an absent service all
end in refusals that MCP clients show.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from authz.config.endpoints import Tcp, Unix
from authz.envoy.render import Topology, render
from authz.envoy.response_details import cause_of
from authz.telemetry.log_reader import find_request
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.gateway import GATEWAY, GOOD, ORIGIN
from tests.support.wild_client import WildAnswer, WildClient, is_json_rpc_error, read

METADATA = "/.well-known/oauth-protected-resource"
QUOTA = 3
SETTINGS = """
issuer: {url: https://auth.example.test}
gateway:
  url: https://mcp.example.test
  listen: 127.0.0.1:0
  trusted_hops: 1
  origins: [https://inspector.example.test]
  max_stream: 3s
  request_timeout: 1s
  address_rate: 3/minute
  address_calls: 3/minute
servers: {files: {upstream: http://files:8000/mcp}}
"""


@dataclass(frozen=True, slots=True)
class Plain:
    """Hold the parts of this deployment, and what was answered before authz came up."""

    envoy: RunningEnvoy
    authz: edge.Authz
    files: edge.EdgeUpstream
    client: WildClient
    before: WildAnswer
    reached_before: int

    def cause(self, answer: WildAnswer) -> str:
        """Return what the access log says of an answer."""
        (request_id,) = answer.values("x-request-id")
        lines = [json.dumps(entry).encode() for entry in self.envoy.access_log(request_id)]
        found = find_request(lines, request_id).access
        assert found is not None
        return cause_of(str(found.record["details"]), str(found.record["flags"])).name

    def post(self, address: str, *headers: tuple[str, str]) -> WildAnswer:
        """POST with a good token, from an address as the proxy in front says it."""
        return self.client(
            "POST", "/files", GOOD, ("X-Forwarded-For", address), *headers, body=b"{}"
        )


@pytest.fixture(scope="module")
def plain() -> Iterator[Plain]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        files, port = stack.enter_context(edge.upstream(("127.0.0.1", 0)))
        where = Topology(
            authz=(Unix(f"{folder}/check"), Unix(f"{folder}/dead")),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={"files": Tcp("127.0.0.1", port)},
        )
        rendered = render(edge.patient_settings(SETTINGS), where)
        envoy = stack.enter_context(running_envoy(rendered, folder, folder / "admin"))
        client = WildClient(envoy.port("gateway"), GATEWAY)
        origin = ("Origin", ORIGIN)
        before = client("POST", "/files", GOOD, origin, body=b"{}")
        reached = len(files.arrived)
        authz = stack.enter_context(edge.authz(f"unix:{folder}/check"))
        envoy.wait_for("cluster.authz.membership_healthy", 1)
        yield Plain(envoy, authz, files, client, before, reached)


def test_without_authz_nothing_passes(plain: Plain) -> None:
    """While no worker answers every request is refused in words, readable by browsers."""
    assert plain.before.status == 503
    assert is_json_rpc_error(plain.before)
    assert plain.before.header("access-control-allow-origin") == ORIGIN
    assert plain.reached_before == 0
    assert plain.cause(plain.before) == "authz_unavailable"


def test_a_dead_worker_is_not_asked(plain: Plain) -> None:
    """Health checks keep requests away from a worker that does not answer."""
    answers = [plain.post(f"192.0.2.{last}").status for last in range(20)]

    assert answers == [200] * 20


@pytest.mark.attack("forged-address")
@pytest.mark.parametrize("forged", ["6.6.6.6", "6.6.6.6, 7.7.7.7", "::1", "unknown"])
def test_only_the_trusted_proxys_word_counts(plain: Plain, forged: str) -> None:
    """With one trusted hop the last address counts; what the client wrote before it does not."""
    plain.files.arrived.clear()
    address = f"198.51.100.{len(forged)}"
    plain.post(f"{forged}, {address}", ("X-Forwarded-Proto", "http"))

    (request,) = plain.files.arrived
    assert plain.authz.last.headers["x-envoy-external-address"] == address
    assert request.values("x-forwarded-for") == [address]
    assert request.values("x-forwarded-proto") == ["https"]


@pytest.mark.attack("address-flood")
def test_a_flood_from_one_address_is_refused_before_authz(plain: Plain) -> None:
    """Past its quota an address gets 429 in JSON-RPC, and authz hears nothing of it."""
    allowed = [plain.post("203.0.113.1").status for _ in range(QUOTA)]
    asked = len(plain.authz.checks)
    answer = plain.post("203.0.113.1", ("Origin", ORIGIN))

    assert allowed == [200] * QUOTA
    assert answer.status == 429
    assert is_json_rpc_error(answer)
    assert answer.header("retry-after") == "20"
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert len(plain.authz.checks) == asked
    assert plain.cause(answer) == "rate_limited_at_the_edge"
    assert plain.post("203.0.113.2").status == 200


@pytest.mark.attack("forged-address")
def test_a_network_of_ipv6_counts_as_one_address(plain: Plain) -> None:
    """Who turns through the addresses of a /64 has one quota; the next /64 has its own."""
    answers = [plain.post(f"2001:db8:0:1::{last}").status for last in range(QUOTA + 1)]

    assert answers == [200] * QUOTA + [429]
    assert plain.post("2001:db8:0:2::1").status == 200


def test_documents_are_never_limited(plain: Plain) -> None:
    """Clients give up on a 429 of a well-known path."""
    flood = [("X-Forwarded-For", "203.0.113.9")]
    paths = [METADATA, f"{METADATA}/files", "/.well-known/oauth-authorization-server"] * QUOTA
    answers = {plain.client("GET", path, *flood).status for path in paths}

    assert answers == {200, 404}


def test_preflights_are_not_counted(plain: Plain) -> None:
    """A page may ask before each of its requests."""
    asks = (("Origin", ORIGIN), ("Access-Control-Request-Method", "POST"))
    address = ("X-Forwarded-For", "203.0.113.20")
    answers = [plain.client("OPTIONS", "/files", *asks, address).status for _ in range(QUOTA + 2)]

    assert set(answers) == {200}
    assert plain.post("203.0.113.20").status == 200


@pytest.mark.attack("stream-outlives-token")
def test_a_stream_ends_by_its_maximum(plain: Plain) -> None:
    """What was open when a token expired is cut, however much the server would still send."""
    plain.files.go_on.clear()
    head = f"GET /files?stream HTTP/1.1\r\nHost: {GATEWAY}\r\n{GOOD[0]}: {GOOD[1]}\r\n\r\n"
    began = time.monotonic()
    with plain.client.connect() as sock:
        assert read(sock, head.encode()).status == 0
    plain.files.go_on.set()

    # Of the server nothing more would come for 30 seconds.
    assert 2.9 < time.monotonic() - began < 25


@pytest.mark.attack("unfinished-bodies")
def test_a_body_that_does_not_arrive_is_not_waited_for(plain: Plain) -> None:
    """After `request_timeout` the request is over, in words; a stream's answer may take longer."""
    head = f"POST /files HTTP/1.1\r\nHost: {GATEWAY}\r\n{GOOD[0]}: {GOOD[1]}\r\n"
    head += "X-Forwarded-For: 203.0.113.30\r\nContent-Length: 9\r\n\r\n{"
    with plain.client.connect() as sock:
        answer = read(sock, head.encode())

    assert answer.status == 408
    assert is_json_rpc_error(answer)
    assert plain.cause(answer) == "request_timeout"

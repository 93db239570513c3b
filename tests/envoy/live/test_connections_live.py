"""Streams, TLS and logs, through the real Envoy.

Events pass as they come, no log holds a secret.
"""

import json
import ssl
import threading
import time
from dataclasses import replace

import httpx
import pytest

from authz.core.answers import UpstreamChanges
from tests.support.gateway import (
    GATEWAY,
    GOOD,
    ORIGIN,
    PORTAL,
    SETTINGS,
    Gateway,
    running_gateway,
    tls,
)
from tests.support.wild_client import is_json_rpc_error, read


def test_events_pass_as_they_come(gateway: Gateway) -> None:
    """A stream is not buffered: the first event is read while the second is not yet sent."""
    server = gateway.servers["files"]
    server.go_on.clear()
    with (
        gateway.well_behaved() as client,
        client.stream("GET", "/files?stream", headers=[GOOD]) as answer,
    ):
        events = answer.iter_bytes()
        assert next(events) == b"data: first\n\n"
        server.go_on.set()
        assert next(events) == b"data: second\n\n"


def test_both_versions_of_http_are_offered(gateway: Gateway) -> None:
    """ALPN offers h2 and http/1.1."""
    offered = []
    for protocol in ("h2", "http/1.1"):
        with replace(gateway.send, tls=tls(protocol)).connect() as sock:
            assert isinstance(sock, ssl.SSLSocket)
            offered.append((sock.selected_alpn_protocol(), sock.version()))

    assert offered == [("h2", "TLSv1.3"), ("http/1.1", "TLSv1.3")]


def test_older_tls_is_refused(gateway: Gateway) -> None:
    """TLS 1.2 is not spoken unless the settings say so."""
    old = tls("http/1.1")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
        replace(gateway.send, tls=old).connect(),
    ):
        pass


@pytest.mark.attack("token-in-query")
def test_the_access_log_holds_no_secret(gateway: Gateway) -> None:
    """Path without query, no token, no cookie; enough to find a request again."""
    secrets = ["tok3n", "c00kie", "qu3ry"]
    cookie = ("Cookie", "s=c00kie")
    with gateway.logged() as log:
        token = ("Authorization", "Bearer tok3n")
        answer = gateway.send("POST", "/files?access_token=qu3ry", token, cookie, body=b"{}")
        gateway.send("POST", "/files?x=qu3ry", GOOD, cookie, body=b"{}")
        gateway.portal("GET", "/consent?code=qu3ry", cookie)
    denied, allowed, page = log

    assert not any(secret in json.dumps([denied, allowed, page]) for secret in secrets)
    assert denied["request_id"] == answer.header("x-request-id")
    assert (denied["status"], denied["details"], denied["path"]) == (
        401,
        "ext_authz_denied",
        "/files",
    )
    assert (allowed["route"], allowed["host"], allowed["path"]) == ("mcp:files", GATEWAY, "/files")
    assert (page["route"], page["host"], page["path"]) == ("portal", PORTAL, "/consent")
    assert denied["address"] == "127.0.0.1"


def test_the_admin_interface_is_on_a_socket_of_its_owner_alone(gateway: Gateway) -> None:
    """Envoy listens on its two ports and nowhere else; its admin socket has mode 0600."""
    mode = gateway.envoy.admin.stat().st_mode & 0o777
    listeners = json.loads(gateway.envoy.ask("/listeners?format=json"))["listener_statuses"]

    assert mode == 0o600
    assert sorted(listener["name"] for listener in listeners) == ["gateway", "redirect"]


def test_headers_beyond_all_bounds_are_refused_in_words(gateway: Gateway) -> None:
    """More than 32 KiB of headers are 431 in JSON-RPC."""
    answer = gateway.send("POST", "/files", ("x-long", "x" * 40_000), body=b"{}")

    assert answer.status == 431
    assert is_json_rpc_error(answer)


def test_a_server_that_is_away_is_said_to_be(gateway: Gateway) -> None:
    """Envoy's 503 for an upstream is JSON-RPC, says when to come back, and no address."""
    answer = gateway.send("POST", "/gone", GOOD, ("Origin", ORIGIN), body=b"{}")

    assert answer.status == 503
    assert is_json_rpc_error(answer)
    assert "server_unavailable" in answer.body.decode()
    assert str(gateway.folder) not in answer.body.decode()
    assert answer.header("retry-after") == "5"
    assert answer.header("access-control-allow-origin") == ORIGIN


def test_an_unanswered_question_is_a_refusal() -> None:
    """Where authz does not answer in its deadline the request is refused in words, with 503."""
    hurried = SETTINGS.replace("  serve: true\n", "  serve: true\n  deadline: 300ms\n", 1)
    with running_gateway(settings=hurried) as gateway:
        gateway.authz.hold = threading.Event()
        try:
            answer = gateway.send("POST", "/files", GOOD, body=b"{}")
        finally:
            gateway.authz.hold.set()

        assert answer.status == 503
        assert is_json_rpc_error(answer)
        assert answer.header("retry-after") == "5"
        assert gateway.arrived()["files"] == 0


@pytest.mark.attack("stream-outlives-token")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_stream_ends_when_authz_said(gateway: Gateway, method: str) -> None:
    """With what allowed it, over HTTP/2 and HTTP/1.1; the server is not told of the time."""
    server = gateway.servers["files"]
    gateway.authz.allow = UpstreamChanges((), lasts=300)
    server.go_on.clear()
    began = time.monotonic()
    with (
        gateway.well_behaved() as client,
        pytest.raises(httpx.RemoteProtocolError),
        client.stream(method, "/files?stream", headers=[GOOD]) as answer,
    ):
        assert [*answer.iter_bytes()][:1] == [b"data: first\n\n"]
    head = f"{method} /files?stream HTTP/1.1\r\nHost: {GATEWAY}\r\n{GOOD[0]}: {GOOD[1]}\r\n\r\n"
    with gateway.send.connect() as sock:
        assert read(sock, head.encode()).status == 0
    server.go_on.set()

    # Of the server nothing more would come for 30 seconds.
    assert 0.6 <= time.monotonic() - began < 25
    assert len(server.arrived) == 2
    assert not any(request.values("x-envoy-upstream-rq-timeout-ms") for request in server.arrived)


def test_a_server_that_is_slower_than_the_token_lasts_is_told_in_words(gateway: Gateway) -> None:
    """A call that has no answer yet when its token expires is a 504 in JSON-RPC."""
    server = gateway.servers["files"]
    gateway.authz.allow = UpstreamChanges((), lasts=200)
    server.raw = b"HTTP/1.1 100 Continue\r\n\r\n"
    answer = gateway.send("POST", "/files", GOOD, body=b"{}")

    assert answer.status in {503, 504}
    assert is_json_rpc_error(answer)

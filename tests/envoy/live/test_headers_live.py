"""What a request cannot bring along, through the real Envoy.

Who asks, from where, and for what is said by Envoy and authz alone; cookies and tokens stay
at the gateway.
"""

from dataclasses import replace

import pytest

from authz.core.answers import UpstreamChanges as Changes
from tests.support.gateway import GATEWAY, GOOD, ORIGIN, Gateway, tls
from tests.support.wild_client import http2

IDENTITY = ["subject", "client", "issuer", "scopes", "groups", "server", "request-id", "anything"]


@pytest.mark.attack("spoofed-identity")
@pytest.mark.parametrize("hop", [False, True], ids=["plain", "hop-by-hop"])
@pytest.mark.parametrize("name", IDENTITY)
def test_what_a_client_says_of_its_identity_reaches_nobody(
    gateway: Gateway, name: str, *, hop: bool
) -> None:
    """x-authz- headers come from authz or not at all, in any case, doubled, or hop by hop."""
    spellings = (f"X-Authz-{name}", f"x-authz-{name}", f"X-AUTHZ-{name.upper()}")
    headers = [(spelling, "evil") for spelling in spellings]
    if hop:
        headers.append(("Connection", f"keep-alive, x-authz-{name}"))
    gateway.send("POST", "/files", GOOD, *headers, body=b"{}")

    (request,) = gateway.servers["files"].arrived
    expected = ["from-authz"] if name == "subject" else []
    assert request.values(f"x-authz-{name}") == expected
    assert "evil" not in str(request.headers)
    assert "evil" not in str(gateway.authz.last.headers)


@pytest.mark.attack("spoofed-identity")
@pytest.mark.parametrize("name", ["x_authz_subject", "X-Authz_Subject", "content_length"])
def test_a_name_with_an_underscore_is_refused(gateway: Gateway, name: str) -> None:
    """`_` and `-` are the same to many servers, so the one is not forwarded."""
    answer = gateway.send("POST", "/files", GOOD, (name, "evil"), body=b"{}")

    assert answer.status == 400
    assert gateway.arrived()["files"] == 0


@pytest.mark.attack("doubled-header")
@pytest.mark.parametrize("name", ["mcp-name", "mcp-session-id"])
@pytest.mark.parametrize(
    ("values", "joined"),
    [(("a", "b"), "a,b"), (("a", "a"), "a,a"), (("a,b",), "a,b"), (("a", "b,c"), "a,b,c")],
    ids=str,
)
def test_the_header_that_was_judged_is_the_one_that_arrives(
    gateway: Gateway, name: str, values: tuple[str, ...], joined: str
) -> None:
    """Envoy tells of two headers as one value; the server gets that value, and it alone."""
    gateway.authz.allow = Changes((), judged=((name, joined),))
    spellings = (name, name.title(), name.upper())
    sent = zip(spellings, values, strict=False)
    gateway.send("POST", "/files", GOOD, *sent, body=b"{}")

    (request,) = gateway.servers["files"].arrived
    assert gateway.authz.last.headers[name] == joined
    assert request.values(name) == [joined]


@pytest.mark.attack("doubled-header")
@pytest.mark.parametrize("over", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(
    "name",
    ["mcp-method", "mcp-protocol-version", "content-type", "content-encoding", "origin"],
)
def test_two_of_any_other_header_that_decides_are_told_with_a_comma(
    gateway: Gateway, name: str, over: str
) -> None:
    """So none of the words that they are compared with is what two of them say."""
    value = ORIGIN if name == "origin" else "x/y"
    if over == "HTTP/2":
        body = b"{}"
        fields = ((":method", "POST"), (":scheme", "https"), (":authority", GATEWAY),
                  (":path", "/files"), GOOD, (name, value), (name, value))  # fmt: skip
        http2(replace(gateway.send, tls=tls("h2")), *fields, body=body)
    else:
        gateway.send("POST", "/files", GOOD, (name, value), (name, value), body=b"{}")

    for check in gateway.authz.checks:
        assert check is None or check.headers[name] == f"{value},{value}"


FOREIGN = [
    "forwarded", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix",
    "x-forwarded-user", "x-forwarded-uri", "x-forwarded-client-cert", "x-real-ip", "x-client-ip",
    "true-client-ip", "x-cluster-client-ip", "cf-connecting-ip", "proxy", "remote-user",
    "remote-groups", "x-envoy-internal", "x-envoy-retry-on", "x-envoy-max-retries",
    "x-envoy-upstream-rq-timeout-ms", "x-envoy-external-address", "x-envoy-auth-partial-body",
    "x-envoy-force-trace", "x-envoy-hedge-on-per-try-timeout", "proxy-authorization",
]  # fmt: skip


@pytest.mark.attack("spoofed-forwarding")
@pytest.mark.parametrize("server", ["files", "issuer"])
def test_only_envoy_says_where_a_request_is_from(gateway: Gateway, server: str) -> None:
    """Headers that speak for proxies, for Envoy or for a log-in are dropped or said anew."""
    client = gateway.portal if server == "issuer" else gateway.send
    client("POST", "/files", GOOD, *((name, "6.6.6.6") for name in FOREIGN), body=b"{}")

    (request,) = gateway.servers[server].arrived
    assert "6.6.6.6" not in str(request.headers)
    assert request.values("x-forwarded-for") == ["127.0.0.1"]
    assert request.values("x-forwarded-host") == [client.host]
    assert request.values("x-forwarded-proto") == ["https"]


@pytest.mark.attack("forged-address")
@pytest.mark.parametrize("forged", ["6.6.6.6", "6.6.6.6, 7.7.7.7", "::1", "127.0.0.2", "unknown"])
@pytest.mark.parametrize("server", ["files", "issuer"])
def test_an_address_is_not_believed_without_a_trusted_proxy(
    gateway: Gateway, server: str, forged: str
) -> None:
    """With no trusted hop the peer's own address counts, for authz and for Authelia."""
    client = gateway.portal if server == "issuer" else gateway.send
    client("POST", "/files", GOOD, ("X-Forwarded-For", forged), body=b"{}")

    (request,) = gateway.servers[server].arrived
    assert request.values("x-forwarded-for") == ["127.0.0.1"]
    assert request.values("x-envoy-external-address") == []
    if server == "files":
        assert gateway.authz.last.headers["x-envoy-external-address"] == "127.0.0.1"


def test_a_request_id_is_never_the_clients(gateway: Gateway) -> None:
    """Each request gets a fresh id, the same for authz, the server and the client."""
    answer = gateway.send("POST", "/files", GOOD, ("X-Request-Id", "mine"), body=b"{}")

    (request,) = gateway.servers["files"].arrived
    assert answer.header("x-request-id") == gateway.authz.last.request_id != "mine"
    assert request.values("x-request-id") == [gateway.authz.last.request_id]


@pytest.mark.attack("cookies")
def test_cookies_pass_neither_way_on_mcp_routes(gateway: Gateway) -> None:
    """The person's session at Authelia reaches neither authz nor a server, which sets none."""
    answer = gateway.send("POST", "/files", GOOD, ("Cookie", "authelia_session=s"), body=b"{}")

    (request,) = gateway.servers["files"].arrived
    assert request.values("cookie") == answer.values("set-cookie") == []
    assert "cookie" not in gateway.authz.last.headers


def test_the_token_reaches_authz_and_nobody_else(gateway: Gateway) -> None:
    """The router takes the credentials away, also where authz forgets to."""
    gateway.send("POST", "/files", GOOD, ("Origin", ORIGIN), body=b"{}")

    (request,) = gateway.servers["files"].arrived
    assert gateway.authz.last.headers["authorization"] == GOOD[1]
    assert request.values("authorization") == request.values("origin") == []


def test_a_server_is_called_by_its_own_name(gateway: Gateway) -> None:
    """Host is the upstream's: MCP servers refuse foreign ones against DNS rebinding."""
    gateway.send("POST", "/files", GOOD, body=b"{}")
    gateway.send("POST", "/notes", GOOD, body=b"{}")

    hosts = [gateway.servers[name].arrived[0].values("host") for name in ("files", "notes")]
    assert hosts == [["files:8000"], ["notes:8000"]]

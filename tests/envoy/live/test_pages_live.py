"""The front door and the step-up through the real Envoy.

Their paths lead to the pages and nothing else does; nobody asks authz about them; an MCP path
never leads there. What Envoy says in their place is worded for people, or as OAuth has it.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.gateway import (
    GATEWAY,
    GOOD,
    ORIGIN,
    PORTAL,
    SERVERS,
    Gateway,
    running_gateway,
)
from tests.support.wild_client import is_json_rpc_error, preflight

DOOR = "front_door: {key_file: /run/secrets/front-door.pem}\n"
CLOSED = "front_door: {key_file: /k.pem, registration: false, metadata_hosts: []}\n"
PATHS = ("/authorize", "/token", "/revoke", "/register", "/authz/callback", "/authz/log-ins")
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")
AS_METADATA = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    with running_gateway(DOOR) as gateway:
        yield gateway


@pytest.fixture
def door(running: Gateway) -> Gateway:
    """The running gateway with a front door, as if nobody had used it before."""
    running.forget()
    return running


@pytest.fixture(scope="module")
def away() -> Iterator[Gateway]:
    """A gateway whose pages are not there."""
    with running_gateway(CLOSED, pages=False) as gateway:
        yield gateway


@pytest.mark.attack("open-routes")
@pytest.mark.parametrize("path", PATHS)
def test_its_paths_lead_to_the_pages_alone(door: Gateway, path: str) -> None:
    """Every method arrives as it was sent, query and body; authz is asked nothing."""
    for method in METHODS:
        body = b"a=b" if method == "POST" else None
        assert door.send(method, f"{path}?x=1", body=body).status == 200

    arrived = door.servers["pages"].arrived
    assert [request.method for request in arrived] == list(METHODS)
    assert {request.path for request in arrived} == {f"{path}?x=1"}
    assert [request.body for request in arrived if request.method == "POST"] == [b"a=b"]
    assert door.authz.checks == []
    assert sum(door.arrived().values()) == len(METHODS)


@pytest.mark.attack("slow-forms")
def test_a_body_that_comes_slowly_takes_no_place_at_the_pages(door: Gateway) -> None:
    """They are asked once a body is whole; 600 that never are leave them to others."""
    head = f"POST /token HTTP/1.1\r\nHost: {GATEWAY}\r\nContent-Length: 3\r\n\r\na"
    with ExitStack() as stack:
        slow = [stack.enter_context(door.send.connect()) for _ in range(600)]
        for sock in slow:
            sock.sendall(head.encode())
        assert door.send("POST", "/token", body=b"a=b").status == 200
        assert len(door.servers["pages"].arrived) == 1
        slow[0].sendall(b"=b")
        assert slow[0].recv(12) == b"HTTP/1.1 200"
    assert [each.body for each in door.servers["pages"].arrived] == [b"a=b", b"a=b"]


def test_a_body_that_is_too_long_reaches_no_page(door: Gateway) -> None:
    """Envoy refuses it in the words that OAuth clients know."""
    answer = door.send("POST", "/token", body=b"x" * (64 * 1024 + 1))

    assert (answer.status, answer.json()["error"]) == (413, "invalid_request")
    assert door.servers["pages"].arrived == []


ENDPOINTS = (
    "token", "introspection", "revocation", "pushed-authorization-request", "device-authorization",
)  # fmt: skip


@pytest.mark.attack("issuer-buckets")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_stranger_fails_at_the_issuers_endpoints(door: Gateway, endpoint: str) -> None:
    """Failures there are counted per address, so that none reaches it; OAuth clients are told."""
    for method in METHODS:
        assert door.portal(method, f"/api/oidc/{endpoint}").status == 403
    answer = door.portal("POST", f"/api/oidc/{endpoint}?x=1", body=b"grant_type=refresh_token")

    assert (answer.status, answer.json()["error"]) == (403, "unauthorized_client")
    assert answer.values("content-type") == ["application/json"]
    assert answer.values("cache-control") == ["no-store"]
    assert door.arrived()["issuer"] == 0
    assert door.authz.checks == []


@pytest.mark.attack("path-games")
@pytest.mark.parametrize(
    "path",
    [
        "/api/oidc/token/", "/api/oidc/token/x", "/api/oidc//token", "//api/oidc/token",
        "/./api/oidc/token", "/api/oidc/x/../token", "/api/oidc/%2e/token", "/api/oidc/tok%65n",
        "/api/oidc/tok%45n", "/%61pi/oidc/token", "/API/oidc/TOKEN", "/api/oidc/token;x=1",
        "/api/oidc/token%3Fx", "/api/oidc/token%20", "/api/oidc/token.", "/api%2foidc/token",
        "/api/oidc%2Ftoken", "/authelia/api/oidc/token", "/api/oidc/pushed%2dauthorization-request",
        "https://auth.example.test/api/oidc/token", "/api/oidc/token#x", "/api/oidc/token?",
    ],
)  # fmt: skip
def test_no_spelling_of_them_leads_to_the_issuer(door: Gateway, path: str) -> None:
    """Whatever a router behind might take for one of them is answered by Envoy."""
    assert door.portal("POST", path, body=b"a=b").status in {400, 403}
    assert door.arrived()["issuer"] == 0


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api/oidc/authorization", "/api/oidc/consent", "/api/oidc/userinfo", "/jwks.json",
        "/api/firstfactor", "/consent/openid/decision", "/.well-known/openid-configuration",
        "/api/oidc/tokens", "/api/oidc", "/api/token",
    ],
)  # fmt: skip
def test_what_people_need_of_the_issuer_stays(door: Gateway, path: str) -> None:
    """Its pages, what they call, and its documents."""
    assert door.portal("GET", f"{path}?x=1").status == 200
    assert [each.path for each in door.servers["issuer"].arrived] == [f"{path}?x=1"]


OTHER = [
    "/", "/authz", "/authorize/", "/authorize/x", "/token/", "/token/x", "/Token", "/TOKEN",
    "/token;v=1", "/revoke/", "/register/", "/register/x", "/Authz/callback", "/authzx",
    "/authz.html", "/.authz/", "/files/authz/callback", "/files/../token/x", "/files", "/notes",
    "/gone", "/files/token", "/authz/../files", "/authz/..", "/authz/%2e%2e/files",
    "/authz/..%2ffiles", "/authz%2fcallback", "/%61uthz", "/mcp", AS_METADATA, OPENID,
    f"{AS_METADATA}/files", f"{AS_METADATA}/authz/", "/.well-known/x", "*",
]  # fmt: skip


@pytest.mark.attack("path-games")
@pytest.mark.parametrize("path", OTHER)
def test_nothing_else_leads_to_the_pages(door: Gateway, path: str) -> None:
    """No other path, in no spelling, reaches the pages; an MCP server's goes by authz."""
    for method in ("GET", "POST"):
        door.send(method, path, GOOD, body=b"{}" if method == "POST" else None)

    asked = [check.context["server"] for check in door.authz.checks if check]
    assert door.arrived()["pages"] == 0
    assert [name for name in asked if name in SERVERS] == [
        name for name in sorted(SERVERS) for _ in door.servers[name].arrived
    ]


@pytest.mark.attack("path-games")
@pytest.mark.parametrize("path", ["//token", "/./token", "/files/../token", "/authz/../token"])
def test_a_spelling_that_is_the_path_arrives_as_the_path(door: Gateway, path: str) -> None:
    """Slashes are merged and dots resolved before: the pages see one spelling."""
    door.send("POST", path, body=b"")

    assert [request.path for request in door.servers["pages"].arrived] == ["/token"]


@pytest.mark.attack("host-games")
@pytest.mark.parametrize("host", ["evil.example", f"evil.{GATEWAY}", f"{GATEWAY}:8443", PORTAL])
def test_no_other_name_leads_to_the_pages(door: Gateway, host: str) -> None:
    """Cookies and redirects are bound to the gateway's own name."""
    for path in PATHS:
        door.send("GET", path, host=host)

    assert door.arrived()["pages"] == 0


@pytest.mark.attack("spoofed-forwarding")
def test_what_the_pages_are_told_of_who_asks_is_envoys(door: Gateway) -> None:
    """Address, host and scheme are said anew; nothing that speaks for others comes along."""
    names = ("forwarded", "x-forwarded-user", "x-real-ip", "remote-user", "x-authz-subject")
    said = [(name, "6.6.6.6") for name in names]
    said += [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-host", "evil.example")]
    said += [("x-forwarded-proto", "http"), ("x-envoy-external-address", "6.6.6.6")]
    door.send("POST", "/token", *said, body=b"")

    (request,) = door.servers["pages"].arrived
    assert request.values("x-forwarded-for") == ["127.0.0.1"]
    assert request.values("x-forwarded-host") == request.values("host") == [GATEWAY]
    assert request.values("x-forwarded-proto") == ["https"]
    assert "6.6.6.6" not in str(request.headers)


def test_cookies_go_to_the_pages_and_come_from_them(door: Gateway) -> None:
    """A transaction is a cookie; a client's access token has no business at a page."""
    cookie = ("Cookie", "__Host-authz-tx-1=a; theme=dark")
    answer = door.send("GET", "/authz/callback", GOOD, cookie, ("Origin", ORIGIN))

    (request,) = door.servers["pages"].arrived
    assert request.values("cookie") == [cookie[1]]
    assert request.values("origin") == [ORIGIN]
    assert request.values("authorization") == []
    assert len(answer.values("set-cookie")) == 1
    assert answer.header("access-control-allow-origin") == "https://evil.example"  # as they said


@pytest.mark.attack("cookies")
def test_mcp_servers_still_get_no_cookies(door: Gateway) -> None:
    """The cookies of the pages are of the gateway's origin; no server sees or sets one."""
    answer = door.send("POST", "/files", GOOD, ("Cookie", "__Host-authz-tx-1=a"), body=b"{}")

    (request,) = door.servers["files"].arrived
    assert request.values("cookie") == request.values("authorization") == []
    assert answer.values("set-cookie") == []


def test_a_preflight_is_answered_by_the_pages(door: Gateway) -> None:
    """Which origins may read the token endpoint's answer is for the front door to say: any."""
    door.send("OPTIONS", "/token", *preflight("https://anything.example"))

    assert door.arrived()["pages"] == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_its_metadata_is_envoys_to_answer(away: Gateway, method: str) -> None:
    """RFC 8414, readable by any page, and there also while the pages are away."""
    answer = away.send(method, AS_METADATA, ("Origin", "https://anything.example"))

    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.values("access-control-allow-origin") == ["*"]
    if method == "GET":
        document = answer.json()
        assert document["issuer"] == f"https://{GATEWAY}"
        assert document["token_endpoint"] == f"https://{GATEWAY}/token"
        assert "registration_endpoint" not in document  # it is off here
        assert document["client_id_metadata_document_supported"] is False


@pytest.mark.parametrize(
    "path", [OPENID, f"{AS_METADATA}/files", f"{OPENID}/files", f"/files{OPENID}"]
)
def test_metadata_is_nowhere_else(door: Gateway, path: str) -> None:
    """No path is inserted or appended, since the issuer has none; and no ID token is ever given,

    so a document for strict OpenID Connect clients could only be refused by them, or untrue.
    """
    assert door.send("GET", path).status == 404


def test_servers_name_the_gateway_as_their_authorization_server(door: Gateway) -> None:
    """RFC 9728: clients log in where the metadata's `issuer` is, to the letter."""
    for server in ("files", "notes", "gone"):
        document = door.send("GET", f"/.well-known/oauth-protected-resource/{server}").json()
        issuer = door.send("GET", AS_METADATA).json()["issuer"]
        assert document["authorization_servers"] == [issuer]


@pytest.mark.parametrize("path", ["/authorize?a=b", "/authz/callback?code=x", "/authz/log-ins"])
def test_people_read_words_where_the_pages_are_away(away: Gateway, path: str) -> None:
    """A person in a browser reads a sentence, not JSON-RPC."""
    with away.logged() as entries:
        answer = away.send("GET", path)

    assert answer.status == 503
    assert answer.header("content-type") == "text/plain"
    assert answer.header("retry-after") == "5"
    assert b"Try again shortly." in answer.body
    (entry,) = entries
    assert f"Request: {entry['request_id']}\n".encode() in answer.body


@pytest.mark.parametrize("path", ["/token", "/revoke", "/register", "/token?x=1"])
def test_programs_read_an_oauth_error_where_the_pages_are_away(away: Gateway, path: str) -> None:
    """RFC 6749, section 5.2 is the shape; registration that is off is answered by the pages."""
    answer = away.send("POST", path, body=b"grant_type=refresh_token")

    assert answer.status == 503
    assert answer.header("content-type") == "application/json"
    assert answer.header("retry-after") == "5"
    assert answer.json()["error"] == "temporarily_unavailable"
    assert answer.json()["error_description"]


def test_mcp_paths_and_unknown_ones_are_answered_as_ever(away: Gateway) -> None:
    """The words for people and OAuth clients are for the front door's paths alone."""
    gone: Any = away.send("POST", "/gone", GOOD, body=b"{}")
    unknown = away.send("POST", "/tokens", body=b"{}")
    elsewhere = away.send("POST", "/token", host="evil.example", body=b"")

    assert (gone.status, unknown.status, elsewhere.status) == (503, 404, 404)
    assert all(map(is_json_rpc_error, (gone, unknown, elsewhere)))


@pytest.mark.attack("secrets-in-logs")
def test_no_code_or_ticket_is_logged(door: Gateway) -> None:
    """Codes and links come in queries, transactions in cookies: Envoy's log has neither."""
    with door.logged() as log:
        door.send("GET", "/authz/callback?code=s3cret&state=s3cret", ("Cookie", "a=s3cret"))
        door.send("GET", "/authz/step-up?ticket=s3cret")

    assert [entry["path"] for entry in log] == ["/authz/callback", "/authz/step-up"]
    assert "s3cret" not in str(log)


def test_an_address_may_not_flood_the_pages(door: Gateway) -> None:
    """The rate limit per address holds on the pages too; the documents are never refused."""
    limit, unlimited = "envoy.filters.http.local_ratelimit", set()
    for listener in door.table["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        for host in manager["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                if limit in route.get("typed_per_filter_config", {}):
                    unlimited.add(route["name"])

    assert "server-metadata" in unlimited
    assert not any(name.startswith("pages") for name in unlimited)

"""Who reaches what, through the real Envoy.

What no route names reaches nobody; what a route names reaches the one server whose rules
were applied; the routes that are open are counted.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.gateway import GATEWAY, GOOD, PORTAL, SERVERS, Gateway
from tests.support.wild_client import is_json_rpc_error

# Routes that answer without asking authz: these and no others.
OPEN = {
    "preflight", "metadata:files", "metadata:notes", "metadata:gone", "no-document", "register",
    "portal", "https", "https-only", "page", "page:files", "page:notes", "page:gone",
    "portal:passwords",
}  # fmt: skip
METHODS = ("GET", "POST", "DELETE", "PUT", "OPTIONS", "TRACE")


def probes(table: Any) -> Iterator[tuple[str, str, str]]:
    """Walk the rendered route table: every host, and a path of every route."""
    for listener in table["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        for host in manager["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                match = route["match"]
                if "safe_regex" in match:
                    path = "/api/firstfactor"  # of the portal
                else:
                    path = match.get("path") or f"{match['prefix']}anything"
                yield listener["name"], host["domains"][0], path


def is_mcp(route: object) -> bool:
    return isinstance(route, str) and route.startswith("mcp:")


@pytest.mark.attack("open-routes")
def test_what_is_open_without_a_token_is_exactly_known(gateway: Gateway) -> None:
    """Without a token authz is asked or Envoy answers; nobody but the portal is reached."""
    with gateway.logged() as log:
        for listener, host, path in dict.fromkeys(probes(gateway.table)):
            client = gateway.plain if listener == "redirect" else gateway.send
            for method in METHODS:
                client(method, path, host=host)
            client("GET", f"{path}/below?x=1", host=host)
            client("GET", path, ("Accept", "text/html"), host=host)

    assert all(entry["details"] == "ext_authz_denied" for entry in log if is_mcp(entry["route"]))
    answered = {entry["route"] for entry in log if entry["details"] != "ext_authz_denied"}
    assert answered - {None} == OPEN
    assert {entry["details"] for entry in log if entry["route"] is None} == {"route_not_found"}
    assert gateway.arrived()["files"] == gateway.arrived()["notes"] == 0
    assert {check.context["server"] for check in gateway.authz.checks if check} == SERVERS | {
        "gone"
    }


@pytest.mark.parametrize("server", sorted(SERVERS))
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_the_route_says_which_server_a_request_is_for(
    gateway: Gateway, server: str, method: str
) -> None:
    """Authz hears the server's name from the route, and that very server gets the request."""
    answer = gateway.send(method, f"/{server}?q=1", GOOD, body=b"{}" if method == "POST" else None)

    assert answer.status == 200
    assert gateway.authz.last.context["server"] == server
    assert [request.path for request in gateway.servers[server].arrived] == ["/mcp?q=1"]
    assert sum(gateway.arrived().values()) == 1


@pytest.mark.parametrize("server", sorted(SERVERS))
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_slash_at_the_end_leads_to_the_server(gateway: Gateway, server: str, method: str) -> None:
    """What the audience check tolerates the route takes, too; upstream it is the same path."""
    body = b"{}" if method == "POST" else None
    answer = gateway.send(method, f"/{server}/?q=1", GOOD, body=body)

    assert answer.status == 200
    assert gateway.authz.last.context["server"] == server
    assert [request.path for request in gateway.servers[server].arrived] == ["/mcp?q=1"]
    assert sum(gateway.arrived().values()) == 1


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_a_slash_at_the_end_is_challenged(gateway: Gateway, server: str) -> None:
    """Without a token authz answers, as without the slash."""
    assert gateway.send("POST", f"/{server}/", body=b"{}").status == 401
    assert gateway.authz.last.context["server"] == server


def test_the_document_of_a_url_with_a_slash_is_the_servers(gateway: Gateway) -> None:
    """A client inserts the well-known path before the path that it was given, and compares the
    `resource` with that (RFC 9728, section 3.3).
    """
    place = "/.well-known/oauth-protected-resource/files"
    answer = gateway.send("GET", f"{place}/")

    document = gateway.send("GET", place).json()
    assert document["resource"] == f"https://{GATEWAY}/files"
    assert answer.json() == document | {"resource": f"https://{GATEWAY}/files/"}
    assert gateway.send("GET", f"{place}//x").status == 404


BROWSER = ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")


@pytest.mark.parametrize("path", ["/", "/files", "/files/", "/notes?utm=1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_browser_is_told_what_the_address_is(gateway: Gateway, path: str, method: str) -> None:
    """A page that runs nothing, loads nothing, cannot be framed and is not kept."""
    answer = gateway.send(method, path, BROWSER)

    assert answer.status == 200
    assert answer.header("content-type") == "text/html; charset=utf-8"
    policy = answer.header("content-security-policy") or ""
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert answer.header("x-frame-options") == "DENY"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("cache-control") == "no-store"
    assert gateway.authz.checks == []
    assert sum(gateway.arrived().values()) == 0
    if method == "GET":
        name = path.strip("/").partition("?")[0]
        assert (f"{name} is an MCP server" if name else "is an MCP gateway").encode() in answer.body


@pytest.mark.attack("open-routes")
@pytest.mark.parametrize(
    "headers",
    [
        (("Accept", "text/event-stream"),),
        (("Accept", "application/json, text/event-stream"),),
        (BROWSER, ("Accept", "Text/Event-Stream")),
        (("Accept", "text/event-stream"), BROWSER),
        (BROWSER, ("Authorization", "Bearer bad")),
        (BROWSER, ("Authorization", "")),
        (("Accept", "*/*"),),
        (),
    ],
    ids=repr,
)
def test_an_mcp_clients_get_is_judged_as_ever(
    gateway: Gateway, headers: tuple[tuple[str, str], ...]
) -> None:
    """Who takes an event stream, or sends a token of any kind, is no browser that opens a URL."""
    assert gateway.send("GET", "/files", *headers).status == 401
    assert gateway.authz.last.context["server"] == "files"


@pytest.mark.attack("open-routes")
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "OPTIONS"])
def test_a_page_is_for_get_alone(gateway: Gateway, method: str) -> None:
    """Whatever a request accepts: what could act is judged."""
    body = b"{}" if method == "POST" else None
    assert gateway.send(method, "/files", BROWSER, body=body).status == 401
    assert gateway.send(method, "/", BROWSER, body=body).status == 404


# What reaches a server may be spelled like this; what is spelled otherwise reaches nobody.
PATH_GAMES = [
    "//files", "/files/", "/files//", "/./files", "/files/.", "/x/../files", "/files/..",
    "/../files", "/notes/../files", "/files/../notes", "/%66iles", "/%2ffiles", "/files%2f",
    "/files%2F..%2Fnotes", "/%2e/files", "/notes/%2e%2e/files", "/notes/%252e%252e/files",
    "/notes%5c..%5cfiles", "/notes\\..\\files", "\\files", "/files;v=1", "/files;/../notes",
    "/notes;v=1/../files", "/FILES", "/Files", "/files.", "/files%00", "/files\x00", "/files%20",
    "/files%09", "/files#x", "/files%23", "/files%3f", "*", "files", "?files", "/",
    "/mcp", "/files/mcp", "/files/sse", "http://mcp.example.test/files",
    "https://mcp.example.test/files", "http://files:8000/mcp", "http://mcp.example.test//files",
    "http://user@mcp.example.test/files", "http://auth.example.test/files",
]  # fmt: skip


@pytest.mark.attack("path-games")
@pytest.mark.parametrize("method", ["POST", "GET", "POST over h2"])
@pytest.mark.parametrize("target", PATH_GAMES)
def test_no_spelling_reaches_a_server_whose_rules_were_not_applied(
    gateway: Gateway, target: str, method: str
) -> None:
    """Whatever the spelling: nobody is reached, or the server that authz was asked about."""
    if method == "POST over h2":
        gateway.over_h2((":path", target))
    else:
        gateway.send(method, target, GOOD, body=b"{}" if method == "POST" else None)

    asked = [check.context["server"] for check in gateway.authz.checks if check]
    reached = [name for name in SERVERS if gateway.servers[name].arrived]
    assert reached == asked
    for name in reached:
        assert [request.path for request in gateway.servers[name].arrived] == ["/mcp"]


@pytest.mark.attack("path-games")
@pytest.mark.parametrize(
    "changes",
    [
        (("host", "evil.example"),),
        ((":path", "/files"), ("transfer-encoding", "chunked")),
        (("connection", "x-authz-subject"),),
        (("X-Authz-Subject", "evil"),),
        ((":method", "CONNECT"),),
        ((":method", "CONNECT"), (":protocol", "websocket")),
        ((":scheme", "http"),),
        ((":path", ""),),
        ((":path", "/notes /files"),),
        (("x-a", "b\r\nx-authz-subject: evil"),),
        (("content-length", "1"),),
    ],
    ids=repr,
)
def test_http2_offers_no_second_opinion(
    gateway: Gateway, changes: tuple[tuple[str, str], ...]
) -> None:
    """What HTTP/2 can say twice or in odd ways is refused, or means what authz was told."""
    gateway.over_h2(*changes)

    asked = [check.context["server"] for check in gateway.authz.checks if check]
    assert [name for name in SERVERS if gateway.servers[name].arrived] == asked
    for request in gateway.servers["files"].arrived:
        assert (request.method, request.path, request.body) == ("POST", "/mcp", b"{}")
        assert request.values("host") == ["files:8000"]
        assert request.values("x-authz-subject") == ["from-authz"]


@pytest.mark.attack("path-games")
@pytest.mark.parametrize("target", ["mcp.example.test:443", "files:8000", "/files"])
def test_connect_and_upgrade_open_nothing(gateway: Gateway, target: str) -> None:
    """Neither a tunnel nor another protocol is to be had."""
    upgrade = (("Connection", "Upgrade"), ("Upgrade", "websocket"))

    assert gateway.send("CONNECT", target, GOOD).status >= 400
    assert gateway.send("GET", "/files", GOOD, *upgrade).status != 101
    assert all(request.values("upgrade") == [] for request in gateway.servers["files"].arrived)


@pytest.mark.attack("path-games")
@pytest.mark.parametrize("target", ["//files", "/./files", "/x/../files", "/notes/..//files"])
def test_another_spelling_of_a_path_is_made_the_one_that_is_judged(
    gateway: Gateway, target: str
) -> None:
    """Slashes are merged and dots resolved before routes are compared and authz is asked."""
    assert gateway.send("POST", target, GOOD, body=b"{}").status == 200

    assert (gateway.authz.last.path, gateway.authz.last.context["server"]) == ("/files", "files")


@pytest.mark.attack("path-games")
@pytest.mark.parametrize("target", ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%5C..%5Cb"])
def test_an_escaped_slash_is_refused_on_any_path(gateway: Gateway, target: str) -> None:
    """Who is behind could read it as a slash; not even the portal is sent one."""
    assert gateway.portal("GET", target).status == 400
    assert gateway.arrived()["issuer"] == 0


@pytest.mark.attack("path-games")
@pytest.mark.parametrize("target", ["/files/x", "/Files", "/files;v=1", "/files.", "/%2ffiles"])
def test_a_path_that_is_no_servers_is_answered_for_mcp_clients(
    gateway: Gateway, target: str
) -> None:
    """An unknown path is a 404 or 400 in JSON-RPC, before authz is asked."""
    answer = gateway.send("POST", target, GOOD, body=b"{}")

    assert answer.status in {400, 404}
    assert is_json_rpc_error(answer)
    assert gateway.authz.checks == []


@pytest.mark.attack("path-games")
@pytest.mark.parametrize(
    "header",
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url",
     "x-original-method", "x-rewrite-url", "x-envoy-original-path", "x-envoy-decorator-operation"],
)  # fmt: skip
def test_no_header_changes_path_or_method_after_the_decision(gateway: Gateway, header: str) -> None:
    """Headers by which frameworks override the method or the path reach nobody."""
    gateway.send("POST", "/files", GOOD, (header, "/admin"), body=b"{}")

    assert gateway.servers["files"].arrived[0].values(header) in ([], ["/files"])
    assert header not in gateway.authz.last.headers


HOSTS = {
    GATEWAY: 401, f"{GATEWAY}:443": 401, GATEWAY.upper(): 401, f"{GATEWAY}.": 404,
    f"{GATEWAY}:8443": 404, f"{GATEWAY}:443:443": 404, "evil.example": 404, "127.0.0.1": 404,
    "files:8000": 404, f"evil.{GATEWAY}": 404, f"{GATEWAY}, evil.example": 404, "": 404,
}  # fmt: skip


@pytest.mark.attack("host-games")
@pytest.mark.parametrize(("host", "status"), HOSTS.items())
def test_only_the_gateways_own_name_leads_to_its_servers(
    gateway: Gateway, host: str, status: int
) -> None:
    """The name with or without the default port, in any case; any other is told nothing."""
    answer = gateway.send("POST", "/files", host=host, body=b"{}")

    assert answer.status in {status, 400 if status == 404 else status}
    assert len(gateway.authz.checks) == (status == 401)
    # Envoy's own answers know no id of a request, and say so by their type (decision 11).
    own = "application/json" if status == 401 else "application/json-rpc"
    assert answer.header("content-type") == own


@pytest.mark.attack("host-games")
def test_another_server_name_in_tls_changes_nothing(gateway: Gateway) -> None:
    """The Host decides, whatever name the TLS handshake asked for."""
    client = replace(gateway.send, server_name=PORTAL)

    assert client("POST", "/files", body=b"{}").status == 401
    assert client("POST", "/files", host="evil.example", body=b"{}").status == 404
    assert gateway.arrived()["issuer"] == 0


@pytest.mark.attack("host-games")
def test_two_hosts_are_refused(gateway: Gateway) -> None:
    """A second Host header is no way to two opinions (RFC 9112, section 3.2)."""
    answer = gateway.send("POST", "/files", GOOD, ("host", "evil.example"), body=b"{}")

    assert answer.status in {400, 404}
    assert gateway.arrived()["files"] == 0

"""What Envoy answers itself, and what browsers may read, through the real Envoy.

Documents are open to everybody, preflights to known origins; every refusal of Envoy's own
on an MCP path is an error that MCP clients show.
"""

import json
import uuid
from typing import Any

import pytest

from authz.core.answers import REFUSAL, Form
from authz.envoy.response_details import cause_of
from authz.telemetry.log_reader import find_request
from tests.support import edge
from tests.support.gateway import GATEWAY, GOOD, MAX_BODY, ORIGIN, PORTAL, Gateway
from tests.support.wild_client import is_json_rpc_error, preflight, read


def test_what_authz_says_passes_untouched(gateway: Gateway) -> None:
    """Status and body of a denial are authz's own, whatever Envoy says of the same status."""
    answer = gateway.send("POST", "/files", body=b"{}")

    assert (answer.status, answer.json()) == (401, {"said by": "authz"})


@pytest.mark.attack("denial-with-status-200")
def test_a_denial_with_status_200_is_a_denial(gateway: Gateway) -> None:
    """It never reaches the server, and log and counters tell it from a success."""
    before = gateway.envoy.stat("http.gateway.ext_authz.authz.denied")
    with gateway.logged() as entries:
        answer = gateway.send("POST", "/files", edge.REFUSED, body=b"{}")

    assert (answer.status, answer.json()) == (200, {"refused by": "authz"})
    assert gateway.arrived()["files"] == 0
    (entry,) = entries
    assert (entry["status"], entry["details"], entry["flags"], entry["reason"]) == (
        200,
        "ext_authz_denied",
        "UAEX",
        "tool_not_allowed",
    )
    assert gateway.envoy.stat("http.gateway.ext_authz.authz.denied") == before + 1


@pytest.mark.attack("log-injection")
def test_no_stranger_makes_a_line_too_long_for_who_reads_it(gateway: Gateway) -> None:
    """Docker splits a line at 16 KiB, and then nobody finds its request."""
    with gateway.logged() as entries:
        for name in (":method", ":authority", ":path", ":scheme", "x-request-id"):
            long = f"/{'a' * 20_000}" if name == ":path" else "A" * 20_000
            gateway.over_h2((name, long))

    assert len(entries) == 5
    assert max(len(json.dumps(entry)) for entry in entries) < 1024


@pytest.mark.parametrize("form", Form, ids=lambda form: form.value)
def test_a_server_that_is_away_ends_no_session(gateway: Gateway, form: Form) -> None:
    """A request that was let through is told under 200, with its id to the last digit."""
    with gateway.logged() as entries:
        answer = gateway.send(
            "POST", "/gone", ("authorization", f"Bearer {form.value}"), body=b"{}"
        )
    body: Any = answer.json()

    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.header("retry-after") == "5"
    assert (body["jsonrpc"], body["id"]) == ("2.0", 2**53 - 1)
    if form is Form.ERROR:
        assert body["error"]["data"] == {"reason": "server_unavailable", "request_id": "r-1"}
    else:
        result = body["result"]
        assert result["isError"] is True
        assert "cannot be reached" in result["content"][0]["text"]
        assert result["_meta"][REFUSAL]["reason"] == "server_unavailable"
        assert ("resultType" in result) is (form is Form.MODERN_RESULT)
    (entry,) = entries
    assert entry["flags"] != "-"
    assert entry["details"] != "via_upstream"


def test_a_preflight_of_a_known_origin_is_answered_before_authorization(gateway: Gateway) -> None:
    """A browser learns what it may send without a token."""
    answer = gateway.send("OPTIONS", "/files", *preflight(ORIGIN))

    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert "mcp-protocol-version" in (answer.header("access-control-allow-headers") or "")
    assert gateway.authz.checks == []


@pytest.mark.attack("plain-options")
@pytest.mark.parametrize(
    "headers",
    [(), (("origin", ORIGIN),), preflight("https://evil.example"), preflight("null"),
     (("access-control-request-method", "POST"),)],
    ids=["plain", "no-method", "foreign", "null", "no-origin"],
)  # fmt: skip
def test_any_other_options_goes_to_authz(gateway: Gateway, headers: Any) -> None:
    """OPTIONS that is no preflight of a known origin is no way around authorization."""
    answer = gateway.send("OPTIONS", "/files", *headers)

    assert answer.status == 401
    assert gateway.authz.last.method == "OPTIONS"
    assert gateway.arrived()["files"] == 0


@pytest.mark.parametrize("token", [GOOD, ("authorization", "Bearer bad")])
def test_a_page_of_a_known_origin_can_read_any_answer(
    gateway: Gateway, token: tuple[str, str]
) -> None:
    """CORS fields are the gateway's on answers of servers and on denials."""
    answer = gateway.send("POST", "/files", token, ("Origin", ORIGIN), body=b"{}")

    assert answer.values("access-control-allow-origin") == [ORIGIN]
    assert "www-authenticate" in (answer.header("access-control-expose-headers") or "")


def test_a_page_of_another_origin_can_read_nothing(gateway: Gateway) -> None:
    """What a hostile server says about CORS is dropped."""
    answer = gateway.send("POST", "/files", GOOD, ("Origin", "https://evil.example"), body=b"{}")

    assert [name for name, _ in answer.headers if name.startswith("access-control-")] == []


METADATA = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_metadata_of_a_server_is_readable_by_anybody(gateway: Gateway, method: str) -> None:
    """RFC 9728: the resource as clients write it, the issuer, the scopes of server and tools."""
    answer = gateway.send(method, f"{METADATA}/files", ("Origin", "https://anything.example"))

    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.values("access-control-allow-origin") == ["*"]
    assert gateway.authz.checks == []
    if method == "GET":
        assert answer.json() == {
            "resource": "https://mcp.example.test/files",
            "authorization_servers": ["https://auth.example.test"],
            "bearer_methods_supported": ["header"],
            "resource_name": "files",
            "scopes_supported": ["mcp:files", "mcp:files:write"],
        }


def test_a_document_says_nothing_that_depends_on_who_asks(gateway: Gateway) -> None:
    """What looks like one of Envoy's substitutions stays as the settings say it."""
    answer = gateway.send("GET", f"{METADATA}/notes", ("Cookie", "s=c00kie"))

    assert answer.json()["scopes_supported"] == ["%REQ(COOKIE)%"]


@pytest.mark.parametrize(
    "path",
    ["", "/files/x", "/unknown", "/../oauth-authorization-server"],
)
def test_a_document_that_does_not_exist_is_a_404_that_browsers_can_read(
    gateway: Gateway, path: str
) -> None:
    """With several servers there is none at the root; the authorization server is elsewhere."""
    answer = gateway.send("GET", METADATA + path, ("Origin", "https://anything.example"))

    assert answer.status == 404
    assert answer.json()["error"] == "not_found"
    assert answer.values("access-control-allow-origin") == ["*"]


@pytest.mark.parametrize("path", [f"{METADATA}/files", METADATA, "/register"])
def test_preflights_of_open_documents_are_answered_for_any_origin(
    gateway: Gateway, path: str
) -> None:
    """Clients in browsers send mcp-protocol-version even to documents, so they ask first."""
    answer = gateway.send("OPTIONS", path, *preflight("https://anything.example"))

    assert answer.status == 204
    assert answer.values("access-control-allow-origin") == ["*"]
    assert "mcp-protocol-version" in (answer.header("access-control-allow-headers") or "")


def test_registration_is_answered_with_what_to_do(gateway: Gateway) -> None:
    """POST /register is the last thing that clients without a client id try; they show the text."""
    answer = gateway.send("POST", "/register", body=b"{}")

    assert answer.status == 400
    assert set(answer.json()) == {"error", "error_description"}
    assert "authz.yaml" in str(answer.json()["error_description"])


def test_plain_http_leads_to_https(gateway: Gateway) -> None:
    """A page is sent on to the public name; nothing else is, since its token would be exposed."""
    answer = gateway.plain("GET", "/files?x=1", host=f"{GATEWAY}:8080")
    assert (answer.status, answer.header("location")) == (308, "https://mcp.example.test/files?x=1")

    answer = gateway.plain("POST", "/files", GOOD, body=b"{}")
    assert answer.status == 403
    assert is_json_rpc_error(answer)

    assert gateway.plain("GET", "/", host="evil.example").status == 404
    assert gateway.authz.checks == []


def test_the_portal_is_served_as_it_is(gateway: Gateway) -> None:
    """Cookies, credentials and long bodies pass, CORS is the issuer's own, authz is not asked."""
    body = b"x" * (MAX_BODY + 1)
    sent = [("Cookie", "authelia_session=s"), ("Authorization", "Basic Yw=="), ("Origin", ORIGIN)]
    answer = gateway.portal("POST", "/api/oidc/token?x=1", *sent, body=body)

    (request,) = gateway.servers["issuer"].arrived
    assert (request.path, request.body) == ("/api/oidc/token?x=1", body)
    assert request.values("cookie") == ["authelia_session=s"]
    assert request.values("authorization") == ["Basic Yw=="]
    assert request.values("host") == [PORTAL]
    assert len(answer.values("set-cookie")) == 1
    assert answer.values("access-control-allow-origin") == ["https://evil.example"]
    assert gateway.authz.checks == []


@pytest.mark.attack("answered-by-the-codec")
@pytest.mark.parametrize(
    ("head", "status", "reason", "details"),
    [
        pytest.param(
            "POST /files HTTP/1.1\r\nX_Authz_Subject: evil",
            400, "malformed_request", "http1.unexpected_underscore", id="underscore",
        ),
        pytest.param("POST /files HTTP/1.0", 426, "http_version", "low_version", id="http-1.0"),
        pytest.param("nonsense", 400, "malformed_request", "http1.codec_error", id="no-http"),
        pytest.param(
            "POST /files HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2",
            400, "malformed_request", "http1.content_length_and_chunked_not_allowed", id="two-ends",
        ),
    ],
)  # fmt: skip
def test_what_is_refused_before_it_is_a_request_has_an_id_and_a_line(
    gateway: Gateway, head: str, status: int, reason: str, details: str
) -> None:
    """The answer, its body and the access log have one id, which no client chooses; nobody behind
    Envoy hears of it.
    """
    lines = (head, f"Host: {GATEWAY}", f"{GOOD[0]}: {GOOD[1]}", "X-Request-Id: evil", "", "")
    with gateway.logged() as entries, gateway.send.connect() as sock:
        answer = read(sock, "\r\n".join(lines).encode(), "POST")
    body: Any = answer.json()
    (entry,) = entries

    assert (answer.status, body["error"]["data"]["reason"]) == (status, reason)
    assert is_json_rpc_error(answer)
    (request_id,) = answer.values("x-request-id")
    assert uuid.UUID(request_id).version == 4
    assert body["error"]["data"]["request_id"] == request_id
    assert (entry["request_id"], entry["status"], entry["details"]) == (request_id, status, details)
    assert entry["address"] == "127.0.0.1"
    assert gateway.authz.checks == []
    assert set(gateway.arrived().values()) == {0}


@pytest.mark.attack("answered-by-the-codec")
def test_over_http2_an_underscore_ends_its_stream_and_leaves_a_line(gateway: Gateway) -> None:
    """Envoy has no answer to a malformed request of HTTP/2: the log alone tells of it."""
    with gateway.logged() as entries:
        answer = gateway.over_h2(("x_authz_subject", "evil"))

    assert answer.status == 0
    (entry,) = entries
    assert (entry["status"], entry["details"]) == (0, "http2.unexpected_underscore")
    assert (entry["address"], entry["request_id"]) == ("127.0.0.1", None)
    assert gateway.authz.checks == []
    assert set(gateway.arrived().values()) == {0}


HEAD = f"Host: {GATEWAY}\r\n{GOOD[0]}: {GOOD[1]}\r\n"
TO_FILES = f"POST /files HTTP/1.1\r\n{HEAD}"


@pytest.mark.parametrize(
    ("sent", "server", "cause"),
    [
        ("POST /nothing HTTP/1.1\r\n" + HEAD, b"", "no_route"),
        ("POST /files HTTP/1.0\r\n" + HEAD, b"", "http_version"),
        ("GET /authorize HTTP/1.0\r\n" + HEAD, b"", "http_version"),
        ("POST /files HTTP/1.1\r\n", b"", "no_host"),
        ("POST /files%2f HTTP/1.1\r\n" + HEAD, b"", "malformed_path"),
        (TO_FILES + "x-long: " + "x" * 40_000 + "\r\n", b"", "headers_too_large"),
        (TO_FILES + "x-many: x\r\n" * 120, b"", "headers_too_large"),
        (
            TO_FILES + f"Content-Length: {MAX_BODY + 1}\r\n\r\n" + "x" * (MAX_BODY + 1),
            b"",
            "body_too_large",
        ),
        (TO_FILES + "X_y: x\r\n", b"", "underscore"),
        ("nonsense\r\n", b"", "malformed_request"),
        ("POST /fil", b"", "headers_timeout"),
        (
            f"GET /files HTTP/1.1\r\n{HEAD}Connection: upgrade\r\nUpgrade: websocket\r\n",
            b"",
            "upgrade_refused",
        ),
        (f"POST /gone HTTP/1.1\r\n{HEAD}Content-Length: 0\r\n", b"", "server_connection_failed"),
        (TO_FILES + "Content-Length: 0\r\n", b"no http at all", "server_spoke_no_http"),
        (
            TO_FILES + "Content-Length: 0\r\n",
            b"HTTP/1.1 302 x\r\ncontent-length: 0\r\n\r\n",
            "server_answer_refused",
        ),
    ],
)  # fmt: skip
def test_what_envoy_answers_by_itself_is_explained_by_its_id(
    gateway: Gateway, sent: str, server: bytes, cause: str
) -> None:
    """Whatever Envoy ended a request for: the id of its answer finds a line that says why."""
    gateway.servers["files"].raw = server
    end = "\r\n" if sent.endswith("\n") else ""
    with gateway.logged() as entries, gateway.send.connect() as sock:
        answer = read(sock, (sent + end).encode(), "POST")
    (request_id,) = answer.values("x-request-id")
    found = find_request([json.dumps(entry).encode() for entry in entries], request_id).access

    assert answer.status >= 400
    assert found is not None
    assert request_id.encode() in answer.body
    if is_json_rpc_error(answer):
        body: Any = answer.json()
        assert body["error"]["data"]["request_id"] == request_id
    assert cause_of(str(found.record["details"]), str(found.record["flags"])).name == cause


def test_a_client_that_goes_away_is_told_apart(gateway: Gateway) -> None:
    """No answer has the id, but the server was told it: it is in the server's own log."""
    gateway.servers["files"].go_on.clear()
    with gateway.logged() as entries:
        with gateway.send.connect() as sock:
            sock.sendall(f"GET /files?stream HTTP/1.1\r\n{HEAD}\r\n".encode())
            sock.recv(64)
        gateway.servers["files"].go_on.set()
    (entry,) = entries

    assert cause_of(str(entry["details"]), str(entry["flags"])).name == "client_gone"
    assert entry["request_id"]


@pytest.mark.parametrize("path", ["/files", "/nothing", "/gone"], ids=["authz", "no-route", "away"])
def test_one_request_has_one_id(gateway: Gateway, path: str) -> None:
    """Whoever answers a request: what the client saw is what the access log has."""
    with gateway.logged() as entries:
        answer = gateway.send("POST", path, GOOD, ("X-Request-Id", "evil"), body=b"{}")

    (entry,) = entries
    assert answer.values("x-request-id") == [entry["request_id"]] != ["evil"]


def test_a_path_that_cannot_be_normalised_has_an_id(gateway: Gateway) -> None:
    """Here Envoy has read the headers, and given the request no id yet."""
    with gateway.logged() as entries:
        answer = gateway.send("POST", "/files%2f", GOOD, body=b"{}")

    (entry,) = entries
    assert (entry["status"], entry["details"]) == (400, "path_normalization_failed")
    assert answer.values("x-request-id") == [entry["request_id"]]

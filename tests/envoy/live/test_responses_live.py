"""What an MCP server can tell a client, through the real Envoy.

Of a server's response a client sees the body, the status, and the header fields that
MCP needs; 401 and its challenge, redirects and everything that acts on browsers are the gateway's.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.answers import Form
from authz.envoy.render.response_headers import ALLOWED, FROM_SERVER, INERT, others
from tests.support.gateway import GOOD, ORIGIN, Gateway
from tests.support.wild_client import is_json_rpc_error

# Fields of Envoy's and ours on every response.
OWN = {"date", "server", "x-request-id", "strict-transport-security"} | dict(INERT).keys()
HOSTILE = (
    ("www-authenticate", 'Bearer resource_metadata="https://evil.example/"'),
    ("www-authenticate", "Basic realm=x"),
    ("proxy-authenticate", "Basic realm=x"),
    ("strict-transport-security", "max-age=0"),
    ("clear-site-data", '"*"'),
    ("x-authz-subject", "evil"),
    (FROM_SERVER, "0"),
    ("location", "https://evil.example/"),
    ("refresh", "0; url=https://evil.example/"),
    ("link", "<https://evil.example/>; rel=preload"),
    ("alt-svc", 'h3="evil.example:443"'),
    ("content-security-policy", "script-src 'self' https://evil.example"),
    ("content-security-policy-report-only", "report-uri https://evil.example"),
    ("x-content-type-options", "evil"),
    ("cross-origin-resource-policy", "cross-origin"),
    ("service-worker-allowed", "/"),
    ("x-envoy-upstream-service-time", "1"),
    ("x-anything", "evil"),
    ("mcp", "evil"),
    ("content-typ", "evil"),
    ("content-types", "evil"),
    ("ratelimit-", "evil"),
    ("x-authz-limit-near", '"files";r=0;t=9'),
)
KEPT = (
    ("mcp-session-id", "s1"),
    ("mcp-protocol-version", "2025-11-25"),
    ("cache-control", "no-cache, no-transform"),
    ("vary", "accept"),
    ("retry-after", "7"),
    ("allow", "POST"),
    ("ratelimit", '"a";r=1'),
    ("ratelimit-policy", '"a";q=1;w=1'),
    ("x-accel-buffering", "no"),
)
NAMES = st.text("".join(sorted(set("".join(ALLOWED)))) + "_*Zz~0", min_size=1, max_size=20)


@pytest.mark.attack("hostile-response")
def test_a_server_sends_no_header_that_mcp_does_not_need(gateway: Gateway) -> None:
    """What acts on clients and browsers is removed, in any case; what MCP needs arrives."""
    shouted = tuple((name.title(), value) for name, value in HOSTILE)
    gateway.servers["files"].more = (*HOSTILE, *shouted, *KEPT)
    answer = gateway.send("POST", "/files", GOOD, ("Origin", ORIGIN), body=b"{}")
    names = {name.lower() for name, _ in answer.headers}

    assert (answer.status, answer.body) == (200, b"{}")
    assert [(name, answer.header(name)) for name, _ in KEPT] == list(KEPT)
    cors = {"access-control-allow-origin", "access-control-expose-headers"}
    assert names == {name for name, _ in KEPT} | OWN | cors | {"content-type", "content-length"}
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert "evil" not in str(answer.headers)


@pytest.mark.attack("hostile-response")
@pytest.mark.parametrize("status", [401, 407, 301, 302, 303, 307, 308])
def test_what_only_the_gateway_answers_is_refused(gateway: Gateway, status: int) -> None:
    """A server's 401 would log people in again for nothing, its redirect leads inside."""
    gateway.servers["files"].status = status
    gateway.servers["files"].more = HOSTILE
    answer = gateway.send("POST", "/files", GOOD, body=b"{}")

    assert answer.status == 502
    assert is_json_rpc_error(answer)
    assert b"server_answer_refused" in answer.body
    assert "evil" not in str(answer)
    assert answer.header("www-authenticate") is answer.header("location") is None


@pytest.mark.parametrize("form", [*Form, None], ids=str)
def test_a_web_page_can_read_that_an_answer_was_refused(
    gateway: Gateway, form: Form | None
) -> None:
    """What takes the place of a server's answer passes no cors filter, and has its fields all the
    same: those of a refusal of authz. For other origins, and for none, it has not.
    """
    token = GOOD if form is None else ("authorization", f"Bearer {form.value}")
    gateway.servers["files"].status = 302
    answer = gateway.send("POST", "/files", token, ("Origin", ORIGIN), body=b"{}")
    refusal = gateway.send("POST", "/files", ("Origin", ORIGIN), body=b"{}")
    others = [
        gateway.send("POST", "/files", token, *origin, body=b"{}")
        for origin in ([("Origin", "https://evil.example")], [("Origin", f"{ORIGIN}.evil")], [])
    ]

    assert (answer.status, refusal.status) == (502 if form is None else 200, 401)
    assert b"server_answer_refused" in answer.body
    for name in ("access-control-allow-origin", "access-control-expose-headers"):
        assert answer.values(name) == refusal.values(name) != []
    assert not [n for each in others for n, _ in each.headers if n.startswith("access-control")]


@pytest.mark.parametrize("status", [200, 202, 400, 403, 404, 405, 429, 500, 503])
def test_any_other_status_is_the_servers(gateway: Gateway, status: int) -> None:
    """MCP gives them a meaning: 404 ends a session, 405 says that there is no stream."""
    gateway.servers["files"].status = status
    answer = gateway.send("POST", "/files", GOOD, body=b"{}")

    assert (answer.status, answer.body) == (status, b"{}")


@pytest.mark.attack("hostile-response")
def test_early_hints_and_trailers_do_not_pass(gateway: Gateway) -> None:
    """Fields beside the header section of the response reach nobody."""
    gateway.servers["files"].raw = (
        b"HTTP/1.1 103 Early Hints\r\nlink: <https://evil.example/>; rel=preload\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
        b"trailer: x-evil\r\n\r\n2\r\n{}\r\n0\r\nx-evil: evil\r\nset-cookie: evil=1\r\n\r\n"
    )
    head = "POST /files HTTP/1.1\r\nHost: mcp.example.test\r\nTE: trailers\r\nConnection: close\r\n"
    head += f"{GOOD[0]}: {GOOD[1]}\r\nContent-Length: 2\r\n\r\n{{}}"
    with gateway.send.connect() as sock:
        sock.sendall(head.encode())
        received = b"".join(iter(lambda: sock.recv(65536), b""))

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"{}" in received
    assert b"evil" not in received


def test_the_refusals_of_authz_keep_their_headers(gateway: Gateway) -> None:
    """What ext_authz answers passes no filter that is meant for servers."""
    answer = gateway.send("POST", "/files", ("Origin", ORIGIN), body=b"{}")

    assert (answer.status, answer.values("www-authenticate")) == (401, ["Bearer"])
    assert answer.body == b'{"said by": "authz"}'


@pytest.mark.parametrize("target", ["/files", "/.well-known/oauth-protected-resource/files"])
def test_the_gateway_sends_hsts(gateway: Gateway, target: str) -> None:
    """On answers of servers, of authz and of Envoy itself, once; and on the portal's."""
    answers = [gateway.send("GET", target, GOOD), gateway.send("GET", target)]
    gateway.servers["files"].status = 302
    answers.append(gateway.send("GET", target, GOOD))
    answers.append(gateway.portal("GET", "/"))

    for answer in answers:
        assert answer.values("strict-transport-security") == ["max-age=31536000"]


@given(NAMES)
def test_exactly_one_expression_matches_what_is_not_allowed(name: str) -> None:
    """The expressions are the complement of the list: no name slips between two of them."""
    wanted = name in ALLOWED or name.startswith("mcp-")
    found = [regex for regex in others(ALLOWED) if re.fullmatch(regex, name)]

    assert len(found) == (0 if wanted else 1)


@pytest.mark.parametrize("allowed", ALLOWED)
def test_every_allowed_name_passes_and_its_neighbours_do_not(allowed: str) -> None:
    """Each beginning of a name, and the name with one character more, is judged on its own."""
    name = allowed.replace("*", "session-id")
    near = [name[:length] for length in range(1, len(name) + 1)] + [f"{name}-"]
    for each in near:
        wanted = each in ALLOWED or each.startswith("mcp-")
        found = [regex for regex in others(ALLOWED) if re.fullmatch(regex, each)]
        assert len(found) == (0 if wanted else 1), each


def test_pseudo_headers_are_never_removed() -> None:
    """Without its status a response would be none."""
    assert not any(re.fullmatch(regex, ":status") for regex in others(ALLOWED))

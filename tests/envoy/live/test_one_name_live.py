"""One name for gateway and portal, through the real Envoy.

Invariant: below its path the portal is asked and nobody else, and it is asked nowhere else; no
cookie of our pages reaches it, none of its own reaches them, and none at all an MCP server.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.gateway import GATEWAY, GOOD, SETTINGS, Gateway, running_gateway, tls
from tests.support.wild_client import http2

DOOR = "front_door: {key_file: /run/secrets/front-door.pem}\n"
OWN_NAME = "url: https://auth.example.test\n"
ONE_NAME = f"url: https://{GATEWAY}/auth\n"
SESSION = "authelia_session=s3cret"
CSRF, PENDING = "__Host-authz-csrf-1a=c", "__Host-authz-tx-2b=t"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
INERT = {
    "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    assert OWN_NAME in SETTINGS
    with running_gateway(DOOR, settings=SETTINGS.replace(OWN_NAME, ONE_NAME)) as gateway:
        yield gateway


@pytest.fixture
def one(running: Gateway) -> Gateway:
    """The running gateway, as if nobody had used it before."""
    running.forget()
    return running


@pytest.mark.attack("one-name")
@pytest.mark.parametrize("path", ["/auth", "/auth/", "/auth/api/state", "/auth/static/js/a.js?x=1"])
def test_below_its_path_the_portal_is_asked_alone(one: Gateway, path: str) -> None:
    """By every method, with the path that it was sent; a token there makes no MCP request of it."""
    for method in METHODS:
        body = b"{}" if method == "POST" else None
        assert one.send(method, path, GOOD, body=body).status == 200

    arrived = one.servers["issuer"].arrived
    assert [(each.method, each.path) for each in arrived] == [(each, path) for each in METHODS]
    for each in arrived:
        assert each.values("x-forwarded-host") == [GATEWAY]
        assert each.values("x-forwarded-proto") == ["https"]
    assert one.authz.checks == []
    assert sum(one.arrived().values()) == len(METHODS)


@pytest.mark.attack("one-name", "path-games")
@pytest.mark.parametrize(
    "path",
    [
        "/authz/log-ins", "/authx", "/auth2", "/auth;x", "/auth.", "/Auth", "/AUTH/api/state",
        "/auth%2fapi/state", "/auth%5capi", "/auth%00", "/auth/../files",
        "/auth/%2e%2e/files", "/auth/./../files", "/auth/..", "/.auth",
        "/x/auth",
        "/files/../authz/x", "/files", "/files/", "/files/auth", "/.well-known/auth",
        "/.well-known/oauth-protected-resource/auth", "/authorize", "/token", "/", "/auth\\api",
        "https://auth.example.test/auth/", "/auth%23", "*",
    ],
)  # fmt: skip
def test_no_other_path_leads_to_the_portal(one: Gateway, path: str) -> None:
    """Whatever begins like it, is spelled like it, or leaves it again."""
    for method in ("GET", "POST"):
        one.send(method, path, GOOD, body=b"{}" if method == "POST" else None)
    assert one.arrived()["issuer"] == 0


@pytest.mark.attack("one-name", "path-games")
@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("/%61uth/api/state", "issuer /auth/api/state"), ("/auth//..//files", "issuer /auth/files"),
        ("/auth/..;/files", "files /mcp"), ("/auth/../files", "files /mcp"),
        ("/authz/../auth/x", "issuer /auth/x"), ("/auth/../authz/x", "pages /authz/x"),
    ],
)  # fmt: skip
def test_whoever_is_reached_reads_the_path_that_was_judged(
    one: Gateway, path: str, arrives: str
) -> None:
    """A path is brought into one spelling first, by which the route is found and which is sent."""
    one.send("POST", path, GOOD, body=b"{}")

    found = [f"{name} {each.path}" for name, to in one.servers.items() for each in to.arrived]
    assert found == [arrives]
    assert len(one.authz.checks) == arrives.startswith("files")


@pytest.mark.attack("one-name", "path-games")
@pytest.mark.parametrize(
    "path",
    [
        "/auth/files", "/auth/../auth/files", "//auth/files", "/auth//files", "/auth/.well-known/x",
        "/auth/authz/log-ins", "/auth/token", "/files/../auth/notes",
        "/auth?/files",
    ],
)  # fmt: skip
def test_no_path_of_the_portal_leads_to_others(one: Gateway, path: str) -> None:
    """A request for a server, and one for our pages, is none below the portal's path."""
    one.send("POST", path, GOOD, body=b"{}")
    assert one.arrived() == {"issuer": 1, "files": 0, "notes": 0, "pages": 0}
    assert one.authz.checks == []


@pytest.mark.attack("one-name")
@given(
    st.lists(
        st.sampled_from(
            ["auth", "authz", "Auth", "files", "notes", "token", "..", ".", "", "%2e%2e", "x", ";",
             ".well-known", "api", "oidc", "%61uth", "authorize", "log-ins"]
        ),
        max_size=5,
    )
)  # fmt: skip
@hypothesis_settings(examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_reaches_one_party_by_its_first_word(one: Gateway, words: list[str]) -> None:
    """Whoever is reached got the path that is his: what a client could read differently is not sent
    on, and only what authz was asked about reaches a server.
    """
    one.forget()
    one.send("POST", "/" + "/".join(words), GOOD, body=b"{}")

    for name, server in one.servers.items():
        for each in server.arrived:
            first = each.path.split("/")[1]
            own = {"issuer": {"auth"}, "pages": {"authz", "authorize", "token"}}
            assert first in own.get(name, {"mcp"}), (name, each.path)
            assert len(one.authz.checks) == (name in {"files", "notes"})


@pytest.mark.attack("one-name", "issuer-buckets")
@pytest.mark.parametrize(
    "path",
    [
        "token", "introspection", "revocation", "pushed-authorization-request", "TOKEN", "token/",
        "device-authorization", "token;x", "tok%65n", "token?x=1", "./token", "x/../token",
    ],
)  # fmt: skip
def test_what_programs_ask_of_the_issuer_is_closed(one: Gateway, path: str) -> None:
    """As under a name of its own; nowhere else is anything closed by it."""
    for front in ("/auth", "/auth/x", "//auth"):
        answer = one.send("POST", f"{front}/api/oidc/{path}", body=b"a=b")
        assert answer.status == 403
    assert one.arrived()["issuer"] == 0
    assert one.send("POST", f"/api/oidc/{path}", body=b"a=b").status == 404
    assert one.send("POST", "/token", body=b"a=b").status == 200


@pytest.mark.attack("one-name")
@pytest.mark.parametrize(
    "path", ["/auth/api", "/auth/api/", "/auth/api/index.html", "/auth/x/api/a.js"]
)
def test_pages_that_document_its_api_are_closed(one: Gateway, path: str) -> None:
    """Their scripts take the address of a document from the query."""
    assert one.send("GET", f"{path}?url=https://evil.example/").status == 403
    assert one.arrived()["issuer"] == 0


@pytest.mark.attack("one-name", "cookies")
@pytest.mark.parametrize("over_h2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(
    ("sent", "ours", "theirs"),
    [
        (f"{SESSION}; {CSRF}; {PENDING}", [f"{CSRF}; {PENDING}"], [SESSION]),
        (f"{CSRF};{SESSION};a=b", [CSRF], [f"{SESSION}; a=b"]),
        (f"{SESSION}; a=b", [], [f"{SESSION}; a=b"]),
        (PENDING, [PENDING], []),
        (f" ;; {PENDING} ;\t{SESSION} ;", [PENDING], [SESSION]),
        ("__HOST-AUTHZ-csrf-x=1", ["__HOST-AUTHZ-csrf-x=1"], []),
        (f'x="{CSRF}; y"; {SESSION}', [], [f'x="{CSRF}; y"; {SESSION}']),
        ("__Host-authz", [], ["__Host-authz"]),
        ("=__Host-authz-csrf-x; %", [], ["=__Host-authz-csrf-x; %"]),
    ],
)  # fmt: skip
def test_cookies_stay_apart(
    one: Gateway, sent: str, ours: list[str], theirs: list[str], *, over_h2: bool
) -> None:
    """Ours go to our pages alone, the portal's to the portal alone, and none to a server."""
    for path in (
        "/authorize",
        "/token",
        "/authz/log-ins",
        "/auth/",
        "/auth/api/firstfactor",
        "/files",
    ):
        if over_h2:
            fields = {":method": "POST", ":scheme": "https", ":authority": GATEWAY, ":path": path}
            crumbs = [("cookie", each) for each in sent.split(";") if each.strip()]
            client = replace(one.send, tls=tls("h2"))
            http2(client, *fields.items(), GOOD, *crumbs, body=b"{}")
        else:
            one.send("POST", path, GOOD, ("Cookie", sent), body=b"{}")
    got = {
        name: [each.values("cookie") for each in server.arrived]
        for name, server in one.servers.items()
    }
    assert got == {"pages": [ours] * 3, "issuer": [theirs] * 2, "files": [[]], "notes": []}
    assert "cookie" not in one.authz.last.headers


@pytest.mark.attack("one-name", "cookies")
def test_cookies_of_several_headers_stay_apart(one: Gateway) -> None:
    """A second header, in any case, is looked at as the first one is."""
    cookies = (("Cookie", SESSION), ("cookie", CSRF), ("COOKIE", f"{PENDING}; b=c"))
    one.send("GET", "/authz/log-ins", *cookies)
    one.send("GET", "/auth/", *cookies)

    assert one.servers["pages"].arrived[0].values("cookie") == [f"{CSRF}; {PENDING}"]
    assert one.servers["issuer"].arrived[0].values("cookie") == [f"{SESSION}; b=c"]


@pytest.mark.attack("one-name", "cookies")
def test_blanks_in_cookies_cost_no_time(one: Gateway) -> None:
    """Thirty thousand, within a cookie, alone and at its end: a worker of Envoy does not stand
    still, which it would for seconds if each were looked at from every other.
    """
    blanks = " " * 9000
    sent = f"{SESSION}; a={blanks}b;{blanks};{blanks}c=d"
    for _ in range(8):
        one.send("GET", "/auth/", ("Cookie", sent))

    got = [each.values("cookie") for each in one.servers["issuer"].arrived]
    assert got == [[f"{SESSION}; a={blanks}b; c=d"]] * 8


def test_a_browser_with_many_cookies_is_served(one: Gateway) -> None:
    """As many as the pages set at most reach them, and none the portal, which reads 4 KiB."""
    many = "; ".join(f"__Host-authz-tx-{n:02}={'x' * 3900}" for n in range(6))
    one.send("GET", "/authz/log-ins", ("Cookie", f"{many}; {SESSION}"))
    one.send("GET", "/auth/", ("Cookie", f"{many}; {SESSION}"))

    assert one.servers["pages"].arrived[0].values("cookie") == [many]
    assert one.servers["issuer"].arrived[0].values("cookie") == [SESSION]


def test_the_issuers_metadata_is_where_clients_look(one: Gateway) -> None:
    """With its path behind the well-known part (RFC 8414, section 3.1); the front door's own is at
    the root, and no other path of that kind is the issuer's.
    """
    for name in ("oauth-authorization-server", "openid-configuration"):
        assert one.send("GET", f"/.well-known/{name}/auth").status == 200
        assert one.send("GET", f"/.well-known/{name}/auth/x").status == 404
        assert one.send("GET", f"/.well-known/{name}/files").status == 404
        assert one.send("POST", f"/.well-known/{name}/auth", body=b"{}").status == 404
    own = one.send("GET", "/.well-known/oauth-authorization-server").json()

    assert own["issuer"] == f"https://{GATEWAY}"
    assert [each.path for each in one.servers["issuer"].arrived] == [
        "/auth/.well-known/oauth-authorization-server", "/auth/.well-known/openid-configuration",
    ]  # fmt: skip


@pytest.mark.attack("one-name", "hostile-response")
@pytest.mark.parametrize("media", ["text/html", "image/svg+xml", "text/javascript", "text/xml"])
def test_what_a_server_answers_runs_nowhere(one: Gateway, media: str) -> None:
    """It is of the portal's origin; it is inert whatever the server says of it."""
    theirs = tuple((name, "x") for name in INERT)
    worker = ("service-worker-allowed", "/")
    one.servers["files"].more = (("content-type", media), *theirs, worker)
    answer = one.send("POST", "/files", GOOD, body=b"{}")

    assert answer.status == 200
    assert {name: answer.values(name) for name in INERT} == {n: [v] for n, v in INERT.items()}
    assert answer.values("service-worker-allowed") == []


@pytest.mark.attack("one-name", "hostile-response")
@pytest.mark.parametrize("path", ["/files", "/files/"])
@pytest.mark.parametrize(
    "use",
    ["document", "iframe", "frame", "embed", "object", "script", "serviceworker", "worker",
     "sharedworker", "style", "image", "xslt", "webidentity", "Empty", "empty, document", ""],
)  # fmt: skip
def test_a_browser_is_given_no_answer_of_a_server_to_show(
    one: Gateway, use: str, path: str
) -> None:
    """Not with a good token either, by no method; authz and the server are asked nothing."""
    for method in METHODS:
        answer = one.send(method, path, GOOD, ("Sec-Fetch-Dest", use))
        assert answer.status == 403
    assert sum(one.arrived().values()) == 0
    assert one.authz.checks == []


@pytest.mark.parametrize("more", [(), (("Sec-Fetch-Dest", "empty"), ("Sec-Fetch-Mode", "cors"))])
def test_programs_and_scripts_are_served(one: Gateway, more: tuple[tuple[str, str], ...]) -> None:
    """Whoever takes the answer as data."""
    assert one.send("POST", "/files", GOOD, *more, body=b"{}").status == 200
    page = one.send("GET", "/files", ("Accept", "text/html"), ("Sec-Fetch-Dest", "document"))
    assert (page.status, one.arrived()["files"]) == (200, 1)


def test_the_portal_that_is_away_is_told_in_words(one: Gateway) -> None:
    """A person reads a sentence there, a client JSON-RPC elsewhere."""
    one.servers["issuer"].raw = b"nonsense\r\n\r\n"
    one.servers["files"].raw = b"nonsense\r\n\r\n"

    assert "text/plain" in (one.send("GET", "/auth/?x").header("content-type") or "")
    answer = one.send("POST", "/files", GOOD, body=b"{}")
    assert "json" in (answer.header("content-type") or "")

"""Where log-ins may end: nothing that reads in two ways, and nothing but what is registered."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.login.clients.redirects import LONGEST, RedirectRules, is_registered, redirect_host

CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
RULES = RedirectRules(frozenset({CURSOR}))
CLAUDE = "https://claude.ai/api/mcp/auth_callback"

WELCOME = [
    CLAUDE,
    CURSOR,
    "https://example.com",
    "https://example.com/",
    "https://example.com:8443/cb?from=a/b?c&d=%20",
    "https://xn--bcher-kva.example/cb",
    "https://nas/cb",
    "https://203.0.113.7/cb",
    "https://[2001:db8::1]:8443/cb",
    "https://localhost:8443/cb",
    "https://example.com/@me/cb",
    "http://127.0.0.1/cb",
    "http://127.0.0.1:33418",
    "http://[::1]:1/cb?x=1",
    "http://localhost:65535/cb",
]
HOSTILE = [
    "",
    "/cb",
    "//evil.example/cb",
    "https:",
    "https://",
    "https:///evil.example/cb",
    "https:/evil.example",
    "https:evil.example",
    "https:\\\\evil.example/cb",
    "https://claude.ai\\@evil.example/cb",
    "https://claude.ai\\.evil.example/cb",
    "https://claude.ai@evil.example/cb",
    "https://claude.ai:pw@evil.example/cb",
    "https://@claude.ai/cb",
    "https://claude.ai:/cb",
    "https://claude.ai:0/cb",
    "https://claude.ai:65536/cb",
    "https://claude.ai:0443/cb",
    "https://claude.ai:80:80/cb",
    "https://claude.ai/cb#",
    "https://claude.ai/cb#code=1",
    "https://claude.ai/a/../cb",
    "https://claude.ai/./cb",
    "https://claude.ai/a/..",
    "https://claude.ai/a/%2e%2e/cb",
    "https://claude.ai/a/.%2E/cb",
    "https://claude.ai/cb%0d%0aset-cookie:a=b",
    "https://claude.ai/cb%00",
    "https://claude.ai/cb%5c",
    "https://claude.ai/cb%",
    "https://claude.ai/cb%g0",
    "https://claude.ai/cb\r\nx: y",
    "https://claude.ai/cb\n",
    " https://claude.ai/cb",
    "https://claude.ai/c b",
    "https://claude.ai/\tcb",
    "https://claude.ai/cb\x00",
    "https://claude.ai/<script>",
    'https://claude.ai/"onload=x',
    "https://claude.ai/cb\u202e",
    "https://clаude.ai/cb",  # noqa: RUF001 - a Cyrillic letter
    "https://claude.ai。evil.example/cb",
    "https://CLAUDE.ai/cb",
    "HTTPS://claude.ai/cb",
    "https://claude.ai./cb",
    "https://.claude.ai/cb",
    "https://claude..ai/cb",
    "https://" + "a." * 130 + "ai/cb",
    "https://*.claude.ai/cb",
    "https://2130706433/cb",
    "https://0x7f.1/cb",
    "https://0x7f000001/cb",
    "https://127.1/cb",
    "https://127.0.0.01/cb",
    "https://1.2.3.256/cb",
    "https://[::1/cb",
    "https://[0:0::1]/cb",
    "https://[fe80::1%25eth0]/cb",
    "http://claude.ai/cb",
    "http://127.0.0.1.evil.example/cb",
    "http://localhost.evil.example/cb",
    "http://localhost@evil.example/cb",
    "http://127.0.0.2/cb",
    "http://[::ffff:127.0.0.1]/cb",
    "https://[::ffff:127.0.0.1]/cb",
    "http://0.0.0.0/cb",
    "http://localhost./cb",
    "http://LOCALHOST/cb",
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,x",
    "vbscript:x",
    "file:///etc/passwd",
    "blob:https://claude.ai/x",
    "about:blank",
    "view-source:https://claude.ai/cb",
    "urn:ietf:wg:oauth:2.0:oob",
    "vscode://x/cb",
    CURSOR + "/",
    CURSOR + "?x=1",
    CURSOR.upper(),
    "https://claude.ai/" + "a" * LONGEST,
]


@pytest.mark.parametrize("uri", WELCOME)
def test_what_clients_in_use_register_is_taken(uri: str) -> None:
    """Https anywhere, loopback in clear, and private schemes that are listed, exactly."""
    assert RULES.allow(uri)
    assert is_registered(uri, [uri])


@pytest.mark.attack("redirect-not-exact")
@pytest.mark.parametrize("uri", HOSTILE)
def test_what_reads_in_two_ways_or_runs_is_not_registered(uri: str) -> None:
    """User, fragment, escapes, odd hosts, clear text and schemes that run are refused."""
    assert not RULES.allow(uri)


@pytest.mark.attack("redirect-not-exact")
@pytest.mark.parametrize(
    "uri",
    ["javascript:alert(1)", "data:x", "http://evil.example/cb", "https://a@b/", "x:a#b", "x:a b"],
)
def test_no_list_lets_in_what_runs_or_goes_in_clear(uri: str) -> None:
    """An entry of private_redirect_uris opens schemes of programs and nothing else."""
    assert not RedirectRules(frozenset({uri})).allow(uri)


@pytest.mark.attack("redirect-not-exact")
@pytest.mark.parametrize(
    ("registered", "sent"),
    [
        (CLAUDE, CLAUDE[:-1]),
        (CLAUDE, CLAUDE + "/"),
        (CLAUDE, CLAUDE + "/x"),
        (CLAUDE, CLAUDE + "?x"),
        (CLAUDE, CLAUDE + "#x"),
        (CLAUDE, CLAUDE.replace("claude.ai", "x.claude.ai")),
        (CLAUDE, CLAUDE.replace("claude.ai", "claude.ai.evil.example")),
        (CLAUDE, CLAUDE.replace("claude.ai", "claude.ai@evil.example")),
        (CLAUDE, CLAUDE.replace("claude.ai", "claude.ai:443")),
        (CLAUDE, CLAUDE.replace("claude.ai", "claude.ai:8443")),
        (CLAUDE, CLAUDE.replace("https", "http")),
        (CLAUDE, CLAUDE.replace("claude", "CLAUDE")),
        (CLAUDE, CLAUDE.replace("/api", "/%61pi")),
        (CLAUDE, "javascript:alert(1)"),
        (CLAUDE, ""),
        (CLAUDE, "http://127.0.0.1/api/mcp/auth_callback"),
        ("https://localhost:1/cb", "https://localhost:2/cb"),
        ("http://127.0.0.1:1/cb", "http://localhost:1/cb"),
        ("http://localhost:1/cb", "http://127.0.0.1:1/cb"),
        ("http://127.0.0.1:1/cb", "http://[::1]:1/cb"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.2:1/cb"),
        ("http://127.0.0.1:1/cb", "https://127.0.0.1:1/cb"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1:1/cb/"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1:1/cb?x"),
        ("http://127.0.0.1:1/cb?x", "http://127.0.0.1:1/cb"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1:1/x/../cb"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1:99999/cb"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1:/cb"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1:1@evil.example/cb"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb#x"),
        ("http://127.0.0.1", "http://127.0.0.1.evil.example"),
        (CURSOR, CURSOR + "?x"),
    ],
)
def test_what_is_nearly_registered_is_not(registered: str, sent: str) -> None:
    """Prefixes, sub-domains, users, fragments, other ports and schemes are other places."""
    assert not is_registered(sent, [registered])


def test_nothing_registered_takes_nothing() -> None:
    """A client without redirect URIs is sent nowhere."""
    assert not is_registered("http://127.0.0.1/cb", [])


@given(
    st.sampled_from(["127.0.0.1", "[::1]", "localhost"]),
    st.one_of(st.none(), st.integers(1, 65535)),
    st.integers(1, 65535),
    st.sampled_from(["", "/", "/cb", "/cb?x=1"]),
)
def test_any_port_of_loopback_is_the_same(
    host: str, port: int | None, other: int, tail: str
) -> None:
    """Programs listen where the system lets them (RFC 8252, section 7.3)."""
    registered = f"http://{host}{'' if port is None else f':{port}'}{tail}"

    assert RULES.allow(registered)
    assert is_registered(f"http://{host}:{other}{tail}", [registered])
    assert is_registered(f"http://{host}{tail}", [registered])


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_nothing_but_the_registered_matches_away_from_loopback(text: str) -> None:
    """Whatever is appended or put before, it is not what is registered."""
    for sent in (CLAUDE + text, text + CLAUDE, "https://claude.ai" + text):
        assert is_registered(sent, [CLAUDE]) == (sent == CLAUDE)


@example("?@")
@example("good.example?@evil.example/")
@given(st.text(alphabet=string.printable + "а\u202e\x00", max_size=60))  # noqa: RUF001
def test_what_is_allowed_is_plain(tail: str) -> None:
    """Whatever passes is visible ASCII of one spelling without what misleads."""
    for uri in ("https://" + tail, "http://localhost" + tail, tail):
        if RULES.allow(uri):
            assert uri.isascii()
            assert uri.isprintable()
            assert not set(uri) & set('#\\<> "{}|^`')
            assert "@" not in uri.split("/")[2]
            assert redirect_host(uri)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        (CLAUDE, "claude.ai"),
        ("https://example.com:8443/cb", "example.com"),
        ("https://[2001:db8::1]/cb", "[2001:db8::1]"),
        ("https://nas/cb", "nas."),
        ("https://cursor/cb", "cursor."),
        (CURSOR, "cursor"),
        ("http://127.0.0.1:1/cb", "loopback"),
        ("http://[::1]/cb", "loopback"),
        ("http://localhost", "loopback"),
        ("https://localhost/cb", "loopback"),
        ("https://claude.localhost/cb", "loopback"),
        ("https://127.9.9.9/cb", "loopback"),
        ("https://0.0.0.0/cb", "loopback"),
        ("https://[::]/cb", "loopback"),
        ("https://[::ffff:7f00:1]/cb", "loopback"),
        ("https://[::ffff:0:0]/cb", "loopback"),
        ("https://[::ffff:102:304]/cb", "[::ffff:102:304]"),
    ],
)
def test_a_place_is_a_host_loopback_or_a_scheme(uri: str, place: str) -> None:
    """However this machine is spelled, it is loopback."""
    assert redirect_host(uri) == place

"""The pages: their headers, and what of a stranger's words gets onto them."""

import re
import unicodedata
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from starlette.responses import Response

from authz.core.policy import OperationKind
from authz.login.clients.identity import identify
from authz.login.clients.redirects import place_of
from authz.login.protocol.authorization import AuthorizationRequest
from authz.login.protocol.resources import OpenedOperations, ResourceServer
from authz.login.protocol.values import ClientIdentity, ClientKind, OAuthClient
from authz.login.web.client_description import Trust, describe_client, describe_place, shown
from authz.login.web.rendering import Pages, redirect
from authz.login.web.sessions import OwnGrant
from authz.login.web.step_up import describe_ticket
from authz.tokens.tickets import ticket_of, ticket_value
from tests.login.web.pages_kit import TICKET

PAGES = Pages("https://mcp.example.com", "https://auth.example.com")
CLIENT = OAuthClient("claude", ClientKind.DYNAMIC, "Claude", "", ())
DOCUMENTED = replace(CLIENT, kind=ClientKind.DOCUMENT, document_host="claude.ai")
CONFIGURED = replace(CLIENT, kind=ClientKind.CONFIGURED, client_name="")
HTTPS = "https://app.example.com/callback"
SCOPES = ("mcp:files", "offline_access")
SERVER = ResourceServer(
    "files", "https://mcp.example.com/files", frozenset(), frozenset(SCOPES),
    two_factor=True, groups=False,
)  # fmt: skip
_ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "strong", "main", "footer"),
    *("h1", "h2", "p", "section", "bdi", "dl", "dt", "dd", "span", "ul", "li", "code", "form"),
    *("input", "div", "button", "a", "label"),
}
_ATTRIBUTES = {
    *("lang", "charset", "name", "content", "class", "aria-label", "id", "method", "action"),
    *("type", "value", "href", "for", "checked"),
}


def consent(client: OAuthClient = CLIENT, redirect_uri: str = HTTPS, **changes: Any) -> Response:
    asked = AuthorizationRequest(
        client_id=client.client_id,
        redirect_uri=redirect_uri,
        state=None,
        challenge="",
        server="files",
        resource="https://mcp.example.com/files",
        scopes=SCOPES,
        two_factor=True,
    )
    who = identify(client, redirect_uri)
    return PAGES.consent(replace(asked, **changes), who, SERVER, "a-token", "a=b; Path=/")


def text(response: Response) -> str:
    return bytes(response.body).decode()


def words(response: Response) -> str:
    body = text(response).partition("</head>")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", "", body)).split())


def policy(response: Response) -> dict[str, str]:
    directives = response.headers["content-security-policy"].split("; ")
    return {name: value for name, _, value in (each.partition(" ") for each in directives)}


class Elements(HTMLParser):
    """Read what a browser would."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.data: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.data.append(data)


def every_page() -> Mapping[str, Response]:
    return {
        "consent": consent(),
        "error": PAGES.error(403, "It did not work", "Try again.", "request-1"),
        "go_back": PAGES.go_back("cursor://x/callback?code=1", CLIENT.client_name),
        "log_in": PAGES.page("log_in.html", {"form_token": "x"}, has_form=True),
    }


@pytest.mark.attack("framing")
@pytest.mark.parametrize("name", every_page())
def test_headers(name: str) -> None:
    """No page is framed, kept, sniffed, shared with an opener, or loads anything."""
    page = every_page()[name]
    found = policy(page)
    style = re.search(r"<style>(.*?)</style>", text(page), re.DOTALL)
    assert style is not None
    digest = b64encode(sha256(style[1].encode()).digest()).decode()
    assert found["default-src"] == "'none'"
    assert found["style-src"] == f"'sha256-{digest}'"
    assert found["frame-ancestors"] == "'none'"
    assert found["base-uri"] == "'none'"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "permissions-policy" in page.headers
    assert ("<form" in text(page)) == (found["form-action"] != "'none'")


def test_opener() -> None:
    """A page is cut off from whoever opened it, but for those that a client's log-in goes through:
    a client in a browser waits for its window.
    """
    header = "cross-origin-opener-policy"
    alone = {name for name, page in every_page().items() if header in page.headers}
    assert alone == {"error", "go_back", "log_in"}
    assert header not in redirect("https://auth.example.com/x").headers


def test_referrer() -> None:
    """No page gives an address away; one with a form says its origin, or its form could not be
    told from another site's.
    """
    found = {name: page.headers["referrer-policy"] for name, page in every_page().items()}
    assert found == {
        "consent": "strict-origin",
        "log_in": "strict-origin",
        "error": "no-referrer",
        "go_back": "no-referrer",
    }
    assert redirect("https://auth.example.com/x").headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("redirect_uri", [HTTPS, "http://[::1]:33418/", "cursor://x/callback"])
def test_form_action(redirect_uri: str) -> None:
    """A form leads to our own pages alone, whoever the client: Chromium counts all the redirects
    that follow, so the answer to a form is a page that leads on by itself.
    """
    assert policy(consent(redirect_uri=redirect_uri))["form-action"] == "'self'"
    for onward in (PAGES.go_on(HTTPS), PAGES.go_back(HTTPS, CLIENT.client_name, alone=False)):
        assert onward.status_code == 200
        assert onward.headers["refresh"] == f"0; url={HTTPS}"
        assert f'href="{HTTPS}"' in text(onward)
        assert policy(onward)["form-action"] == "'none'"
        assert "cross-origin-opener-policy" not in onward.headers


def test_consent_form() -> None:
    """The page holds one form, as the flow and every browser test expect it."""
    page = text(consent())
    assert '<form id="consent" method="post" action="/authz/consent"' in page
    assert '<input type="hidden" name="form_token" value="a-token">' in page
    assert '<button name="decision" value="approve">' in page
    assert 'name="decision" value="deny"' in page
    assert page.count("<form") == 1
    assert consent().headers.getlist("set-cookie") == ["a=b; Path=/"]


def test_consent_says() -> None:
    """The page names the application, the server, each scope, and what comes next."""
    page = words(consent(DOCUMENTED, "https://claude.ai/cb"))
    for said in (
        "claude.ai",
        "Host checked",
        "files",
        "https://mcp.example.com/files",
        "mcp:files",
    ):
        assert said in page
    assert "stay connected" in page
    assert "second factor" in page
    assert "auth.example.com" in page
    assert "second factor" not in words(consent(two_factor=False))


def test_scopes_say_what_they_open() -> None:
    """Each scope has the operator's words, else ours, and the operations that need it, a few of
    each kind; what is needed in any case has no box, and where nothing can be left out no line
    says so.
    """
    tools = [OpenedOperations(OperationKind.TOOL, f"tool_{number}") for number in range(10)]
    opens = {"w": (*tools, OpenedOperations(OperationKind.PROMPT, "review_*"))}
    server = replace(SERVER, own=frozenset("r"), scopes=frozenset("rw"), opens=opens)
    pages = Pages("https://mcp.example.com", "https://auth.example.com", {"w": "write <b>it</b>"})
    asked = AuthorizationRequest(
        "c", HTTPS, None, "", "files", "x", ("r", "w"), two_factor=False, optional=("w",)
    )
    who = identify(CLIENT, HTTPS)
    page = pages.consent(asked, who, server, "t")
    said = words(page)
    assert "r always needed w write <b>it</b>" in said
    assert "Tools: tool_0, tool_1, tool_2" in said
    assert "tool_7 and 2 more Prompts: review_*" in said
    boxes = re.findall(r'<input type="checkbox"[^>]*>', text(page))
    assert boxes == ['<input type="checkbox" id="scope-0" name="scope-0" value="on" checked>']
    plain = pages.consent(replace(asked, scopes=("r",), optional=()), who, server, "t")
    assert '<input type="checkbox' not in text(plain)
    assert "always needed" not in words(plain)
    assert "Untick" not in words(plain)


def test_times() -> None:
    """A page with times has our script alone, by its hash, and every other page none; times are
    read without it.
    """
    content = {"ticket": TICKET, "who": describe_ticket(TICKET), "at": 0, "totp": True, "age": "",
               "form_token": "t", "log_out": ""}  # fmt: skip
    page = PAGES.page("step_up.html", content, has_form=True, has_times=True)
    script = re.search(r"<script>(.*?)</script>", text(page), re.DOTALL)
    assert script is not None
    digest = b64encode(sha256(script[1].encode()).digest()).decode()
    assert policy(page)["script-src"] == f"'sha256-{digest}'"
    assert policy(page)["require-trusted-types-for"] == "'script'"
    assert '<time datetime="1970-01-01T00:00:00Z">01 Jan 1970, 00:00 UTC</time>' in text(page)
    for other in every_page().values():
        assert "<script" not in text(other)
        assert "script-src" not in policy(other)


@pytest.mark.attack("client-title-on-pages")
def test_the_step_up_page_marks_what_a_client_calls_itself() -> None:
    """Its own name stands there as its own words, as on the consent page, and changes nothing of
    what is said of it.
    """
    who = describe_ticket(TICKET, "Set up here</section>")
    content = {"ticket": TICKET, "who": who, "at": 0, "totp": True, "age": "",
               "form_token": "t", "log_out": ""}  # fmt: skip
    page = PAGES.page("step_up.html", content, has_form=True)
    assert "It calls itself “Set up here</section>”." in words(page)
    assert "It calls itself" not in words(
        PAGES.page("step_up.html", content | {"who": describe_ticket(TICKET)}, has_form=True)
    )
    assert replace(who, claim="") == describe_ticket(TICKET)


@pytest.mark.attack("consent-verified")
@pytest.mark.parametrize(
    ("client", "redirect_uri", "trust"),
    [
        (DOCUMENTED, "https://claude.ai/cb", "document"),
        (DOCUMENTED, "https://claude.ai:8443/cb", "unverified"),
        (DOCUMENTED, "https://redirect.example.com/cb", "unverified"),
        (CONFIGURED, HTTPS, "known"),
        (CLIENT, HTTPS, "unverified"),
        *(
            (client, uri, "unverified")
            for client in (DOCUMENTED, CONFIGURED, CLIENT)
            for uri in (
                "http://127.0.0.1:1/",
                "http://localhost:1/",
                "https://localhost/",
                "http://[::1]:1/",
                "cursor://anysphere.cursor-mcp/oauth/callback",
                "com.example:/x",
            )
        ),
    ],
)
def test_trust(client: OAuthClient, redirect_uri: str, trust: str) -> None:
    """A host is checked where the document is and the log-in ends there; of what ends on a computer
    of somebody's nothing ever is, whatever it shows.
    """
    found = describe_client(identify(client, redirect_uri))
    assert found.trust.value == trust
    page = words(consent(client, redirect_uri))
    assert ("Host checked" in page) == (trust == "document")
    assert ("Unverified" in page) == (trust == "unverified")
    if trust == "unverified":
        assert "unverified" in found.heading
        assert "claude" not in found.heading or redirect_uri.startswith("https://claude.ai:")


@pytest.mark.attack("consent-verified")
def test_no_more_is_said_of_a_host_than_was_checked() -> None:
    """A stranger's file at a host that people share: the page says where it is, that nothing else
    was checked, and whose it may be; it calls nobody verified and nothing the host's own.
    """
    host = "raw.githubusercontent.com"
    found = describe_client(identify(replace(DOCUMENTED, document_host=host), f"https://{host}/x"))
    page = words(consent(replace(DOCUMENTED, document_host=host), f"https://{host}/x"))
    assert found.heading == f"an application described at {host}"
    assert f"Its description is at {host}, and so is the address where its log-in ends." in page
    assert "all that was checked: where others can publish there too, it may be theirs." in page
    assert "Go on only if you know that name" in page
    assert not re.search(r"(?i)\bverified\b|vouch", page)


@pytest.mark.attack("client-title-on-pages")
@pytest.mark.parametrize(
    "client_name",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "Claude\u202e)deifirev(",
        "a\u2066b\u2069\u200f\u061c\u200b\ufeff\u00ad",
        "x" * 5000,
        "a\r\nSet-Cookie: x=1",
        "{{ 7 * 7 }} {% raw %}",
        "Z" + "\u0301" * 90,
        "\U000e0041\ue000\ud800",
        "&lt;b&gt;",
    ],
)
def test_hostile_client_name(client_name: str) -> None:
    """What a client calls itself is text of one line, as what it says, on every page."""
    hostile = replace(CLIENT, client_name=client_name, client_id=client_name)
    for page in (consent(hostile), PAGES.go_back("cursor://x/y", hostile.client_name)):
        _harmless(text(page))
        assert "49" not in words(page)
    assert "It calls itself “" in words(consent(hostile))


def _harmless(page: str) -> None:
    elements = Elements()
    elements.feed(page)
    assert elements.elements <= _ELEMENTS
    assert elements.attributes <= _ATTRIBUTES
    for character in page:
        assert character == "\n" or unicodedata.category(character)[0] != "C"


@given(st.text(), st.text(), st.lists(st.text(), max_size=4))
def test_any_words(client_name: str, server: str, scopes: list[str]) -> None:
    """Whatever names are made of, a page has our elements only, and no text that turns others."""
    client = replace(CLIENT, client_name=client_name)
    page = consent(
        client, server=server, resource=client_name, scopes=tuple(scopes), optional=tuple(scopes)
    )
    _harmless(text(page))


@given(st.text(max_size=300) | st.text("a \u0301\u200b\u202e\u2028…", max_size=300))
@example("a\u0301\u0301\u200b\u0301")
@example("a \u200b b")
def test_shown(line: str) -> None:
    """What is shown is one short line, and is shown again as it is."""
    found = shown(line)
    assert len(found) <= 100
    assert shown(found) == found
    assert not any(unicodedata.category(each)[0] == "C" for each in found)
    assert not {"\n", "\r", "\u2028", "\u202e"} & set(found)


def test_shown_as_it_is() -> None:
    """Honest names of any script stay."""
    for name in ("Claude", "Café «x»", "日本語", "עברית", "नमस्ते", "😀", "a b"):
        assert shown(name) == name


LATER = ("https://claude.ai/cb", "https://redirect.example.com/cb", "http://127.0.0.1:1/", "x:/y")


@pytest.mark.attack("document-foreign-redirect")
@pytest.mark.parametrize("client", [CLIENT, DOCUMENTED, CONFIGURED])
@pytest.mark.parametrize("redirect_uri", LATER)
def test_every_page_says_the_same_of_a_log_in(client: OAuthClient, redirect_uri: str) -> None:
    """Consent, step-up and the list of log-ins have one heading, one badge and the same facts."""
    who = identify(client, redirect_uri)
    found = describe_client(who)
    ticket = ticket_of(
        ticket_value(
            replace(TICKET, client=who.name, ends_at=who.ends_at, document_host=who.document_host)
        )
    )
    row = {"who": found, "grant": OwnGrant("g", who, "files", (), 0, 1), "form_token": "t",
           "used": 0}  # fmt: skip
    step_up = {"ticket": ticket, "who": describe_ticket(ticket), "at": 0, "totp": True, "age": "",
               "form_token": "t", "log_out": ""}  # fmt: skip
    pages = (
        consent(client, redirect_uri),
        PAGES.page("step_up.html", step_up, has_form=True),
        PAGES.page(
            "log_ins.html",
            {"account": "", "grants": [row], "proofs": [], "lately": [], "sign_out_token": "t"},
            has_form=True,
        ),
    )
    for page in map(words, pages):
        for said in (found.heading, found.badge, *found.facts):
            assert " ".join(said.split()) in page
        others = {"Host checked", "Set up here", "Unverified"} - {found.badge}
        assert not any(re.search(rf"\b{other}\b", page) for other in others)


@pytest.mark.parametrize(
    ("name", "heading", "trust"),
    [
        ("claude", "claude", Trust.CONFIGURED),
        ("https://claude.ai", "an unverified application", Trust.UNVERIFIED),
        ("dynamic/loopback", "an unverified program on your computer", Trust.UNVERIFIED),
        (
            "dynamic/app.example.com",
            "an unverified application at app.example.com",
            Trust.UNVERIFIED,
        ),
        (
            "dynamic/<b>",
            "an unverified application at an address that cannot be shown",
            Trust.UNVERIFIED,
        ),
    ],
)
def test_a_log_in_whose_end_was_not_recorded(name: str, heading: str, trust: Trust) -> None:
    """Of before it was: described by its name alone, and by that nobody is verified."""
    found = describe_client(ClientIdentity(name, "", "", "", ""))
    assert (found.heading, found.trust) == (heading, trust)


def test_hosts_as_in_dns() -> None:
    """A host is shown as DNS has it, so that look-alike letters stand out."""

    def shown_place(uri: str) -> str:
        return describe_place(place_of(uri))

    assert shown_place("https://xn--cludeai-3ve.example/") == "xn--cludeai-3ve.example"
    assert shown_place("https://cl\u0430ude.ai/") == "an address that cannot be shown"
    assert shown_place("https://claude.ai@evil.example/") == "evil.example"
    assert shown_place("http://127.0.0.1:1/") == "a program on your computer"


@pytest.mark.attack("go-back-elsewhere")
@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:https://mcp.example.com/x",
        "cursor://x/y z",
        "cursor://x/\r\nSet-Cookie: a=b",
        "cursor://x/é",
        "//evil.example/",
        "",
    ],
)
def test_go_back_refuses(url: str) -> None:
    """No page leads to what a browser would run or read, or to what splits a header."""
    with pytest.raises(ValueError, match="no URL"):
        PAGES.go_back(url, CLIENT.client_name)
    with pytest.raises(ValueError, match="no URL"):
        PAGES.go_on(url)


def test_go_back() -> None:
    """The page opens the application by itself, and by a link where it does not."""
    url = "cursor://anysphere.cursor-mcp/oauth/callback?code=a&state=b"
    page = PAGES.go_back(url, CLIENT.client_name)
    assert page.headers["refresh"] == f"0; url={url}"
    assert f'href="{url.replace("&", "&amp;")}"' in text(page)
    assert "You are logged in" in words(page)
    denied = PAGES.go_back("cursor://x/callback?error=access_denied&state=b", CLIENT.client_name)
    assert "You are not logged in" in words(denied)


@pytest.mark.parametrize("url", ["https://a/\r\nx: y", "https://a/ b", "https://a/é", ""])
def test_redirect_refuses(url: str) -> None:
    """A redirect splits no header."""
    with pytest.raises(ValueError, match="no URL"):
        redirect(url)


def test_redirect() -> None:
    """A redirect is a GET, and its URL is sent to the letter."""
    url = "http://127.0.0.1:1/callback?code=a%2Fb&x='|y"
    response = redirect(url)
    assert response.status_code == 303
    assert response.headers["location"] == url


def test_nothing_is_left_out() -> None:
    """A page that lacks a value is not sent with a hole."""
    with pytest.raises(UndefinedError):
        PAGES.page("error.html", {"happened": "x"})


def test_error_page() -> None:
    """An error says what happened, what to do, and under what the log has it."""
    page = PAGES.error(403, "It did not work", "Try again.", "request-1", ("/x", "Begin again"))
    assert page.status_code == 403
    for said in ("It did not work", "Try again.", "request-1", "Begin again"):
        assert said in words(page)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back"),
    [
        ("text", "card"),
        ("text", "ground"),
        ("soft", "card"),
        ("soft", "ground"),
        ("accent", "card"),
        ("on-accent", "accent"),
        ("on-accent", "press"),
        ("good", "good-ground"),
        ("warn", "warn-ground"),
        ("bad", "card"),
    ],
)
def test_contrast(scheme: str, front: str, back: str) -> None:
    """Text can be read in light and in dark (WCAG 2.2, 1.4.3: 4.5 to 1)."""
    light, dark = re.findall(r":root \{(.*?)\}", text(consent()), re.DOTALL)[:2]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    bright = sorted(_luminance(colours[name]) for name in (front, back))
    assert (bright[1] + 0.05) / (bright[0] + 0.05) >= 4.5

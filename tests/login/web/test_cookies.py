"""Forms and transactions, and the browsers that they belong to."""

import asyncio
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from authz.login.web.cookies import (
    FIELD,
    LARGEST,
    BrowserCookies,
    CookieTooLargeError,
    LoginEnd,
    NotThisBrowserError,
    Purpose,
    read_cookies,
    read_form,
)
from authz.tokens.sealing import Sealer
from tests.demo.kit import DemoClock
from tests.support.examples import examples

ORIGIN = "https://mcp.example.test"
GOOD = [("origin", ORIGIN), ("sec-fetch-site", "same-origin")]


class Jar:
    """One browser: keeps cookies as RFC 6265 has it, oldest first."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}

    def take(self, *set_cookies: str) -> None:
        for line in set_cookies:
            (morsel,) = SimpleCookie(line).values()
            assert morsel["path"] == "/"
            assert morsel["secure"]
            assert morsel["httponly"]
            assert morsel["samesite"] == "Lax"
            assert not morsel["domain"]
            assert morsel.key.startswith("__Host-")
            assert len(morsel.key) + len(morsel.value) < 4096
            if morsel["max-age"] == "0":
                self.cookies.pop(morsel.key, None)
            else:
                self.cookies[morsel.key] = morsel.value

    def answer(self, response: Response) -> None:
        self.take(*response.headers.getlist("set-cookie"))

    def request(
        self, method: str = "GET", headers: list[tuple[str, str]] | None = None, body: bytes = b""
    ) -> Request:
        header = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = [*([("cookie", header)] if header else []), *(headers or [])]
        scope = {
            "type": "http",
            "method": method,
            "path": "/",
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        return Request(scope, receive)

    def post(self, headers: list[tuple[str, str]] | None = None) -> Request:
        return self.request("POST", GOOD if headers is None else headers)


@pytest.fixture
def clock() -> DemoClock:
    return DemoClock()


@pytest.fixture
def browser(clock: DemoClock) -> BrowserCookies:
    return BrowserCookies(Sealer(["a" * 32], clock), ORIGIN)


def of(name: str) -> Purpose[dict[str, Any]]:
    """A purpose whose values are JSON as they stand."""
    return Purpose(name, dict, dict, is_page=name == "problem")


def shown(
    browser: BrowserCookies, jar: Jar, purpose: str = "consent", **about: Any
) -> dict[str, str]:
    """Open a page; return the fields of its form."""
    token, cookie = browser.form_token(jar.request(), of(purpose), about)
    if cookie is not None:
        jar.take(cookie)
    return {FIELD: token}


def refused(browser: BrowserCookies, request: Request, form: dict[str, str], purpose: str) -> bool:
    try:
        browser.check_post(request, form, of(purpose))
    except NotThisBrowserError:
        return True
    return False


def begin(
    browser: BrowserCookies, jar: Jar, state: str, size: int = 10, purpose: str = "front"
) -> None:
    response = Response()
    value = {"of": state, "pad": "x" * size}
    browser.keep(jar.request(), response, state, of(purpose), value)
    jar.answer(response)


def test_form(browser: BrowserCookies) -> None:
    """A form comes back with what it is about, from the browser that was shown it."""
    jar = Jar()
    form = shown(browser, jar, about="claude")
    assert browser.check_post(jar.post(), form, of("consent")) == {"about": "claude"}


def test_tabs_share_their_cookie(browser: BrowserCookies) -> None:
    """The forms of many tabs stay good, the first two at once included, in any order."""
    jar = Jar()
    first, one = browser.form_token(jar.request(), of("consent"), {})
    second, two = browser.form_token(jar.request(), of("consent"), {})
    assert one is not None
    assert two is not None
    jar.take(one, two)
    third, three = browser.form_token(jar.request(), of("consent"), {})
    assert three is None
    for token in (third, first, second):
        assert not refused(browser, jar.post(), {FIELD: token}, "consent")


def test_forms_of_one_page(browser: BrowserCookies) -> None:
    """All forms of a page that is the browser's first are good with its one cookie."""
    jar, request = Jar(), Jar().request()
    first, one = browser.form_token(request, of("a"), {})
    second, two = browser.form_token(request, of("b"), {})
    assert one == two
    assert one is not None
    jar.take(one)
    assert not refused(browser, jar.post(), {FIELD: first}, "a")
    assert not refused(browser, jar.post(), {FIELD: second}, "b")


@pytest.mark.attack("consent-cross-site")
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("origin", "null")],
        [("origin", "https://evil.example.test")],
        [("origin", "http://mcp.example.test")],
        [("origin", "https://mcp.example.test:444")],
        [("origin", "https://mcp.example.test/")],
        [("origin", "https://mcp.example.test.evil.test")],
        [("origin", ORIGIN), ("origin", "https://evil.example.test")],
        [("origin", ORIGIN), ("sec-fetch-site", "cross-site")],
        [("origin", ORIGIN), ("sec-fetch-site", "same-site")],
        [("origin", ORIGIN), ("sec-fetch-site", "none")],
    ],
)
def test_origin(browser: BrowserCookies, headers: list[tuple[str, str]]) -> None:
    """A form of another origin is refused, with everything else right; no origin is another."""
    jar = Jar()
    form = shown(browser, jar)
    assert not refused(browser, jar.post(), form, "consent")
    assert not refused(browser, jar.post([("origin", ORIGIN)]), form, "consent")
    assert refused(browser, jar.post(headers), form, "consent")


@pytest.mark.parametrize(
    ("configured", "sent"),
    [
        ("https://mcp.example.test:443", ORIGIN),
        ("https://MCP.example.test", ORIGIN),
        ("https://mcp.example.test:8443", ORIGIN + ":8443"),
        ("http://localhost:80", "http://localhost"),
    ],
)
def test_origin_as_browsers_send_it(clock: DemoClock, configured: str, sent: str) -> None:
    """The gateway's origin is known however it was written."""
    browser, jar = BrowserCookies(Sealer(["a" * 32], clock), configured), Jar()
    form = shown(browser, jar)
    assert not refused(browser, jar.post([("origin", sent)]), form, "consent")


@pytest.mark.attack("consent-cross-site")
def test_form_of_another(browser: BrowserCookies, clock: DemoClock) -> None:
    """Another browser's, another page's, an old, an altered, a missing token: refused."""
    jar, thief = Jar(), Jar()
    form, stolen = shown(browser, jar), shown(browser, thief)
    assert refused(browser, jar.post(), stolen, "consent")
    assert refused(browser, thief.post(), form, "consent")
    assert refused(browser, Jar().post(), form, "consent")
    assert refused(browser, jar.post(), form, "step-up")
    assert refused(browser, jar.post(), {}, "consent")
    token = form[FIELD]
    altered = token[:-9] + ("B" if token[-9] == "A" else "A") + token[-8:]
    assert refused(browser, jar.post(), {FIELD: altered}, "consent")
    assert refused(browser, jar.request("GET", GOOD), form, "consent")
    clock.at += 599
    assert not refused(browser, jar.post(), form, "consent")
    clock.at += 1
    assert refused(browser, jar.post(), form, "consent")


def test_transaction(browser: BrowserCookies, clock: DemoClock) -> None:
    """A transaction is taken in its browser, for its purpose, in ten minutes, until forgotten."""
    jar = Jar()
    begin(browser, jar, "s")
    assert browser.read(jar.request(), "s", of("front"))["of"] == "s"
    for other, state, purpose in ((Jar(), "s", "front"), (jar, "t", "front"), (jar, "s", "step")):
        with pytest.raises(NotThisBrowserError):
            browser.read(other.request(), state, of(purpose))
    response = Response()
    browser.forget(response, "s", of("front"))
    before = dict(jar.cookies)
    jar.answer(response)
    assert not jar.cookies
    jar.cookies = before
    clock.at += 600
    with pytest.raises(NotThisBrowserError):
        browser.read(jar.request(), "s", of("front"))


@pytest.mark.attack("callback-another-browser")
def test_cookie_under_another_name(browser: BrowserCookies) -> None:
    """A transaction's cookie is worth nothing under the name of another state."""
    jar = Jar()
    begin(browser, jar, "mine")
    begin(browser, jar, "theirs")
    mine, theirs = jar.cookies
    jar.cookies = {theirs: jar.cookies[mine]}
    with pytest.raises(NotThisBrowserError):
        browser.read(jar.request(), "theirs", of("front"))


@pytest.mark.attack("tabs-collide")
@examples(60)
@given(st.data())
def test_tabs_never_collide(data: st.DataObject) -> None:
    """Whatever the order in which two people's tabs begin and end, each gets its own."""
    browser = BrowserCookies(Sealer(["a" * 32], DemoClock()), ORIGIN)
    jars = [Jar(), Jar()]
    open_tabs: list[tuple[int, str]] = []
    for number in range(data.draw(st.integers(1, 12))):
        whose = data.draw(st.integers(0, 1))
        if len([tab for tab in open_tabs if tab[0] == whose]) < 8 and data.draw(st.booleans()):
            begin(browser, jars[whose], f"state-{number}")
            open_tabs.append((whose, f"state-{number}"))
        elif open_tabs:
            tab = open_tabs.pop(data.draw(st.integers(0, len(open_tabs) - 1)))
            request = jars[tab[0]].request()
            assert browser.read(request, tab[1], of("front"))["of"] == tab[1]
            with pytest.raises(NotThisBrowserError):
                browser.read(jars[1 - tab[0]].request(), tab[1], of("front"))
            response = Response()
            browser.forget(response, tab[1], of("front"))
            jars[tab[0]].answer(response)
    for whose, state in open_tabs:
        assert browser.read(jars[whose].request(), state, of("front"))["of"] == state


@pytest.mark.parametrize(("size", "most"), [(10, 16), (2300, 5)])
def test_bounded(browser: BrowserCookies, size: int, most: int) -> None:
    """A browser keeps sixteen transactions at most, fewer where they are large: the newest. Of
    those that made room it knows as much, of sixty-four; Envoy takes all of it with a request.
    """
    jar = Jar()
    jar.cookies["another"] = "kept"
    for number in range(100):
        begin(browser, jar, str(number), size)
        assert len(jar.request().headers["cookie"]) < 25 * 1024
    assert len(jar.cookies) == most + 2
    for number in range(100 - most, 100):
        assert browser.read(jar.request(), str(number), of("front"))["of"] == str(number)
        assert browser.login_end(jar.request(), str(number)) is None
    for number in range(100 - most - 64, 100 - most):
        assert browser.login_end(jar.request(), str(number)) is LoginEnd.CROWDED
        with pytest.raises(NotThisBrowserError):
            browser.read(jar.request(), str(number), of("front"))
    assert browser.login_end(jar.request(), str(100 - most - 65)) is None


def test_a_page_after_an_end_makes_no_log_in_end(browser: BrowserCookies) -> None:
    """Pages that tell of ends are bounded among themselves: however many there were, what is under
    way stays.
    """
    jar = Jar()
    for number in range(16):
        begin(browser, jar, str(number))
    for number in range(30):
        begin(browser, jar, f"page-{number}", 1000, "problem")
        assert len(jar.request().headers["cookie"]) < 25 * 1024
    for number in range(16):
        assert browser.read(jar.request(), str(number), of("front"))["of"] == str(number)
    assert browser.read(jar.request(), "page-29", of("problem"))["of"] == "page-29"
    with pytest.raises(NotThisBrowserError):
        browser.read(jar.request(), "page-0", of("problem"))


@pytest.mark.attack("callback-another-browser")
def test_the_end_of_a_transaction_is_remembered(browser: BrowserCookies, clock: DemoClock) -> None:
    """In the browser that had it, for its ten minutes; elsewhere nothing is, and nothing counts."""
    jar, other = Jar(), Jar()
    begin(browser, jar, "s")
    for each in (jar, other):
        response = Response()
        browser.end_login(each.request(), response, "s")
        each.answer(response)
    assert browser.login_end(jar.request(), "s") is LoginEnd.USED
    assert not other.cookies
    assert len(jar.cookies) == 1
    for state in ("s", "t"):
        with pytest.raises(NotThisBrowserError):
            browser.read(jar.request(), state, of("front"))
    assert browser.login_end(jar.request(), "t") is None
    clock.at += 600
    assert browser.login_end(jar.request(), "s") is None


def test_too_large(browser: BrowserCookies) -> None:
    """What a browser would drop silently is refused aloud."""
    begin(browser, Jar(), "s", 2600)
    with pytest.raises(CookieTooLargeError):
        begin(browser, Jar(), "s", LARGEST)


@pytest.mark.attack("cookie-planted")
@pytest.mark.parametrize("blank", ["\x85", "\xa0", "\x0b", "\x0c", "\x1c"])
def test_planted(browser: BrowserCookies, blank: str) -> None:
    """A cookie whose name is only ours once odd blanks are stripped is not ours: a browser lets
    any neighbour set it.
    """
    jar = Jar()
    begin(browser, jar, "s")
    ((name, value),) = jar.cookies.items()
    jar.cookies = {blank + name: value}
    with pytest.raises(NotThisBrowserError):
        browser.read(jar.request(), "s", of("front"))


def test_twice() -> None:
    """A cookie that comes twice counts as none; the order is the browser's."""
    jar = Jar()
    request = jar.request("GET", [("cookie", "b=1; a=2;  c = 3 ; c=4; d"), ("cookie", "b=5;e=")])
    assert dict(read_cookies(request)) == {"a": "2", "e": ""}


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        ("application/x-www-form-urlencoded", b"a=1&b=%C3%A9+x", {"a": "1", "b": "é x"}),
        ("application/x-www-form-urlencoded; charset=utf-8", b"a=", {"a": ""}),
        ("application/x-www-form-urlencoded", b"a=1&a=2", {}),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 32 * 1024, {}),
        ("application/x-www-form-urlencoded", b"&".join(b"%d=1" % n for n in range(130)), {}),
        ("application/x-www-form-urlencoded", b"a=\xff", {}),
        ("multipart/form-data; boundary=x", b"a=1", {}),
        ("text/plain", b"a=1", {}),
        ("", b"a=1", {}),
    ],
)
def test_read_form(kind: str, body: bytes, found: dict[str, str]) -> None:
    """A form is short, of one kind, and names no field twice; anything else is none."""
    request = Jar().request("POST", [("content-type", kind)], body)
    assert asyncio.run(_read(request)) == found


async def _read(request: Request) -> dict[str, str]:
    return dict(await read_form(request))


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_read_any_form(fields: dict[str, str]) -> None:
    """What a browser encodes is what is read."""
    kind = [("content-type", "application/x-www-form-urlencoded")]
    request = Jar().request("POST", kind, urlencode(fields).encode())
    assert asyncio.run(_read(request)) == fields

"""Step-ups against the stand-in issuer, with our real OIDC client: what is recorded."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from authz.core.ledger import StepUpKey
from authz.core.principal import Person
from authz.core.second_factor import Method, StepUpNeed
from authz.login.protocol.values import LoginIdentity, UpstreamLogin
from authz.login.web.error_pages import ErrorPage
from authz.login.web.rendering import format_duration as length
from authz.login.web.step_up import (
    LIFETIME,
    NO_CODE,
    ONLY_PASSWORD,
    TOO_OLD,
    asked_age,
    missing_proof,
)
from tests.demo.kit import BOB, ISSUER, JOHN, DemoWorld
from tests.login.front import onward
from tests.login.web.pages_kit import (
    FROM_OUR_PAGE,
    ORIGIN,
    START,
    TICKET,
    FakeGateway,
    another_nonce,
    forms,
    gateway,
    words,
)

KEY = StepUpKey(Person(ISSUER, JOHN), "grant-1", "notes")
ANY = StepUpNeed(Method.ANY, None)


@pytest.fixture
def pages(world: DemoWorld) -> Iterator[FakeGateway]:
    with gateway(world) as found:
        yield found


def changed(url: str, **changes: str | None) -> str:
    """A callback with other parameters."""
    split = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(split.query).items()} | changes
    kept = {name: value for name, value in query.items() if value is not None}
    return split._replace(query=urlencode(kept)).geturl()


def ended(pages: FakeGateway, browser: httpx.AsyncClient, callback: str) -> httpx.Response:
    """Open a callback that goes wrong; the page at the end, whose address holds no code."""
    answer = pages.get(browser, callback)
    if answer.has_redirect_location:
        answer = pages.get(browser, answer.headers["location"])
        assert str(answer.url).startswith(f"{ORIGIN}/authz/problem?of=")
    return answer


def test_whole(pages: FakeGateway) -> None:
    """A click, a log-in with TOTP: recorded for this person, grant and server, and told."""
    browser = pages.browser()
    done = pages.step_up(browser)
    now = int(pages.world.clock())
    assert pages.records.kept == {KEY: (Method.TOTP, now, LIFETIME)}
    told = words(done)
    for said in ("claude.ai", "notes", "delete_note", "john", "5 minutes from now", "try again"):
        assert said in told
    assert "code=" not in str(done.url)


@pytest.mark.attack("step-up-without-a-click")
def test_waits_for_a_click(pages: FakeGateway) -> None:
    """The link alone asks Authelia nothing, whatever session the browser has; it says what for."""
    browser = pages.browser()
    pages.step_up(browser)
    sent = len(pages.stand.transport.sent)
    page = pages.get(browser, f"{START}?ticket={pages.ticket()}")
    assert page.status_code == 200
    assert len(pages.stand.transport.sent) == sent
    assert "set-cookie" not in page.headers
    for said in ("claude.ai", "delete_note", "notes", "john", "at most 5 minutes old", "UTC"):
        assert said in words(page)
    assert 'http-equiv="refresh"' not in page.text
    assert "refresh" not in page.headers


def test_names_the_client_as_it_calls_itself(pages: FakeGateway) -> None:
    """Where the grant is known the page has the client's own name, marked as such; else none."""
    pages.names.names = {TICKET.grant: "Claude Desktop"}
    browser = pages.browser()
    page = pages.get(browser, f"{START}?ticket={pages.ticket()}")
    assert "It calls itself “Claude Desktop”." in words(page)
    other = pages.get(browser, f"{START}?ticket={pages.ticket(grant='another')}")
    assert "It calls itself" not in words(other)


@pytest.mark.attack("step-up-link-forged")
def test_only_our_tickets(pages: FakeGateway) -> None:
    """No ticket, a made-up one, an old one, one of another issuer's person: no page to click on."""
    old = pages.ticket()
    pages.world.clock.at += 600
    other = pages.ticket(issuer="https://other.example.test")
    for ticket in ("", "x", "a.b.c.d.e", old, other, "é" * 10):
        page = pages.get(pages.browser(), f"{START}?{urlencode({'ticket': ticket})}")
        assert page.status_code == 403
        assert not forms(page)
        assert "request-1" in page.text


@pytest.mark.attack("step-up-cross-site")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example.test"},
        {"Origin": "http://mcp.example.test"},
        {"Origin": f"{ORIGIN}:8443"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_cross_site(pages: FakeGateway, headers: dict[str, str]) -> None:
    """A form that another site sends does nothing, even with the right token and cookie."""
    browser = pages.browser()
    page = pages.get(browser, f"{START}?ticket={pages.ticket()}")
    answer = pages.click(browser, page, headers=headers)
    assert answer.status_code == 403
    assert not pages.stand.transport.sent


@pytest.mark.attack("step-up-cross-site")
def test_form_of_another_browser(pages: FakeGateway) -> None:
    """A form counts in the browser that was shown it, and for what its page was for."""
    page = pages.get(pages.browser(), f"{START}?ticket={pages.ticket()}")
    assert pages.click(pages.browser(), page).status_code == 403
    browser = pages.browser()
    log_in = pages.get(browser, f"{ORIGIN}/authz/log-ins")
    (_, fields), *_ = forms(log_in)
    answer = pages.run(browser.post(START, data=fields, headers=FROM_OUR_PAGE))
    assert answer.status_code == 403
    assert not pages.stand.transport.sent


@pytest.mark.attack("step-up-another-browser")
def test_callback_of_another_browser(pages: FakeGateway) -> None:
    """A click in the thief's browser, the log-in in the victim's: nothing recorded."""
    thief, victim = pages.browser(), pages.browser()
    callback = pages.log_in(victim, pages.begin(thief))
    answer = pages.get(victim, callback)
    assert answer.status_code == 403
    assert not pages.records.kept


@pytest.mark.attack("step-up-replayed")
def test_replayed(pages: FakeGateway) -> None:
    """A callback counts once; a second time in the same browser records nothing anew."""
    browser = pages.browser()
    callback = pages.log_in(browser, pages.begin(browser))
    jar = list(browser.cookies.jar)
    assert pages.get(browser, callback).status_code == 303
    pages.records.kept.clear()
    assert pages.get(browser, callback).status_code == 403  # its cookie is gone
    assert "used already" in pages.get(browser, callback).text
    again = pages.browser()
    for cookie in jar:
        again.cookies.jar.set_cookie(cookie)
    assert "used" in words(ended(pages, again, callback))  # and with the cookie it is used
    assert not pages.records.kept


@pytest.mark.attack("step-up-swapped")
@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example.test"},
        {"iss": None},
        {"iss": f"{ISSUER}/"},
        {"state": "x" * 43},
        {"state": None},
        {"code": None},
        {"code": "authelia_ac_" + "x" * 43 + "." + "y" * 43},
        {"error": "access_denied"},
        {"error": "server_error", "error_description": "<b>"},
    ],
)
def test_swapped(pages: FakeGateway, changes: dict[str, str | None]) -> None:
    """Another issuer's answer, another state, another code, an error: nothing recorded."""
    browser = pages.browser()
    callback = pages.log_in(browser, pages.begin(browser))
    answer = ended(pages, browser, changed(callback, **changes))
    assert answer.status_code in (403, 502)
    assert not pages.records.kept
    assert "<b>" not in answer.text


@pytest.mark.attack("step-up-swapped")
def test_parameters_twice(pages: FakeGateway) -> None:
    """No parameter of an answer comes twice."""
    browser = pages.browser()
    callback = pages.log_in(browser, pages.begin(browser))
    assert pages.get(browser, callback + f"&{urlencode({'iss': ISSUER})}").status_code == 403
    assert not pages.records.kept


@pytest.mark.attack("step-up-swapped")
def test_code_of_another_transaction(pages: FakeGateway) -> None:
    """A code of one step-up is worthless in another: verifier and nonce are of the transaction."""
    browser = pages.browser()
    first = pages.log_in(browser, pages.begin(browser))
    second = pages.log_in(browser, pages.begin(browser, server="files"))
    code = parse_qs(urlsplit(first).query)["code"][0]
    answer = ended(pages, browser, changed(second, code=code))
    assert answer.status_code == 502
    assert not pages.records.kept


@pytest.mark.attack("step-up-swapped")
def test_nonce_of_another_transaction(pages: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ID token that was made for another request proves nothing for this one."""
    another_nonce(pages.stand.transport, monkeypatch)
    browser = pages.browser()
    callback = pages.log_in(browser, pages.begin(browser))
    assert ended(pages, browser, callback).status_code == 502
    assert not pages.records.kept


@pytest.mark.attack("step-up-other-purpose")
def test_transaction_of_another_purpose(pages: FakeGateway) -> None:
    """A visit for one's own log-ins ends at no step-up, with all its cookies."""
    browser = pages.browser()
    sent = pages.click(browser, pages.get(browser, f"{ORIGIN}/authz/log-ins"))
    callback = pages.log_in(browser, onward(sent))
    answer = pages.get(browser, callback.replace("/log-ins/", "/step-up/"))
    assert answer.status_code == 403
    assert not pages.records.kept


@pytest.mark.attack("step-up-other-person")
def test_other_person(pages: FakeGateway) -> None:
    """Somebody else logs in: nothing recorded for anybody, and the page says so."""
    browser = pages.browser()
    done = pages.step_up(browser, {"username": "bob"})
    assert done.status_code == 403
    assert "somebody else" in words(done)
    assert "Nothing was recorded" in words(done)
    assert not pages.records.kept
    assert "/logout?rd=" in done.text
    assert done.text.count("john") == 0, "whose link it was is not told to another person"


@pytest.mark.attack("step-up-of-another")
def test_recorded_for_nobody_else(pages: FakeGateway) -> None:
    """What is recorded names the ticket's person, grant and server, each of them."""
    browser = pages.browser()
    pages.step_up(browser)
    pages.world.clock.at += 60
    pages.step_up(browser, grant="grant-2")
    pages.step_up(browser, server="files")
    assert set(pages.records.kept) == {
        KEY,
        replace(KEY, grant="grant-2"),
        replace(KEY, server="files"),
    }
    pages.records.kept.clear()
    pages.world.clock.at += 60
    pages.step_up(pages.browser(), {"username": "bob"}, subject=BOB)
    assert set(pages.records.kept) == {replace(KEY, person=Person(ISSUER, BOB))}


IDENTITY = LoginIdentity(JOHN, frozenset({"pwd", "kba", "otp", "mfa"}), 1000, "john")


@pytest.mark.attack("step-up-amr")
@pytest.mark.parametrize(
    ("amr", "method", "missing"),
    [
        ({"pwd", "kba", "otp", "mfa"}, Method.TOTP, None),
        ({"pwd", "kba", "otp", "mfa"}, Method.ANY, None),
        ({"pwd", "kba", "pop", "hwk", "mfa"}, Method.ANY, None),
        ({"pwd", "kba", "pop", "hwk", "mfa"}, Method.TOTP, NO_CODE),
        ({"pwd", "kba", "sms", "mfa", "mca"}, Method.TOTP, NO_CODE),
        ({"pwd", "kba"}, Method.ANY, ONLY_PASSWORD),
        ({"pwd", "kba"}, Method.TOTP, ONLY_PASSWORD),
        (set(), Method.ANY, ONLY_PASSWORD),
        ({"otp"}, Method.TOTP, ONLY_PASSWORD),
        ({"mfa"}, Method.TOTP, NO_CODE),
        ({"OTP", "MFA"}, Method.ANY, ONLY_PASSWORD),
        ({"pop", "hwk"}, Method.ANY, ONLY_PASSWORD),
    ],
)
def test_methods(amr: set[str], method: Method, missing: ErrorPage | None) -> None:
    """A log-in counts when its `amr` names what is asked for, to the letter."""
    ticket = replace(TICKET, need=StepUpNeed(method, None))
    assert missing_proof(ticket, replace(IDENTITY, amr=frozenset(amr)), 1000) == missing


def test_ages() -> None:
    """A log-in counts up to the age that is asked for, and not from the future."""
    found = {now: missing_proof(TICKET, IDENTITY, now) for now in (1000, 1300, 1301, 939, 940)}
    assert found == {1000: None, 1300: None, 1301: TOO_OLD, 939: TOO_OLD, 940: None}


PAGES = {
    TOO_OLD: frozenset({"pwd", "kba", "otp", "mfa"}),
    NO_CODE: frozenset({"pwd", "kba", "pop", "hwk", "mfa"}),
    ONLY_PASSWORD: frozenset({"pwd", "kba"}),
}


@pytest.mark.parametrize("missing", PAGES, ids=lambda each: each.note)
def test_each_missing_thing_has_its_page(
    pages: FakeGateway, missing: ErrorPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the proof falls short of the ticket nothing is recorded, and the page says of what."""
    exchange = type(pages.stand.authelia).exchange

    async def other(self: object, **asked: object) -> UpstreamLogin:
        found: UpstreamLogin = await exchange(self, **asked)  # type: ignore[arg-type]  # as asked
        age = 301 if missing is TOO_OLD else 0  # the code itself would have ended before
        typed = int(pages.world.clock()) - age
        identity = replace(found.identity, amr=PAGES[missing], auth_time=typed)
        return replace(found, identity=identity)

    browser = pages.browser()
    callback = pages.log_in(browser, pages.begin(browser))
    monkeypatch.setattr(type(pages.stand.authelia), "exchange", other)
    page = ended(pages, browser, callback)
    assert page.status_code == 403
    assert missing.happened in words(page)
    assert "Nothing was recorded" in words(page)
    assert "/logout?rd=" in page.text
    assert not pages.records.kept


def test_a_fresh_log_in_is_asked_for(pages: FakeGateway) -> None:
    """An old session types again where an age is asked for, and does not where none is."""
    browser = pages.browser()
    pages.step_up(browser)
    pages.world.clock.at += 301
    pages.step_up(browser)
    assert pages.records.kept[KEY][1] == int(pages.world.clock())
    pages.world.clock.at += 301
    before = pages.records.kept[KEY][1]
    pages.step_up(browser, need=ANY)
    assert pages.records.kept[KEY][1] == before, "nobody was asked for anything"


@pytest.mark.parametrize(
    ("age", "asked"), [(None, None), (0, 1), (1, 1), (2, 1), (60, 30), (300, 240), (3600, 3540)]
)
def test_asked_age(age: int | None, asked: int | None) -> None:
    """Authelia is asked for somewhat less than the rule's age, and never for 0, which it never
    meets.
    """
    assert asked_age(StepUpNeed(Method.TOTP, age)) == asked


@pytest.mark.parametrize(("age", "ttl"), [(None, LIFETIME), (300, LIFETIME), (86400, 86400)])
def test_kept_long_enough(pages: FakeGateway, age: int | None, ttl: int) -> None:
    """A record is there for as long as any rule could accept it; the rule looks at its age."""
    pages.step_up(pages.browser(), need=StepUpNeed(Method.TOTP, age))
    assert pages.records.kept[KEY][2] == ttl


def test_end_it_now(pages: FakeGateway) -> None:
    """The button of the last page ends what was recorded, in this browser, from this page only."""
    browser = pages.browser()
    done = pages.step_up(browser)
    assert pages.click(pages.browser(), done).status_code == 403
    assert pages.click(browser, done, headers={"Origin": "null"}).status_code == 403
    assert pages.records.kept
    answer = pages.click(browser, done)
    assert answer.status_code == 200
    assert not pages.records.kept


def test_nobody_else_sees_the_end(pages: FakeGateway) -> None:
    """The last page is of the browser that stepped up, for ten minutes."""
    browser = pages.browser()
    done = pages.step_up(browser)
    assert pages.get(pages.browser(), str(done.url)).status_code == 404
    assert pages.get(browser, str(done.url)).status_code == 200
    pages.world.clock.at += 600
    assert pages.get(browser, str(done.url)).status_code == 404


def test_its_tokens_are_ended(pages: FakeGateway) -> None:
    """The tokens of a step-up are for nobody: Authelia is told to end them."""
    pages.step_up(pages.browser())
    assert pages.stand.transport.paths()[-1] == "revocation"


def test_redis_away(pages: FakeGateway) -> None:
    """What could not be recorded is not told as recorded."""
    browser = pages.browser()
    callback = pages.log_in(browser, pages.begin(browser))
    pages.records.away = True
    answer = ended(pages, browser, callback)
    assert answer.status_code == 503
    assert not pages.records.kept


def test_authelia_away(pages: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Authelia away at the click or at the callback: a page that says so, nothing recorded."""
    browser = pages.browser()
    callback = pages.log_in(browser, pages.begin(browser))

    async def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("away")

    monkeypatch.setattr(pages.stand.transport, "handle_async_request", away)
    assert ended(pages, browser, callback).status_code == 503
    page = pages.get(browser, f"{START}?ticket={pages.ticket()}")
    assert pages.click(browser, page).status_code == 503
    assert not pages.records.kept


@pytest.mark.attack("step-up-secrets")
def test_no_secret_on_a_page(pages: FakeGateway) -> None:
    """Neither code nor state, token, verifier or grant is on a page, in a note, or in history."""
    browser = pages.browser()
    seen: list[httpx.Response] = []
    browser.event_hooks = {"response": [_keep(seen)]}
    url = pages.begin(browser)
    callback = pages.log_in(browser, url)
    answer = pages.get(browser, callback)
    pages.get(browser, answer.headers["location"])
    query = parse_qs(urlsplit(callback).query)
    hidden = [query["code"][0], query["state"][0], "grant-1", JOHN, "authelia_at_"]
    ours = [page for page in seen if page.url.host == "mcp.example.test"]
    assert len(ours) == 4
    for page in ours:
        for secret in hidden:
            assert secret not in page.text
            assert secret not in page.headers.get("location", "").partition("?request_uri")[0]
    assert not pages.notes


def _keep(seen: list[httpx.Response]) -> Callable[[httpx.Response], Awaitable[None]]:
    async def hook(response: httpx.Response) -> None:
        await response.aread()
        seen.append(response)

    return hook


@pytest.mark.attack("pages-forged-host")
@pytest.mark.parametrize("name", ["Host", "X-Forwarded-Host", "Forwarded", "X-Original-URL"])
def test_forged_host(pages: FakeGateway, name: str) -> None:
    """Whatever a request says of hosts, every address that we send is the configured one."""
    browser = pages.browser()
    page = pages.get(browser, f"{START}?ticket={pages.ticket()}")
    answer = pages.click(browser, page, headers=FROM_OUR_PAGE | {name: "evil.example.test"})
    assert onward(answer).startswith(f"{ISSUER}/api/oidc/authorization?")
    pushed = parse_qs(pages.stand.transport.sent[-1].content.decode())
    assert pushed["redirect_uri"] == [f"{START}/callback"]


def test_lengths() -> None:
    """Times are told in the unit that people use."""
    found = [length(each) for each in (None, 1, 59, 60, 90, 120, 3600, 5400, 7200, 43200)]
    assert found == [
        "",
        "1 second",
        "59 seconds",
        "1 minute",
        "90 seconds",
        "2 minutes",
        "1 hour",
        "90 minutes",
        "2 hours",
        "12 hours",
    ]

"""Log-ins for admin pages, against the stand-in issuer: from the ticket to the session's end."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from authz.core.admin_pages import AdminPage
from authz.core.browser_session import BrowserRule
from authz.core.limits import digest
from authz.core.principal import Person
from authz.core.second_factor import Method, SecondFactor
from authz.ledger.browser_sessions import SessionRecords
from authz.ledger.keys import RedisKeys, person_field
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import Revocation
from authz.login.protocol.resources import identity_scopes
from authz.login.service.rate_limits import LoginRateLimiter
from authz.login.store.page_codes import PageCodes
from authz.login.web.admin_pages import AdminPageEndpoints
from authz.login.web.app import LoginApp
from authz.login.web.cookies import BrowserCookies
from authz.login.web.error_pages import ErrorResponder
from authz.login.web.rendering import Pages
from authz.login.web.upstream_login import BrowserLogins
from authz.server.browser_sessions import BrowserSessions
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.browser_sessions import open_session
from authz.tokens.page_tickets import PageTicket, seal_page_ticket
from authz.tokens.sealing import Sealer
from authz_demo.issuer import create_app
from authz_demo.issuer.run import forwarded_headers
from tests.demo.kit import BOB, ISSUER, JOHN, DemoWorld
from tests.login.front import onward
from tests.login.upstream.upstream_kit import standing
from tests.login.web.pages_kit import FROM_OUR_PAGE, ORIGIN, People, States, forms, words
from tests.support.admin_page import Directory, RecordStore

GRAFANA, WIKI = "https://grafana.example.test", "https://wiki.example.test"
START = f"{ORIGIN}/authz/page"
PAGES = {
    "grafana": AdminPage(
        "grafana",
        GRAFANA,
        rule=BrowserRule(frozenset({"admins"}), SecondFactor(Method.TOTP), 600.0),
    ),
    "wiki": AdminPage("wiki", WIKI, "/wiki", BrowserRule(frozenset({"dev"}), groups_max_age=600.0)),
}
BROWSER = "b" * 43


@dataclass
class PageWorld:
    """The endpoints, what they keep, and browsers."""

    world: DemoWorld
    app: LoginApp
    sealer: Sealer
    store: RecordStore
    ledger: MemoryLedger
    steps: list[tuple[str, str, str]]

    def run(self, call: Any) -> Any:
        return self.world.runner.run(call)

    def browser(self, cookie: str = BROWSER) -> httpx.AsyncClient:
        """A browser that was sent here by the check, with its cookie for each host of pages."""
        issuer = httpx.ASGITransport(create_app(self.world.issuer))
        ours = httpx.ASGITransport(self.app)

        async def as_envoy(request: httpx.Request) -> None:
            if request.url.host != "auth.example.test":
                request.headers["X-Forwarded-Host"] = request.url.netloc.decode()

        browser = httpx.AsyncClient(
            mounts={ORIGIN: ours, GRAFANA: ours, WIKI: ours, ISSUER: issuer},
            headers=forwarded_headers(self.world.issuer.config)
            | {"X-Forwarded-For": "192.0.2.10", "X-Request-Id": "request-1"},
            event_hooks={"request": [as_envoy]},
        )
        for host in ("grafana.example.test", "wiki.example.test"):
            browser.cookies.set("__Host-authz-browser", cookie, domain=host, path="/")
        self.world.browsers.append(browser)
        return browser

    def ticket(self, page: str = "grafana", path: str = "/d/a?x=1", of: str = BROWSER) -> str:
        return seal_page_ticket(self.sealer, PageTicket(page, path, digest(of)))

    def get(self, browser: httpx.AsyncClient, url: str, **headers: str) -> httpx.Response:
        found: httpx.Response = self.run(browser.get(url, headers=headers))
        return found

    def click(
        self, browser: httpx.AsyncClient, page: httpx.Response, origin: str = ORIGIN
    ) -> httpx.Response:
        ((action, fields),) = forms(page)
        headers = FROM_OUR_PAGE | {"Origin": origin}
        url = str(page.url.join(action))
        found: httpx.Response = self.run(browser.post(url, data=fields, headers=headers))
        return found

    def log_in(self, browser: httpx.AsyncClient, ticket: str, **knows: Any) -> httpx.Response:
        """Click, log in, come back; return the answer to the callback."""
        page = self.get(browser, f"{START}?ticket={ticket}")
        assert page.status_code == 200, page.text
        sent = self.click(browser, page)
        callback = self.run(self.world.person(**knows).log_in(browser, onward(sent)))
        return self.get(browser, callback)

    def sessions(self) -> list[bytes]:
        return [key for key in self.store.kept if b"browser-session" in key]


@pytest.fixture
def pages(world: DemoWorld) -> Iterator[PageWorld]:
    with standing(world) as stand:
        config = world.issuer.config
        callbacks = {
            "authz-two-factor": f"{START}/callback",
            "authz-one-factor": f"{START}/one-factor/callback",
        }
        world.issuer.config = replace(
            config,
            clients=tuple(
                replace(
                    each,
                    redirect_uris=(*each.redirect_uris, callbacks[each.client_id]),
                    claims_policy=("groups",),
                    id_token_claims=("preferred_username", "name"),
                )
                if each.client_id in callbacks
                else each
                for each in config.clients
            ),
        )
        ledger = MemoryLedger(world.clock)
        sealer, store = Sealer(["a" * 32], world.clock), RecordStore()
        steps = list[tuple[str, str, str]]()
        cookies, rendered = BrowserCookies(sealer, ORIGIN), Pages(ORIGIN, ISSUER)
        log_out_url = stand.authelia.log_out_url
        errors = ErrorResponder(ORIGIN, cookies, rendered, log_out_url, lambda _id, _words: None)
        logins = BrowserLogins(
            origin=ORIGIN,
            upstream=stand.authelia,
            cookies=cookies,
            pages=rendered,
            states=States(),
            people=People(),
            limiter=LoginRateLimiter(world.clock),
            identity_scopes=identity_scopes(email=False),
        )
        keys = RedisKeys("t")
        endpoints = AdminPageEndpoints(
            admin_pages=PAGES,
            issuer=ISSUER,
            logins=logins,
            cookies=cookies,
            pages=rendered,
            errors=errors,
            sealer=sealer,
            codes=PageCodes(store, keys, sealer),
            sessions=BrowserSessions(
                SessionRecords(store, keys),
                sealer=sealer,
                revocations=ledger,
                groups=Directory(),
                issuer=ISSUER,
                clock=world.clock,
            ),
            lifetime=3600,
            log_out_url=log_out_url,
            clock=world.clock,
            log=lambda step, outcome, **more: steps.append((step, outcome, more["detail"])),
        )
        recorder = Recorder(Metrics(), EventLog("json"))
        app = LoginApp([*endpoints.routes(), errors.route()], errors, recorder)
        yield PageWorld(world, app, sealer, store, ledger, steps)


def token_of(answer: httpx.Response) -> str:
    """The token of the session that an answer sets."""
    sets = [each for each in answer.headers.get_list("set-cookie") if "authz-session=" in each]
    assert len(sets) == 1
    for attribute in ("Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=3600"):
        assert attribute in sets[0]
    return sets[0].partition(";")[0].partition("=")[2]


def test_a_log_in_becomes_a_session_of_the_page_s_host(pages: PageWorld) -> None:
    """It holds who logged in, how and when; the browser comes back to what it asked for."""
    browser = pages.browser()
    answer = pages.log_in(browser, pages.ticket())
    assert answer.status_code == 303
    location = answer.headers["location"]
    assert location.startswith(f"{GRAFANA}/authz/page/session?code=")
    opened = pages.get(browser, location)
    assert (opened.status_code, opened.headers["location"]) == (303, f"{GRAFANA}/d/a?x=1")
    token = token_of(opened)

    found = pages.run(SessionRecords(pages.store, RedisKeys("t")).get(GRAFANA, token))
    login = open_session(pages.sealer, found, GRAFANA, token)
    assert (login.subject, login.account, login.name) == (JOHN, "john", "John Doe")
    assert login.groups == {"admins", "dev"}
    assert login.method == Method.TOTP
    assert login.until - login.began == 3600
    assert pages.steps == [("page", "ok", "grafana")]
    assert token not in str(pages.store.kept)
    assert b"john" not in b"".join(pages.store.kept.values())


@pytest.mark.attack("page-session-of-another")
def test_a_code_opens_one_session_in_its_browser_on_its_host(pages: PageWorld) -> None:
    """Nobody is logged in by somebody else's link, and a link that was used is worthless."""
    browser, victim = pages.browser(), pages.browser("v" * 43)
    location = pages.log_in(browser, pages.ticket()).headers["location"]
    assert pages.get(victim, location).status_code == 403
    # Used up by the attempt, whoever made it.
    assert pages.get(browser, location).status_code == 403

    location = pages.log_in(browser, pages.ticket()).headers["location"]
    assert pages.get(browser, location.replace(GRAFANA, WIKI)).status_code == 403
    location = pages.log_in(browser, pages.ticket()).headers["location"]
    assert pages.get(browser, location.replace(GRAFANA, ORIGIN)).status_code == 404
    location = pages.log_in(browser, pages.ticket()).headers["location"]
    pages.world.clock.at += 61
    assert pages.get(browser, location).status_code == 403
    assert pages.sessions() == []


@pytest.mark.attack("page-session-of-another")
def test_a_ticket_of_another_browser_opens_nothing(pages: PageWorld) -> None:
    """A person who logs in by an attacker's link does not log the attacker in."""
    victim, attacker = pages.browser(), pages.browser("e" * 43)
    location = pages.log_in(victim, pages.ticket(of="e" * 43)).headers["location"]
    assert pages.get(victim, location).status_code == 403
    assert pages.get(attacker, location).status_code == 403
    assert pages.sessions() == []


@pytest.mark.attack("page-without-session")
@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("//evil.example", f"{WIKI}/wiki/"),
        ("/wiki/../../x", f"{WIKI}/wiki/../../x"),
        ("https://evil.example", f"{WIKI}/wiki/"),
        ("@evil.example", f"{WIKI}/wiki/"),
        (".evil.example/", f"{WIKI}/wiki/"),
        ("/elsewhere", f"{WIKI}/wiki/"),
        ("/wiki\r\nx: y", f"{WIKI}/wiki/"),
        ("/wiki/x y", f"{WIKI}/wiki/"),
        ("/wiki?a=/b", f"{WIKI}/wiki?a=/b"),
        ("/wiki/" + "a" * 2000, f"{WIKI}/wiki/"),
    ],
)
def test_the_way_back_is_the_page_s_own(pages: PageWorld, path: str, back: str) -> None:
    """Whatever a ticket says, the browser goes to the page's own origin."""
    browser = pages.browser()
    answer = pages.log_in(browser, pages.ticket("wiki", path))
    opened = pages.get(browser, answer.headers["location"])
    assert opened.headers["location"] == back


@pytest.mark.attack("page-rules")
def test_who_does_not_fulfil_the_rule_gets_no_session(pages: PageWorld) -> None:
    """Groups come from the issuer; whoever is in none is told so, and no code is made."""
    browser = pages.browser()
    answer = pages.log_in(browser, pages.ticket(), username="bob")
    assert answer.headers["location"].startswith(f"{ORIGIN}/authz/problem")
    assert "not in a group" in words(pages.get(browser, answer.headers["location"]))
    assert not any(b"page-code" in key for key in pages.store.kept)
    assert pages.steps == [("page", "refused", "not in a group of the page")]
    # Another page asks for another group, and no second factor.
    answer = pages.log_in(browser, pages.ticket("wiki", "/wiki"))
    opened = pages.get(browser, answer.headers["location"])
    token = token_of(opened)
    found = pages.run(SessionRecords(pages.store, RedisKeys("t")).get(WIKI, token))
    assert open_session(pages.sealer, found, WIKI, token).subject == BOB


@pytest.mark.attack("page-rules")
def test_a_rule_that_changed_meanwhile_holds(pages: PageWorld) -> None:
    """What no ticket of ours names, or names no page, is answered and begins nothing."""
    browser = pages.browser()
    for ticket in ("", "x", pages.ticket("gone"), pages.ticket()[:-2]):
        assert pages.get(browser, f"{START}?ticket={ticket}").status_code == 403
    old = pages.ticket()
    pages.world.clock.at += 601
    assert pages.get(browser, f"{START}?ticket={old}").status_code == 403


@pytest.mark.attack("page-revoked")
@pytest.mark.parametrize("until", [None, 0], ids=["for-good", "what-was-issued"])
def test_who_is_revoked_gets_no_session(pages: PageWorld, until: int | None) -> None:
    """For good, or by a log-in of before: Authelia's session alone logs nobody in again."""
    now = int(pages.world.clock())
    revoked = Revocation(until=None if until is None else now)
    pages.run(pages.ledger.revoke(person_field(Person(ISSUER, JOHN)), revoked))
    browser = pages.browser()
    answer = pages.log_in(browser, pages.ticket())
    assert "were revoked" in words(pages.get(browser, answer.headers["location"]))
    assert not any(b"page-code" in key for key in pages.store.kept)


def test_a_new_log_in_ends_the_session_before(pages: PageWorld) -> None:
    """A browser has one session of a host."""
    browser = pages.browser()
    first = pages.get(browser, pages.log_in(browser, pages.ticket()).headers["location"])
    browser.cookies.set("__Host-authz-session", token_of(first), domain="grafana.example.test")
    browser.cookies.set("__Host-authz-browser", BROWSER, domain="grafana.example.test", path="/")
    assert len(pages.sessions()) == 1
    pages.get(browser, pages.log_in(browser, pages.ticket()).headers["location"])
    assert len(pages.sessions()) == 1


@pytest.mark.attack("page-log-out-forced")
def test_log_out(pages: PageWorld) -> None:
    """A button ends the session, at once; another origin's form ends none."""
    browser = pages.browser()
    opened = pages.get(browser, pages.log_in(browser, pages.ticket()).headers["location"])
    browser.cookies.set("__Host-authz-session", token_of(opened), domain="grafana.example.test")
    page = pages.get(browser, f"{GRAFANA}/authz/page/log-out")
    assert page.headers["x-frame-options"] == "DENY"
    for origin in (ORIGIN, WIKI, "https://evil.example", "null"):
        assert pages.click(browser, page, origin).status_code == 403
    assert len(pages.sessions()) == 1
    done = pages.click(browser, page, GRAFANA)
    assert done.status_code == 200
    assert "You are logged out of grafana.example.test" in words(done)
    assert pages.sessions() == []
    assert pages.steps[-1] == ("page", "ended", "grafana.example.test")
    # At the gateway there is no such page.
    assert pages.get(browser, f"{ORIGIN}/authz/page/log-out").status_code == 404


def test_without_redis_nothing_is_opened(pages: PageWorld) -> None:
    """A person is told, and may try again."""
    browser = pages.browser()
    location = pages.log_in(browser, pages.ticket()).headers["location"]
    pages.store.away = True
    assert pages.get(browser, location).status_code == 503
    pages.store.away = False
    assert pages.sessions() == []

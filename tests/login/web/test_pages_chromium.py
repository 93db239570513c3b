"""The pages in a real browser: cookies, CSP, framing and Origin as Chromium has them.

What only a browser enforces is shown in one. The gateway is at `localhost`, where Chromium
takes `__Host-` cookies without TLS; other sites are at 127.0.0.1.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import BrowserContext, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from authz.core.ledger import StepUpKey
from authz.core.policy import OperationKind
from authz.core.principal import Person
from authz.core.second_factor import Method
from authz.login.clients.identity import identify
from authz.login.protocol.authorization import AuthorizationRequest
from authz.login.protocol.resources import OpenedOperations, ResourceServer
from authz.login.protocol.values import (
    ClientKind,
    LoginIdentity,
    OAuthClient,
    UpstreamAuthorizationRequest,
    UpstreamLogin,
    UpstreamTokens,
)
from authz.login.web.cookies import BrowserCookies, NotThisBrowserError, Purpose, read_form
from authz.login.web.rendering import Pages, redirect
from authz.login.web.scope_list import unwanted_scopes
from authz.tokens.sealing import Sealer
from authz.tokens.tickets import seal_ticket
from authz_demo.serving import serve
from tests.login.web.pages_kit import TICKET, FakeRecords, Kept, LiveProofs, browser_app

CHROMIUM: Final = Path("/usr/bin/chromium")
NOW: Final = 1795380700
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="NOT TESTED: no Chromium")
_OPTIONS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
]


@dataclass
class BrowserIssuer:
    """Stands for Authelia with an open session: it answers at once, so that its redirects are
    those of the form that was sent.
    """

    url: str = ""
    asked: dict[str, UpstreamAuthorizationRequest] = field(default_factory=dict)

    async def push(self, asked: UpstreamAuthorizationRequest, address: str) -> str:
        self.asked[asked.state] = asked
        return f"{self.url}/authorize?{urlencode({'state': asked.state})}"

    async def exchange(
        self,
        *,
        two_factor: bool,
        code: str,
        verifier: str,
        redirect_uri: str,
        nonce: str,
        address: str,
    ) -> UpstreamLogin:
        asked = self.asked[code]
        assert (asked.verifier, asked.nonce) == (verifier, nonce)
        amr = frozenset({"pwd", "kba", "otp", "mfa"})
        tokens = UpstreamTokens("token", None, NOW + 600, asked.scopes, ())
        return UpstreamLogin(tokens, LoginIdentity(TICKET.subject, amr, NOW, "john"))

    async def revoke(self, *, two_factor: bool, token: str, address: str) -> None:
        return

    def check_iss(self, iss: str | None) -> None:
        assert iss == self.url

    def log_out_url(self, back: str) -> str:
        return f"{self.url}/logout?{urlencode({'rd': back})}"

    async def authorize(self, request: Request) -> Response:
        state = request.query_params["state"]
        answer = urlencode({"code": state, "state": state, "iss": self.url})
        return RedirectResponse(f"{self.asked[state].redirect_uri}?{answer}", 302)


SCOPES: Final = ("mcp:files", "mcp:files:share", "mcp:files:write")
SERVER: Final = ResourceServer(
    "files", "https://mcp.example.com/files", frozenset(SCOPES[:1]), frozenset(SCOPES),
    two_factor=True, groups=False,
    opens={SCOPES[2]: (OpenedOperations(OperationKind.TOOL, "delete_*"),)},
)  # fmt: skip
WORDS: Final = {SCOPES[2]: "change and delete your files"}
CONSENT: Final[Purpose[dict[str, Any]]] = Purpose("consent", dict, dict)
FRONT: Final[Purpose[dict[str, Any]]] = Purpose("front", dict, dict)


@dataclass
class BrowserSite:
    """The gateway with its step-up and a consent page, an issuer, and another site."""

    origin: str
    evil: str
    issuer: BrowserIssuer
    sealer: Sealer
    records: FakeRecords
    pages: Pages
    browser: BrowserCookies
    posted: list[tuple[str | None, str]] = field(default_factory=list)
    redirect_uri: str = ""
    hop: str = ""  # where a form's answer redirects to, in place of a page
    reached: list[str] = field(default_factory=list)
    unwanted: frozenset[str] = frozenset()

    def link(self, **changes: Any) -> str:
        ticket = seal_ticket(self.sealer, replace(TICKET, issuer=self.issuer.url, **changes))
        return f"{self.origin}/authz/step-up?{urlencode({'ticket': ticket})}"

    @property
    def asked(self) -> AuthorizationRequest:
        """What the consent page asks for."""
        return AuthorizationRequest(
            "x", self.redirect_uri, None, "", "files", self.origin, SCOPES, two_factor=True,
            optional=SCOPES[1:],
        )  # fmt: skip

    @property
    def elsewhere(self) -> str:
        """Another origin than the client's."""
        return self.evil.replace("127.0.0.1", "localhost")

    async def consent(self, request: Request) -> Response:
        client = identify(OAuthClient("x", ClientKind.DYNAMIC, "Claude", "", ()), self.redirect_uri)
        about = {"tab": request.query_params["tab"]}
        token, cookie = self.browser.form_token(request, CONSENT, about)
        return self.pages.consent(self.asked, client, SERVER, token, cookie)

    async def approve(self, request: Request) -> Response:
        form = await read_form(request)
        origin = request.headers.get("origin")
        try:
            about = self.browser.check_post(request, form, CONSENT)
        except NotThisBrowserError:
            self.posted.append((origin, "refused"))
            return self.pages.error(403, "No", "Nothing was done.")
        self.posted.append((origin, f"{form['decision']} {about['tab']}"))
        self.unwanted = unwanted_scopes(self.asked, form)
        state = secrets.token_urlsafe(32)
        self.issuer.asked[state] = UpstreamAuthorizationRequest(
            True, f"{self.origin}/authz/callback", frozenset(), None, state, "n", "v"
        )
        url = f"{self.issuer.url}/authorize?{urlencode({'state': state})}"
        if form["decision"] != "approve":
            return self.pages.go_back(f"{self.redirect_uri}?error=access_denied", "", alone=False)
        response = redirect(self.hop) if self.hop else self.pages.go_on(url)
        self.browser.keep(request, response, state, FRONT, {"tab": about["tab"]})
        return response

    async def callback(self, request: Request) -> Response:
        transaction = self.browser.read(request, request.query_params["state"], FRONT)
        return redirect(f"{self.redirect_uri}?{urlencode({'tab': transaction['tab']})}")


class Behind:
    """Put an application behind a port that is known before it is made."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.app is not None
        if scope["type"] == "http":  # as Envoy does
            address = (b"x-forwarded-for", b"192.0.2.10")
            scope = scope | {"headers": [*scope["headers"], address]}
        await self.app(scope, receive, send)


@asynccontextmanager
async def site() -> AsyncIterator[BrowserSite]:
    async with AsyncExitStack() as stack:
        fronts = [Behind(), Behind(), Behind()]
        ports = [await stack.enter_async_context(serve(front)) for front in fronts]
        origin, issuer = (
            f"http://localhost:{ports[0]}",
            BrowserIssuer(f"http://127.0.0.1:{ports[1]}"),
        )
        evil = f"http://127.0.0.1:{ports[2]}"
        sealer, records = Sealer(["a" * 32], lambda: NOW), FakeRecords()
        pages, browser = Pages(origin, issuer.url, WORDS), BrowserCookies(sealer, origin)
        made = BrowserSite(origin, evil, issuer, sealer, records, pages, browser)
        made.redirect_uri = f"{evil}/client"
        fronts[0].app = browser_app(
            origin=origin,
            issuer=issuer.url,
            upstream=issuer,
            sealer=sealer,
            records=records,
            grants=Kept(),
            proofs=LiveProofs(),
            clock=lambda: NOW,
            others=[
                Route("/consent", made.consent),
                Route("/authz/consent", made.approve, methods=["POST"]),
                Route("/authz/callback", made.callback),
            ],
        )
        fronts[1].app = Starlette(routes=[Route("/authorize", issuer.authorize)])
        fronts[2].app = Starlette(routes=[Route("/{path:path}", _other_site(made))])
        yield made


def _other_site(made: BrowserSite) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if request.url.path == "/frame":
            return HTMLResponse(f'<iframe src="{made.link()}"></iframe>')
        if request.url.path == "/post":
            token = request.query_params["form_token"]
            return HTMLResponse(
                f'<form method="post" action="{made.origin}/authz/consent">'
                f'<input name="form_token" value="{token}">'
                '<button name="decision" value="approve">Win</button></form>'
            )
        if request.url.path != "/favicon.ico":
            made.reached.append(str(request.url))
        onward = {"/to-a-program": "claude://done", "/to-another": f"{made.elsewhere}/end"}
        if request.url.path in onward:
            return RedirectResponse(onward[request.url.path], 302)
        return HTMLResponse("The client has its answer")

    return answer


Work = Callable[[BrowserSite, BrowserContext], Awaitable[None]]


class Drive:
    """Do things in one Chromium, each in a context of its own."""

    def __init__(self, runner: asyncio.Runner, chromium: Chromium) -> None:
        self._runner = runner
        self._chromium = chromium

    def __call__(self, work: Work, **options: Any) -> None:
        self._runner.run(self._whole(work, options))

    async def _whole(self, work: Work, options: dict[str, Any]) -> None:
        settings = {"java_script_enabled": False} | options
        context = await self._chromium.new_context(**settings)
        context.set_default_timeout(30_000)
        try:
            async with site() as made:
                await work(made, context)
        finally:
            await context.close()


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    with asyncio.Runner() as runner:
        playwright = runner.run(async_playwright().start())
        chromium = runner.run(
            playwright.chromium.launch(executable_path=str(CHROMIUM), args=_OPTIONS)
        )
        yield Drive(runner, chromium)
        runner.run(chromium.close())
        runner.run(playwright.stop())


def test_step_up_in_a_browser(drive: Drive) -> None:
    """Link, click, Authelia's redirects, the page at the end: no script, no code in its address;
    and the button there ends it.
    """

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        page = await context.new_page()
        await page.goto(made.link())
        assert not made.issuer.asked
        await page.get_by_role("button", name="Go on to log in").click()
        await page.get_by_text("Go back to your assistant and try again").wait_for()
        assert page.url.startswith(f"{made.origin}/authz/step-up/done?of=")
        key = StepUpKey(Person(made.issuer.url, TICKET.subject), TICKET.grant, TICKET.server)
        assert made.records.kept[key][:2] == (Method.TOTP, NOW)
        assert {cookie["name"][:15] for cookie in await context.cookies()} == {
            "__Host-authz-cs",
            "__Host-authz-ov",
            "__Host-authz-pa",
        }
        await page.go_back()
        assert page.url == made.link() or "/authz/step-up?ticket=" in page.url
        await page.go_forward()
        await page.get_by_role("button", name="End it now").click()
        await page.get_by_text("It has ended").wait_for()
        assert not made.records.kept

    drive(work)


@pytest.mark.attack("tabs-collide")
def test_tabs(drive: Drive) -> None:
    """Three tabs of one browser, opened at once and approved in another order, each end with
    their own; the redirects of each form are let through by its page's policy.
    """

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        tabs = [await context.new_page() for _ in range(3)]
        urls = [f"{made.origin}/consent?tab={number}" for number in range(3)]
        await asyncio.gather(*(tab.goto(url) for tab, url in zip(tabs, urls, strict=True)))
        for number in (2, 0, 1):
            await tabs[number].get_by_role("button", name="Allow and log in").click()
        for number, tab in enumerate(tabs):
            await tab.wait_for_url(f"{made.redirect_uri}?tab={number}")
        assert [what for _, what in made.posted] == ["approve 2", "approve 0", "approve 1"]
        assert {origin for origin, _ in made.posted} == {made.origin}

    drive(work)


@pytest.mark.attack("form-elsewhere")
def test_redirect_elsewhere(drive: Drive) -> None:
    """A form leads to our own pages alone: what would redirect elsewhere the browser stops."""

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        page = await context.new_page()
        await page.goto(f"{made.origin}/consent?tab=0")
        made.hop = f"{made.elsewhere}/client"
        await page.get_by_role("button", name="Allow and log in").click()
        await page.wait_for_timeout(500)
        assert "/client" not in page.url

    drive(work)


@pytest.mark.parametrize("decision", ["Deny", "Allow and log in"])
def test_a_callback_that_redirects_to_another_origin(drive: Drive, decision: str) -> None:
    """With an open session at the issuer everything after the click is redirects: they are let
    through to wherever the client's own callback leads.
    """

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        made.redirect_uri = f"{made.evil}/to-another"
        page = await context.new_page()
        await page.goto(f"{made.origin}/consent?tab=0")
        await page.get_by_role("button", name=decision).click()
        await page.wait_for_url(f"{made.elsewhere}/end")
        query = "error=access_denied" if decision == "Deny" else "tab=0"
        assert made.reached == [f"{made.redirect_uri}?{query}", f"{made.elsewhere}/end"]

    drive(work)


@pytest.mark.parametrize("decision", ["Deny", "Allow and log in"])
def test_a_callback_that_opens_a_program(drive: Drive, decision: str) -> None:
    """claude.ai's callback opens `claude://`: the browser tries to, and where there is no such
    program the person is left on a page that says how it ended, not on the one that asks.
    """

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        made.redirect_uri = f"{made.evil}/to-a-program"
        page = await context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await page.goto(f"{made.origin}/consent?tab=0")
        await page.get_by_role("button", name=decision).click()
        left = "You are not logged in" if decision == "Deny" else "You log in at"
        await page.get_by_role("heading", name=left).wait_for()
        while not made.reached:  # noqa: ASYNC110 - the site is in this process
            await asyncio.sleep(0.05)
        assert len(made.reached) == 1
        assert await page.get_by_role("button", name=decision).count() == 0
        assert not any("form-action" in each for each in said)

    drive(work)


def test_a_person_leaves_a_scope_out(drive: Drive) -> None:
    """Boxes are ticked as the page comes, so that consent means what it always meant; what the
    person unticks, by its label too, is what the gateway hears, and what is needed has no box.
    """

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        page = await context.new_page()
        await page.goto(f"{made.origin}/consent?tab=0")
        boxes = page.get_by_role("checkbox")
        assert [await box.is_checked() for box in await boxes.all()] == [True, True]
        await page.get_by_text("change and delete your files").click()
        assert [await box.is_checked() for box in await boxes.all()] == [True, False]
        await page.get_by_role("button", name="Allow and log in").click()
        await page.wait_for_url(f"{made.redirect_uri}?tab=0")
        assert made.unwanted == {"mcp:files:write"}
        await page.goto(f"{made.origin}/consent?tab=1")
        await page.get_by_role("button", name="Allow and log in").click()
        await page.wait_for_url(f"{made.redirect_uri}?tab=1")
        assert made.unwanted == frozenset()

    drive(work)


def test_local_times(drive: Drive) -> None:
    """With scripts, times are those of the person's own zone, and UTC is their tip; the policy
    lets our script run, and no other that stands on the page.
    """

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        page = await context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await page.goto(made.link(at=NOW))
        time = page.locator("time")
        assert await time.inner_text() == "23 Nov 2026, 02:21 GMT+5:30"
        assert await time.get_attribute("title") == "22 Nov 2026, 20:51 UTC"
        assert said == []
        refused = await page.evaluate(
            """() => new Promise((resolve) => {
              document.addEventListener("securitypolicyviolation", (event) =>
                resolve(event.effectiveDirective));
              const script = document.createElement("script");
              script.append("document.title = 'run'");
              document.body.append(script);
            })"""
        )
        assert refused in ("script-src-elem", "require-trusted-types-for")
        assert await page.title() != "run"

    drive(work, java_script_enabled=True, timezone_id="Asia/Kolkata")


@pytest.mark.attack("framing")
def test_framed(drive: Drive) -> None:
    """A page in another's frame shows nothing to click on."""

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        page = await context.new_page()
        await page.goto(f"{made.evil}/frame")
        frames = [frame for frame in page.frames if frame != page.main_frame]
        assert len(frames) == 1
        assert await frames[0].locator("button").count() == 0

    drive(work)


@pytest.mark.attack("consent-cross-site")
def test_cross_site_form(drive: Drive) -> None:
    """Another site's form, with a token that it took from a page of its own browser or even of
    this one, is refused: the browser says where it comes from, and keeps the cookie back.
    """

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        page = await context.new_page()
        await page.goto(f"{made.origin}/consent?tab=0")
        token = re.search(r'name="form_token" value="([^"]*)"', await page.content())
        assert token is not None
        await page.goto(f"{made.evil}/post?form_token={token[1]}")
        await page.get_by_role("button", name="Win").click()
        await page.get_by_text("Nothing was done.").wait_for()
        assert made.posted == [(made.evil, "refused")]

    drive(work)


@pytest.mark.attack("double-click")
def test_not_at_once(drive: Drive) -> None:
    """A button takes no click of a pointer that only just came to the page: it was meant for
    another window. A moment later it does.
    """

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        page = await context.new_page()
        await page.goto(f"{made.origin}/consent?tab=0")
        await page.wait_for_timeout(
            1000
        )  # the page was there all the while, beneath another window
        button = page.get_by_role("button", name="Allow and log in")
        await button.scroll_into_view_if_needed()
        box = await button.bounding_box()
        assert box is not None
        await page.mouse.click(box["x"] + 20, box["y"] + 20)
        await page.wait_for_timeout(1000)
        assert not made.posted
        await page.mouse.click(box["x"] + 20, box["y"] + 20)
        await page.wait_for_url(f"{made.redirect_uri}?tab=0")

    drive(work)


def test_opener(drive: Drive) -> None:
    """A client in a browser gets its window back after the log-in."""

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        client = await context.new_page()
        await client.goto(f"{made.evil}/client")
        async with context.expect_page() as opening:
            await client.evaluate("url => void window.open(url)", f"{made.origin}/consent?tab=0")
        page = await opening.value
        await page.get_by_role("button", name="Allow and log in").click()
        await page.wait_for_url(f"{made.redirect_uri}?tab=0")
        assert await page.evaluate("window.opener !== null")

    drive(work)


def test_narrow(drive: Drive) -> None:
    """On a phone nothing is wider than the screen, long names included."""

    async def work(made: BrowserSite, context: BrowserContext) -> None:
        page = await context.new_page()
        client = "https://" + "a" * 60 + ".example.com"
        await page.goto(made.link(client=client, tool="x" * 100))
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 320

    drive(work, viewport={"width": 320, "height": 640})

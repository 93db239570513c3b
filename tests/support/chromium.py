"""A person at a real browser: headless Chromium, which reaches the deployment through Envoy.

Nothing is typed or clicked but what a person would. The browser resolves names where the test says,
and accepts any certificate there. It is not the client: the client gets the redirect at its own
listener on this machine.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, BrowserContext, Error, Page, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from authz_demo.client import LoginHandler
from authz_demo.login_drivers import AutheliaDriver
from authz_demo.person import BrowserUser
from authz_demo.serving import serve
from tests.support.door import Door

CHROMIUM: Final = Path("/usr/bin/chromium")
ALLOW: Final = "Allow and log in"
GO_ON: Final = "Go on to log in"
_OPTIONS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
    "--no-proxy-server",
)
_PATIENCE: Final = 60_000  # milliseconds
_MOST_LOOKS: Final = 400
_MOST_TRIES: Final = 10
_CHANGED: Final = "ERR_NETWORK_CHANGED"
_DROPPED: Final = "chrome-error:"


@dataclass(frozen=True, slots=True)
class Fields:
    """Say where an issuer's pages have what is typed, as CSS selectors."""

    username: str
    password: str
    code: str
    go: str
    accept: str
    needs_script: bool = False


STAND_IN: Final = Fields(
    "input[name=username]",
    "input[name=password]",
    "input[name=code]",
    "form button",
    "button[value=accept]",
)
AUTHELIA: Final = Fields(
    "#username-textfield",
    "#password-textfield",
    "#otp-input input",
    "#sign-in-button:enabled, #openid-consent-accept:enabled",
    "#openid-consent-accept:enabled",
    needs_script=True,
)


def fields_of(door: Door) -> Fields:
    """Return those of the whole's issuer."""
    return (
        AUTHELIA if isinstance(door.running.environment.issuer.portal, AutheliaDriver) else STAND_IN
    )


@asynccontextmanager
async def chromium(door: Door) -> AsyncIterator[Browser]:
    """Give a browser that finds the names of a whole."""
    place = door.running.environment.place
    rules = f"--host-resolver-rules=MAP *.{place.domain} 127.0.0.1:{place.port}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=[*_OPTIONS, rules]
        )
        try:
            yield browser
        finally:
            await browser.close()


class SharedBrowser:
    """Play games one after the other in one browser, each with profiles of its own."""

    def __init__(self, runner: asyncio.Runner, browser: Browser) -> None:
        self._runner, self._browser = runner, browser

    def play(self, game: Callable[[Browser], Awaitable[None]]) -> None:
        """Play one to its end, and close what it has opened."""

        async def play() -> None:
            try:
                await game(self._browser)
            finally:
                for context in self._browser.contexts:
                    await context.close()

        self._runner.run(play())


@contextmanager
def shared_chromium(door: Door) -> Iterator[SharedBrowser]:
    """Give a browser to all tests of a file: to start one takes a second of CPU."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        browser = runner.run(stack.enter_async_context(chromium(door)))
        try:
            yield SharedBrowser(runner, browser)
        finally:
            runner.run(stack.aclose())


async def go_to(page: Page, url: str) -> None:
    """Open a page, again where the machine's network changed in that moment.

    Chromium drops what is under way then; a container that starts or stops is enough.
    """
    for _ in range(_MOST_TRIES):
        try:
            await page.goto(url)
        except Error as error:
            if _CHANGED not in error.message:
                raise
            await page.wait_for_timeout(500)
        else:
            return
    raise AssertionError("the machine's network does not come to rest")


async def profile(door: Door, browser: Browser) -> BrowserContext:
    """Return a profile of its own: no cookie of any other is in it.

    Our pages have no script, and none may run here unless the issuer's need it.
    """
    context = await browser.new_context(
        ignore_https_errors=True, java_script_enabled=fields_of(door).needs_script
    )
    context.set_default_timeout(_PATIENCE)
    return context


async def log_in(
    door: Door, page: Page, person: BrowserUser, done: Callable[[str], bool]
) -> tuple[str, ...]:
    """Type whatever the issuer asks for until the browser is where it should be.

    Returns:
        what was typed, in its order: `password`, `code`, `password again`; and `consent`, which
        Authelia asks for wherever a refresh token is wanted, whatever its `consent_mode`.
    """
    fields = fields_of(door)
    typed: list[str] = []
    for _ in range(_MOST_LOOKS):
        if done(page.url):
            return tuple(typed)
        if page.url.startswith(_DROPPED):
            with suppress(Error):
                await page.reload()
        what = await _asked(page, fields)
        # A form that was sent stands there until the next page comes.
        if what is not None and what not in typed:
            typed.append(what)
            await _type(page, person, fields, what)
        await page.wait_for_timeout(50)
    shown = " ".join((await page.inner_text("body")).split())
    raise AssertionError(f"it ended at {page.url}, after {typed}: {shown}")


async def _asked(page: Page, fields: Fields) -> str | None:
    # A page may come or go between two looks: what is there alone is looked at twice.
    if await page.locator(fields.password).is_visible():
        if await page.locator(fields.username).is_visible():
            return "password"
        return "password again" if await page.locator(fields.password).is_visible() else None
    if await page.locator(fields.code).first.is_visible():
        return "code"
    if await page.locator(fields.accept).is_visible():
        return "consent"
    return None


async def _type(page: Page, person: BrowserUser, fields: Fields, what: str) -> None:
    if what == "code":
        await page.locator(fields.code).first.click()
        await page.keyboard.type(person.code())
        if fields.needs_script:
            return  # it is sent with its last digit
    elif what != "consent":
        if what == "password":
            await page.locator(fields.username).fill(person.username)
        await page.locator(fields.password).fill(person.password)
    # By the keyboard: Authelia's own tooltip lies over its button.
    await page.locator(fields.accept if what == "consent" else fields.go).first.press("Enter")


class ByChromium(LoginHandler):
    """Stand between the SDK and a person at Chromium."""

    def __init__(self, door: Door, context: BrowserContext, listener: "Listener") -> None:
        self.door, self.context, self.listener = door, context, listener
        self.person = door.john
        self.opened = []
        self.typed: list[tuple[str, ...]] = []
        self.page: Page | None = None

    async def open(self, url: str) -> None:
        """Open the client's link, allow what it asks for, log in."""
        self.opened.append(url)
        page = await self.context.new_page()
        await go_to(page, url)
        await page.get_by_role("button", name=ALLOW).click()
        self.typed.append(await log_in(self.door, page, self.person, self.listener.is_here))
        await page.get_by_text("Back at the application").wait_for()
        self._callback = self.listener.came[-1]
        self.page = page


@dataclass(slots=True)
class Listener:
    """A client's listener on this machine.

    Attributes:
        redirect_uri: the client's.
        came: the URLs that a browser opened there.
    """

    redirect_uri: str
    came: list[str]

    def is_here(self, url: str) -> bool:
        """Tell whether a browser is at this listener."""
        return url.startswith(self.redirect_uri)


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[Listener]:
    """Give a client's listener; its port is of the system's choice."""
    came: list[str] = []

    async def callback(request: Request) -> Response:
        came.append(str(request.url))
        return HTMLResponse("<p>Back at the application</p>")

    async with serve(Starlette(routes=[Route("/callback", callback)])) as port:
        yield Listener(f"http://{host}:{port}/callback", came)


@asynccontextmanager
async def other_site(pages: dict[str, str]) -> AsyncIterator[str]:
    """Give the origin of somebody else's site, which serves these pages."""

    async def answer(request: Request) -> Response:
        return HTMLResponse(pages.get(request.url.path, "nothing"))

    app: Any = Starlette(routes=[Route("/{path:path}", answer)])
    async with serve(app) as port:
        yield f"http://127.0.0.1:{port}"

"""The front door, step-ups and approvals in Chromium, through Envoy, with real processes behind.

Shown here: what a browser does by itself (cookies, redirects, policies of pages). The client is the
official one.
"""

import asyncio
import html
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request

from authz.core.answers import REFUSAL
from authz_demo.reporter import expect, reason_of, refusal_of
from tests.support.chromium import (
    ALLOW,
    CHROMIUM,
    GO_ON,
    ByChromium,
    SharedBrowser,
    go_to,
    listening,
    log_in,
    other_site,
    profile,
    shared_chromium,
)
from tests.support.door import Assistant, Door, assistant

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="NOT TESTED: the browser: there is no /usr/bin/chromium"
)
ELSEWHERE = "This does not belong to anything that you began in this browser"
STEP_UP = {"second_factor_required", "login_too_old"}


@pytest.fixture(scope="module")
def browser(door: Door) -> Iterator[SharedBrowser]:
    with shared_chromium(door) as shared:
        yield shared


async def authorize_url(client: Assistant, server: str) -> str:
    """Let the SDK begin, and take away the link that it wants its person to open."""
    link: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def take(url: str) -> None:
        link.set_result(url)
        await asyncio.Event().wait()

    client.auth(server).context.redirect_handler = take
    began = asyncio.create_task(client.whoami(server))
    try:
        return await asyncio.wait_for(link, 120)
    finally:
        began.cancel()
        await asyncio.gather(began, return_exceptions=True)


def test_from_the_first_401_to_a_step_up_and_its_end(door: Door, browser: SharedBrowser) -> None:
    """One afternoon of one person: two applications are connected (password and code typed once,
    consent clicked for each), a deletion is refused when the log-in has become old, goes through
    after a step-up, is refused again later; then the person ends one application's log-in.
    """

    async def game(chromium: Browser) -> None:
        context = await profile(door, chromium)
        async with (
            listening() as here,
            listening("localhost") as there,
            assistant(door, door.john, "Desk", redirect_uri=here.redirect_uri) as desk,
            assistant(door, door.john, "Shelf", redirect_uri=there.redirect_uri) as shelf,
            desk.network.browser() as http,
        ):
            desk.login = ByChromium(door, context, here)
            told = await desk.whoami("notes")
            assert told["x-authz-client"] == "dynamic/loopback"
            assert desk.login.typed == [("password", "code", "consent")]

            # Authelia's session is open: neither password nor code, but our page all the same.
            shelf.login = ByChromium(door, context, there)
            await shelf.whoami("notes")
            assert shelf.login.typed == [("consent",)]

            page = await context.new_page()
            await go_to(page, await refused(door, http, desk))
            await page.get_by_text("A call of").wait_for()
            await refused(door, http, desk)  # a page that is open is no log-in
            await page.get_by_role("button", name=GO_ON).click()
            assert await log_in(door, page, door.john, is_done) == ("password again",)
            await page.get_by_text("Go back to your assistant and try again").wait_for()
            await admitted(door, http, desk)
            other = await delete(door, http, shelf)
            assert reason_of(other) in STEP_UP, "another application's step-up"

            # Again too old. In a browser that Authelia does not know everything is asked for.
            link = await refused(door, http, desk)
            elsewhere = await (await profile(door, chromium)).new_page()
            await go_to(elsewhere, link)
            await elsewhere.get_by_role("button", name=GO_ON).click()
            assert await log_in(door, elsewhere, door.john, is_done) == ("password", "code")
            await admitted(door, http, desk)

            await ended(door, page, "Shelf")
            assert reason_of(await door.call(http, "notes", shelf.token, "whoami")) == (
                "token_revoked"
            )
            expect(await door.call(http, "notes", desk.token, "whoami"), 200)

    browser.play(game)


async def delete(door: Door, http: httpx.AsyncClient, client: Assistant) -> httpx.Response:
    return await door.call(http, "notes", client.token, "delete_note", name="none")


async def admitted(door: Door, http: httpx.AsyncClient, client: Assistant) -> None:
    expect(await delete(door, http, client), 200)


async def refused(door: Door, http: httpx.AsyncClient, client: Assistant) -> str:
    """Call until the log-in is too old; return the link that the refusal offers."""

    def is_refused(answer: httpx.Response) -> bool:
        return reason_of(answer) in STEP_UP

    answer = await door.called(http, "notes", client.token, "delete_note", is_refused, name="none")
    link: str = refusal_of(answer)[1]["step_up_url"]
    return link


def is_done(url: str) -> bool:
    return "/authz/step-up/done" in url


async def ended(door: Door, page: Page, name: str) -> None:
    """End an application's log-in on the page of one's own."""
    await go_to(page, door.at("/authz/log-ins"))
    await page.get_by_role("button", name="Log in").click()
    await log_in(door, page, door.john, lambda url: url == door.at("/authz/log-ins"))
    row = page.locator("li", has_text=f"“{name}”")
    await row.get_by_role("button").click()
    await page.wait_for_url(door.at("/authz/log-ins"))
    await page.get_by_role("heading", name="Your log-ins").wait_for()
    assert await row.count() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_no_reaches_the_application(door: Door, host: str, browser: SharedBrowser) -> None:
    """From the form that was clicked straight to a listener of this machine: the policy of the
    page lets that through, and Authelia is not asked.
    """

    async def game(chromium: Browser) -> None:
        async with (
            listening(host) as here,
            assistant(door, door.john, "Denied", redirect_uri=here.redirect_uri) as client,
        ):
            page = await (await profile(door, chromium)).new_page()
            await go_to(page, await authorize_url(client, "notes"))
            await page.get_by_role("button", name="Deny").click()
            await page.get_by_text("Back at the application").wait_for()
            assert parse_qs(urlsplit(here.came[0]).query)["error"] == ["access_denied"]

    browser.play(game)


@pytest.mark.attack("callback-of-another-browser")
def test_authelias_page_that_another_browser_was_sent_to_leads_to_no_client(
    door: Door, browser: SharedBrowser
) -> None:
    """Consent in the attacker's profile; the victim opens Authelia's URL and logs in there: the
    callback belongs to the browser that began, and the attacker's client hears nothing.
    """

    async def game(chromium: Browser) -> None:
        async with (
            listening() as here,
            assistant(door, door.john, "Thief", redirect_uri=here.redirect_uri) as client,
        ):
            asked: list[str] = []

            def note(request: Request) -> None:
                if "/api/oidc/authorization" in request.url:
                    asked.append(request.url)

            page = await (await profile(door, chromium)).new_page()
            page.on("request", note)
            await go_to(page, await authorize_url(client, "notes"))
            await page.get_by_role("button", name=ALLOW).click()
            await page.wait_for_url("https://auth.*/**")

            theirs = await (await profile(door, chromium)).new_page()
            await go_to(theirs, asked[0])
            ours = door.at("/authz/")
            await log_in(door, theirs, door.john, lambda url: url.startswith(ours))
            await theirs.get_by_text(ELSEWHERE).wait_for()
            assert here.came == []

    browser.play(game)


@pytest.mark.attack("callback-of-another-browser")
def test_a_callback_that_another_browser_was_sent_to_leads_to_no_client(
    door: Door, browser: SharedBrowser
) -> None:
    """The attacker logs in, keeps the callback back and lets the victim open it: nothing."""

    async def game(chromium: Browser) -> None:
        async with (
            listening() as here,
            assistant(door, door.bob, "Fixed", redirect_uri=here.redirect_uri) as client,
        ):
            portal = door.running.environment.issuer.portal
            url = await authorize_url(client, "board")
            while not url.startswith(door.at("/authz/callback?")):
                page = await client.browser.get(url, follow_redirects=False)
                url = await door.bob._on(client.browser, page, portal)

            theirs = await (await profile(door, chromium)).new_page()
            await go_to(theirs, url)
            await theirs.get_by_text(ELSEWHERE).wait_for()
            assert here.came == []

    browser.play(game)


@pytest.mark.attack("consent-cross-site")
def test_other_sites_can_neither_frame_nor_click(door: Door, browser: SharedBrowser) -> None:
    """In a frame there is nothing to click on; a form of another site, with the token of a page
    of this very browser, is refused, and nobody is sent to Authelia.
    """

    async def game(chromium: Browser) -> None:
        pages: dict[str, str] = {}
        async with (
            listening() as here,
            other_site(pages) as evil,
            assistant(door, door.john, "Framed", redirect_uri=here.redirect_uri) as client,
        ):
            link = await authorize_url(client, "notes")
            context = await profile(door, chromium)
            page = await context.new_page()
            pages["/frame"] = f'<iframe src="{html.escape(link)}"></iframe>'
            await go_to(page, f"{evil}/frame")
            (frame,) = [each for each in page.frames if each != page.main_frame]
            assert await frame.locator("button").count() == 0

            await go_to(page, link)
            token = re.search(r'name="form_token" value="([^"]*)"', await page.content())
            assert token is not None
            pages["/form"] = (
                f'<form method="post" action="{door.at("/authz/consent")}">'
                f'<input name="form_token" value="{token[1]}">'
                '<button name="decision" value="approve">Win</button></form>'
            )
            await go_to(page, f"{evil}/form")
            async with page.expect_response("**/authz/consent") as answered:
                await page.get_by_role("button", name="Win").click()
            assert (await answered.value).status == 403
            assert urlsplit(page.url).netloc == urlsplit(door.at("/")).netloc

            # The same browser, on our own page, goes on.
            await go_to(page, link)
            await page.get_by_role("button", name=ALLOW).click()
            await log_in(door, page, door.john, here.is_here)
            assert "code" in parse_qs(urlsplit(here.came[0]).query)

    browser.play(game)


# Turned text, what has no width, a Cyrillic letter in a Latin word, Hebrew beside digits, markup.
HOSTILE = (
    "a\u202egpj.exe\u202c\u200bp\u0430ypal \u05d0\u05d1 12 "
    "</pre><form action='https://evil.example.test'><button>Approve</button></form>"
)
# Of the text in the frame, character by character: its place on the page. Blanks are left out: they
# may end a line.
PLACES = """frame => {
  const found = [];
  const texts = document.createTreeWalker(frame, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    for (let n = 0; n < texts.currentNode.length; n++) {
      const range = document.createRange();
      range.setStart(texts.currentNode, n);
      range.setEnd(texts.currentNode, n + 1);
      const { left, top, width } = range.getBoundingClientRect();
      const text = range.toString();
      if (text.trim()) found.push([text, left, top, width]);
    }
  }
  return found;
}"""


async def approval_page(
    door: Door, context: BrowserContext, link: str, typed: tuple[str, ...]
) -> Page:
    """Follow a link to the call, and compare what the log-in asked for."""
    page = await context.new_page()
    await go_to(page, link)
    await page.get_by_role("button", name=GO_ON).click()
    ours = door.at("/authz/approval/call?")
    assert await log_in(door, page, door.john, lambda url: url.startswith(ours)) == typed
    await page.get_by_role("button", name="Decline").wait_for()
    return page


async def shown_arguments(page: Page) -> str:
    """Return the arguments as they stand on the page: each character is seen, in its order."""
    frame = page.locator("pre.data").first
    places = await frame.evaluate(PLACES)
    assert min(width for *_, width in places) > 0
    for (_, left, top, _), (text, next_left, next_top, _) in pairwise(places):
        assert next_top > top or next_left > left, text
    return "".join(text for text, *_ in places)


@pytest.mark.attack("approval-page-injected")
def test_an_approval_from_its_link_to_the_call(door: Door, browser: SharedBrowser) -> None:
    """A password is enough where no second factor is asked; then the code alone is missing, and
    afterwards nothing is. Hostile arguments stand on the page as what they are; the call that was
    approved passes, and the one that was declined is told so.
    """

    async def game(chromium: Browser) -> None:
        async with (
            assistant(door, door.john, "Approved files") as files,
            assistant(door, door.john, "Approved notes") as notes,
            notes.network.browser() as http,
            files.at("asked-files", "legacy") as session,
        ):
            context = await profile(door, chromium)

            told = await session.call_tool("delete_file", {"name": HOSTILE})
            assert told.meta is not None
            link = told.meta[REFUSAL]["approval_url"]
            page = await approval_page(door, context, link, ("password",))
            await page.get_by_role("button", name="Decline").click()
            await page.get_by_role("heading", name="Nothing was done").wait_for()
            told = await session.call_tool("delete_file", {"name": HOSTILE})
            assert "declined this call" in str(told.content)

            await notes.whoami("asked-notes", "2026-07-28")

            async def call(name: str) -> httpx.Response:
                return await door.call(http, "asked-notes", notes.token, "delete_note", name=name)

            async def link_of(name: str) -> str:
                return str(refusal_of(await call(name))[1]["approval_url"])

            page = await approval_page(door, context, await link_of(HOSTILE), ("code",))
            shown = await shown_arguments(page)
            assert json.loads(shown) == {"name": HOSTILE.replace(" ", "")}
            for unseen in ("\u202e", "\u202c", "\u200b", "\u0430", "\u05d0"):
                assert f"\\u{ord(unseen):04x}" in shown
            assert await page.locator("form").count() == 1
            assert await page.get_by_role("button", name="Approve").count() == 1
            await page.get_by_role("button", name="Approve").click()
            await page.get_by_role("heading", name="let it try again").wait_for()
            assert "no note of that name" in (await call(HOSTILE)).text
            assert reason_of(await call(HOSTILE)) == "approval_required"

            page = await approval_page(door, context, await link_of("plan"), ())
            assert await shown_arguments(page) == '{"name":"plan"}'

    browser.play(game)


@pytest.mark.attack("page-framed")
def test_the_console_opens_for_its_group_alone_and_is_framed_nowhere(
    door: Door, browser: SharedBrowser
) -> None:
    """An operator logs in with password and code, reads every section without a single breach of
    the pages' own policy, ends a log-in after the page that asks, and leaves; another site cannot
    frame it. What the issuer says of groups comes from the real endpoint.
    """

    async def game(chromium: Browser) -> None:
        async with assistant(door, door.john, "Ended at the console") as client:
            await client.whoami("notes")
            page = await (await profile(door, chromium)).new_page()
            breaches = list[str]()
            page.on("console", lambda message: breaches.append(message.text))
            console = door.at("/authz/admin")
            await go_to(page, console)
            await page.get_by_role("button", name="Log in").click()
            typed = await log_in(door, page, door.john, lambda url: url == console)
            assert "code" in typed
            await page.get_by_role("heading", name="Overview").wait_for()
            await page.get_by_text("authz serve at").first.wait_for()
            for section in ("Clients", "Revocations", "Step-ups", "Refusals", "Limits", "Rules"):
                await page.get_by_role("link", name=section, exact=True).click()
                await page.get_by_role("heading", name=section, exact=True).wait_for()
            await page.get_by_role("link", name="Log-ins", exact=True).click()
            row = page.locator("li", has_text="“Ended at the console”")
            await row.get_by_role("button", name="End").click()
            await page.get_by_role("button", name="End it").click()
            await page.get_by_text("Done: end it.").wait_for()
            assert await row.count() == 0
            answer = await door.call(client.browser, "notes", client.token, "whoami")
            assert reason_of(answer) == "token_revoked"
            await page.get_by_role("button", name="Log out").click()
            await page.get_by_role("button", name="Log in").wait_for()
            assert not [each for each in breaches if "Content Security Policy" in each]

    browser.play(game)

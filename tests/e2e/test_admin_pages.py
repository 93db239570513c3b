"""Admin pages in Chromium through `authz up`: log-in, scripts, other sites, log-out, revocation."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from authz.config.model import Login
from authz.process.service import ServiceSpec
from authz.setup.certificates import write_certificates
from authz_demo import front_door
from authz_demo.environment import Location, People, StandInProvider
from authz_demo.issuer import RegisteredClient
from tests.support.admin_page import PageUpstream, page_upstream
from tests.support.chromium import (
    CHROMIUM,
    GO_ON,
    SharedBrowser,
    go_to,
    log_in,
    other_site,
    shared_chromium,
)
from tests.support.demo_environment import RunningEnvironment, running_environment
from tests.support.door import DOCUMENTS, Door, PublishedDocuments

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="NOT TESTED: the browser: there is no /usr/bin/chromium"
)
HOST, STAFF_HOST = "grafana.example.test", "wiki.example.test"
ORIGIN = f"https://{HOST}"
PAGES = """\
pages:
  grafana:
    host: grafana.example.test
    upstream: http://grafana
    socket: {folder}/grafana.sock
    groups: [staff]
    second_factor: totp
  wiki:
    host: wiki.example.test
    upstream: http://wiki
    socket: {folder}/wiki.sock
    groups: [staff]
"""
# What a page's own script does: a call, a form's POST, events, a WebSocket that is answered.
SCRIPT = """async () => {
  const call = await fetch('/api/x');
  const form = await fetch('/api/x', {method: 'POST', body: 'a=1'});
  const events = await new Promise(found => {
    const source = new EventSource('/stream');
    source.onmessage = event => { found(event.data); source.close(); };
    source.onerror = () => { found('error'); source.close(); };
  });
  const echoed = await new Promise(found => {
    const socket = new WebSocket('wss://' + location.host + '/api/live/ws');
    socket.onopen = () => socket.send('hello');
    socket.onmessage = event => { found(event.data); socket.close(); };
    socket.onerror = () => found('error');
  });
  return [call.status, form.status, events, echoed, document.cookie];
}"""
# What another site's script tries.
ABROAD = """async origin => {
  const tries = [];
  for (const options of [{}, {method: 'POST', body: 'a=1'}]) {
    await fetch(origin + '/api/evil', {mode: 'no-cors', credentials: 'include', ...options})
      .catch(() => 0);
  }
  tries.push(await new Promise(found => {
    const socket = new WebSocket(origin.replace('https', 'wss') + '/api/evil');
    socket.onopen = () => found('open');
    socket.onerror = () => found('error');
  }));
  const image = new Image();
  tries.push(await new Promise(found => {
    image.onload = image.onerror = () => found('done');
    image.src = origin + '/api/evil';
  }));
  return tries;
}"""


class PagesProvider(StandInProvider):
    """The stand-in, whose clients know the log-ins for pages, as `authz authelia-config` has it."""

    def part(self, place: Location, who: People, machine_secret: str, login: Login) -> ServiceSpec:
        known = front_door.clients
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(front_door, "clients", lambda *given: with_pages(known(*given), *given))
            return super().part(place, who, machine_secret, login)


def with_pages(
    clients: tuple[RegisteredClient, ...], gateway: str, _: Path
) -> tuple[RegisteredClient, ...]:
    """Return the clients with the callbacks, the scope and the claims of pages."""
    two, one, *others = (
        replace(
            each,
            redirect_uris=(*each.redirect_uris, f"{gateway}/authz/page/{way}callback"),
            scopes=(*each.scopes, "groups"),
            claims_policy=("groups",),
        )
        for each, way in zip(clients, ("", "one-factor/", ""), strict=True)
    )
    return (two, one, *others)


@dataclass(frozen=True, slots=True)
class Whole:
    """What runs, and the web interfaces behind it."""

    door: Door
    grafana: PageUpstream
    wiki: PageUpstream


@pytest.fixture(scope="module")
def whole(short_module: Path) -> Iterator[Whole]:
    folder = short_module
    documents = PublishedDocuments(write_certificates(folder / "documents", [DOCUMENTS]))
    with ExitStack() as stack:
        stack.callback(documents.close)
        grafana = stack.enter_context(page_upstream(folder / "grafana.sock"))
        wiki = stack.enter_context(page_upstream(folder / "wiki.sock"))
        change = partial(_with_pages, folder)
        running = stack.enter_context(
            running_environment(folder / "p", PagesProvider(), change, login="front_door")
        )
        yield Whole(Door(running, documents), grafana, wiki)


def _with_pages(folder: Path, text: str) -> str:
    return text + PAGES.format(folder=folder)


@pytest.fixture(scope="module")
def browser(whole: Whole) -> Iterator[SharedBrowser]:
    with shared_chromium(whole.door) as shared:
        yield shared


def browse(browser: SharedBrowser, game: Callable[[BrowserContext], Awaitable[None]]) -> None:
    async def play(chromium: Browser) -> None:
        await game(await profile(chromium))

    browser.play(play)


async def profile(browser: Browser) -> BrowserContext:
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(20_000)
    return context


def at(host: str) -> Callable[[str], bool]:
    return lambda url: url.startswith(f"https://{host}/") and "/authz/" not in url


async def opened(whole: Whole, page: Page, url: str, person: Any) -> tuple[str, ...]:
    """Open an address, click and log in; return what was typed."""
    await go_to(page, url)
    assert page.url.startswith("https://mcp.example.test/authz/page?ticket=")
    await page.get_by_role("button", name=GO_ON).click()
    host = url.split("/")[2]
    return await log_in(whole.door, page, person, lambda now: at(host)(now) or "/problem" in now)


def test_from_the_log_in_to_the_log_out(whole: Whole, browser: SharedBrowser) -> None:
    """A person logs in with password and code, comes back to the address that they opened, and the
    page's own scripts work; another page asks for nothing more; after the log-out nothing works.
    """

    async def game(context: BrowserContext) -> None:
        page = await context.new_page()
        whole.grafana.go_on.set()
        whole.grafana.sets = ("__Host-authz-session=evil; Path=/; Secure", "own=1; Path=/")
        assert await opened(whole, page, f"{ORIGIN}/d/a?x=1", whole.door.john) == (
            "password", "code",
        )  # fmt: skip
        assert page.url == f"{ORIGIN}/d/a?x=1"
        await page.get_by_role("heading", name="A page").wait_for()
        said = await page.evaluate(SCRIPT)
        assert said == [200, 200, "first", "hello", "own=1"]
        for each in whole.grafana.arrived:
            assert each.values("remote-user") == ["john"]
            assert each.values("remote-groups") == ["staff"]
            assert "__Host-authz" not in str(each.headers)

        # The other page's session is its own; Authelia's session saves the typing.
        assert await opened(whole, page, f"https://{STAFF_HOST}/", whole.door.john) == ()
        cookies = {
            (each["name"], each["domain"], each["sameSite"], each["httpOnly"])
            for each in await context.cookies()
            if each["name"] == "__Host-authz-session"
        }
        assert cookies == {
            ("__Host-authz-session", host, "Lax", True) for host in (HOST, STAFF_HOST)
        }

        await go_to(page, f"{ORIGIN}/authz/page/log-out")
        await page.get_by_role("button", name="Log out").click()
        await page.get_by_text(f"You are logged out of {HOST}").wait_for()
        await go_to(page, f"{ORIGIN}/")
        assert page.url.startswith("https://mcp.example.test/authz/page?ticket=")
        await go_to(page, f"https://{STAFF_HOST}/")
        assert page.url == f"https://{STAFF_HOST}/"

    browse(browser, game)


@pytest.mark.attack("page-cross-site", "page-cross-site-websocket")
def test_another_site_does_nothing(whole: Whole, browser: SharedBrowser) -> None:
    """Scripts and forms of another site reach nothing with a person's session; a link opens."""

    async def game(context: BrowserContext) -> None:
        page = await context.new_page()
        await opened(whole, page, f"{ORIGIN}/", whole.door.john)
        form = f"<form method=post action={ORIGIN}/api/evil><button>Win</button></form>"
        link = f"<a href={ORIGIN}/linked>Look</a>"
        async with other_site({"/": form + link}) as site:
            other = await context.new_page()
            await go_to(other, f"{site}/")
            assert await other.evaluate(ABROAD, ORIGIN) == ["error", "done"]
            await other.get_by_role("button", name="Win").click()
            await other.wait_for_url(f"{ORIGIN}/api/evil")
            await go_to(other, f"{site}/")
            await other.get_by_role("link", name="Look").click()
            await other.get_by_role("heading", name="A page").wait_for()
        lines = [each.line for each in whole.grafana.arrived]
        assert not any("evil" in line for line in lines)
        assert "GET /linked HTTP/1.1" in lines

    browse(browser, game)


@pytest.mark.attack("page-rules")
def test_whoever_may_not(whole: Whole, browser: SharedBrowser) -> None:
    """Who is in no group is told so, and gets no session."""

    async def game(context: BrowserContext) -> None:
        page = await context.new_page()
        before = len(whole.wiki.arrived)
        assert await opened(whole, page, f"https://{STAFF_HOST}/x", whole.door.bob) == ("password",)
        await page.get_by_text("You are not in a group that may open this page").wait_for()
        await go_to(page, f"https://{STAFF_HOST}/")
        assert page.url.startswith("https://mcp.example.test/authz/page?ticket=")
        assert len(whole.wiki.arrived) == before

    browse(browser, game)


@pytest.mark.attack("page-revoked")
def test_a_revocation_ends_access_at_once(whole: Whole, browser: SharedBrowser) -> None:
    """`authz revoke --user` on the command line: the next request is told to log in."""

    async def game(context: BrowserContext) -> None:
        page = await context.new_page()
        await opened(whole, page, f"{ORIGIN}/", whole.door.john)
        assert await page.evaluate("async () => (await fetch('/api/x')).status") == 200
        await asyncio.to_thread(revoke, whole.door.running)
        assert await page.evaluate("async () => (await fetch('/api/x')).status") == 401
        await go_to(page, f"{ORIGIN}/")
        assert page.url.startswith("https://mcp.example.test/authz/page?ticket=")

    browse(browser, game)


def revoke(running: RunningEnvironment) -> None:
    """End everything that John has by now."""
    command = [sys.executable, "-m", "authz", "revoke", "--user", "john", "--issued-before", "now"]
    options = ["-c", str(running.environment.configuration), "--state", str(running.state)]
    done = subprocess.run(
        [*command, *options, "--json"], capture_output=True, text=True, check=False,
        env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)

"""An admin page through `authz up`, by forms alone; with AUTHELIA, behind a real Authelia."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import pytest

from authz.setup.certificates import CertificateFiles, write_certificates
from authz_demo import environment
from authz_demo.login_drivers import LoginFailedError
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import BrowserUser
from tests.e2e.authelia import issuer_of_the_environment
from tests.e2e.test_admin_pages import HOST, ORIGIN, PAGES, PagesProvider
from tests.support.admin_page import PageUpstream, page_upstream
from tests.support.demo_environment import RunningEnvironment, running_environment

_RECHECK: Final = 4  # seconds
_NAVIGATION: Final = {"accept": "text/html", "sec-fetch-mode": "navigate"}


@dataclass(frozen=True, slots=True)
class PageDeployment:
    """Hold what runs, and the interface behind it."""

    running: RunningEnvironment
    grafana: PageUpstream

    @property
    def network(self) -> LoopbackNetwork:
        """Return how a browser reaches the whole, and the page's own name."""
        found = self.running.network
        port = self.running.environment.place.port
        return replace(found, ports={**found.ports, HOST: port})

    async def visit(self, browser: httpx.AsyncClient, person: BrowserUser) -> httpx.Response:
        """Open the page, logging in."""
        browser.headers.update(_NAVIGATION)  # a program without them gets 401
        portal = self.running.environment.issuer.portal
        return await person.visit(browser, f"{ORIGIN}/d/a?x=1", portal)


@pytest.fixture(scope="module")
def deployment(short_module: Path) -> Iterator[PageDeployment]:
    """What `authz up` runs, with pages."""
    issuer = issuer_of_the_environment() or PagesProvider()
    with ExitStack() as stack:
        grafana = stack.enter_context(page_upstream(short_module / "grafana.sock"))
        stack.enter_context(page_upstream(short_module / "wiki.sock"))
        change = partial(_with_pages, short_module)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(environment, "write_certificates", _certificates)
        running = stack.enter_context(
            running_environment(short_module / "f", issuer, change, login="front_door")
        )
        yield PageDeployment(running, grafana)


def _certificates(folder: Path, names: Sequence[str]) -> CertificateFiles:
    return write_certificates(folder, [*names, HOST])


def _with_pages(folder: Path, text: str) -> str:
    assert text.count("front_door: {") == 1
    text = text.replace("front_door: {", f"front_door: {{page_recheck: {_RECHECK}s, ")
    return text + PAGES.format(folder=folder)


def test_a_log_in_opens_the_page_as_long_as_its_groups_are_confirmed(
    deployment: PageDeployment,
) -> None:
    """Without a session a program gets 401; with password and TOTP the page knows who comes, and
    still after twice `page_recheck`, for which the issuer has to have confirmed the groups.
    """
    john = deployment.running.environment.who.john

    async def game() -> None:
        async with deployment.network.browser() as browser:
            refused = await browser.get(f"{ORIGIN}/api/x", follow_redirects=False)
            assert refused.status_code == httpx.codes.UNAUTHORIZED
            page = await deployment.visit(browser, john)
            assert page.status_code == httpx.codes.OK
            assert str(page.url) == f"{ORIGIN}/d/a?x=1"
            end = time.monotonic() + 2 * _RECHECK
            while time.monotonic() < end:
                answer = await browser.get(f"{ORIGIN}/api/x", follow_redirects=False)
                assert answer.status_code == httpx.codes.OK
                await asyncio.sleep(0.2)
        arrived = deployment.grafana.arrived
        assert {each.values("remote-user")[0] for each in arrived} == {"john"}
        assert {each.values("remote-groups")[0] for each in arrived} == {"staff"}

    asyncio.run(game())


def test_whoever_is_in_no_group_gets_no_session(deployment: PageDeployment) -> None:
    """Or has no second factor: the gateway says so, and the page hears nothing."""
    bob, before = deployment.running.environment.who.bob, len(deployment.grafana.arrived)

    async def game() -> None:
        async with deployment.network.browser() as browser:
            with pytest.raises(LoginFailedError):
                await deployment.visit(browser, bob)
            again = await browser.get(f"{ORIGIN}/api/x", follow_redirects=False)
            assert again.status_code == httpx.codes.SEE_OTHER  # to the log-in

    asyncio.run(game())
    assert len(deployment.grafana.arrived) == before

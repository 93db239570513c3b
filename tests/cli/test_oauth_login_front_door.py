"""`authz login` through the front door: it registers, its person agrees and logs in, as ever."""

import asyncio
from typing import Any

import httpx
import pytest

from authz.cli import login
from authz.cli.oauth_login.log_in import Granted, log_in
from authz.cli.oauth_login.request import OAuthLoginError, Wanted
from authz.config.load import read
from authz.tokens.issuer import IssuerAddress
from tests.demo.kit import FILES, JOHN, claims
from tests.login.conftest import Play
from tests.login.front import GATEWAY, FrontDoorStage, john


async def logged_in(found: FrontDoorStage, wanted: Wanted, **knows: Any) -> Granted:
    """One log-in from a terminal, with john at the browser."""
    visits: list[asyncio.Task[None]] = []

    async def visit(link: str) -> None:
        callback = await john(**knows).log_in(found.browser(), link)
        async with httpx.AsyncClient(trust_env=False, timeout=30) as browser:
            await browser.get(callback)

    def show(link: str) -> None:
        visits.append(asyncio.ensure_future(visit(link)))

    try:
        return await log_in(wanted, IssuerAddress(GATEWAY), found.browser(), show, 30)
    finally:
        await asyncio.gather(*visits, return_exceptions=True)


def test_a_terminal_needs_no_client(play: Play) -> None:
    """It registers without a refresh token, so that Authelia asks nothing; the log-in counts."""

    async def scene(found: FrontDoorStage) -> None:
        granted = await logged_in(found, Wanted("", FILES, ("mcp:tools",)))
        said = claims(granted.token)
        assert (said["sub"], said["aud"]) == (JOHN, [FILES])
        assert "offline_access" not in said["scp"]
        log_in_record = await found.built.records.get(granted.token)
        assert log_in_record is not None
        assert log_in_record.client == "dynamic/loopback"
        (grant,) = await found.built.grants.of(JOHN)
        assert (grant.title, grant.refresh) == ("authz login", "")

    play(scene)


def test_a_terminal_may_be_a_configured_client(play: Play) -> None:
    """With a loopback redirect URI, on whatever port is free."""

    async def scene(found: FrontDoorStage) -> None:
        granted = await logged_in(found, Wanted("narrow", FILES, ("mcp:tools",)))
        log_in_record = await found.built.records.get(granted.token)
        assert log_in_record is not None
        assert log_in_record.client == "narrow"

    play(scene)


def test_where_nobody_registers_a_terminal_says_what_to_do(play: Play) -> None:
    """The words name the option that helps."""

    async def scene(found: FrontDoorStage) -> None:
        with pytest.raises(OAuthLoginError, match=r"registration_endpoint|--client"):
            await logged_in(found, Wanted("", FILES, ()))

    play(scene, lambda text: text.replace("front_door: {", "front_door: {registration: false, "))


def test_who_does_not_agree_logs_nobody_in(play: Play) -> None:
    """The terminal hears of it."""

    async def scene(found: FrontDoorStage) -> None:
        with pytest.raises(OAuthLoginError, match="access_denied"):
            await logged_in(found, Wanted("", FILES, ()), consents=False)

    play(scene)


WITH_DOOR = """\
issuer: {url: https://auth.example.test}
front_door: {key_file: /run/front.pem}
gateway: {url: https://mcp.example.test, tls: {certificate: /a, key: /b}}
clients:
  old: {login: direct, redirect_uris: ['http://127.0.0.1/old'], scopes: ['mcp:files']}
  known: {redirect_uris: ['http://127.0.0.1/known'], scopes: ['mcp:files']}
servers:
  files: {upstream: 'http://files:8000/mcp', scopes: ['mcp:files']}
"""


@pytest.mark.parametrize(
    ("client", "goes_by_the_door", "wanted"),
    [
        (None, True, Wanted("", FILES, ("mcp:files",), "/callback")),
        ("known", True, Wanted("known", FILES, ("mcp:files",), "/known")),
        ("old", False, Wanted("old", FILES, ("mcp:files",), "/old")),
    ],
)
def test_where_a_log_in_goes(client: str | None, goes_by_the_door: bool, wanted: Wanted) -> None:
    """To the front door where there is one, unless a client is named that goes to the issuer."""
    settings = read(WITH_DOOR, "authz.yaml", {}, secrets=False)

    assert login.by_front_door(settings, client) is goes_by_the_door
    assert login._wanted(settings, "files", client, None) == wanted


def test_without_a_front_door_a_log_in_goes_to_the_issuer() -> None:
    """As it did."""
    text = WITH_DOOR.replace("front_door: {key_file: /run/front.pem}\n", "")
    text = text.replace("login: direct, ", "")
    settings = read(text, "authz.yaml", {}, secrets=False)

    assert not login.by_front_door(settings, None)
    assert not login.by_front_door(settings, "known")

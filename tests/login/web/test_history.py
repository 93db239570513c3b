"""What a log-in leaves behind in browsers and in the log, whatever becomes of it.

No page stands at an address that holds a code or a state of Authelia's, since histories keep
addresses; nothing of ours says them again; no address is given away as Referer.
No line of the log holds what proves, binds or opens anything.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest

from authz.core.ledger import UnavailableError
from tests.login.conftest import Play
from tests.login.front import GATEWAY, LOOPBACK, FrontDoorClient, FrontDoorStage, john, onward
from tests.login.test_attacks import consent_page, decide, registered

CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
SECRETS = "Authelia's tokens, codes, secrets in Referer, in error pages, in browser history"


async def untouched(_: FrontDoorStage) -> None:
    """Let everything go well."""


async def redis_away(found: FrontDoorStage) -> None:
    async def away(*_: object) -> object:
        raise UnavailableError("redis", "away")

    found.built.states._command = away


async def redis_away_late(found: FrontDoorStage) -> None:
    async def away(*_: object) -> object:
        raise UnavailableError("redis", "away")

    found.built.codes._command = away


async def a_defect(found: FrontDoorStage) -> None:
    async def broken(*_: object) -> object:
        raise RuntimeError("a defect")

    found.built.states._command = broken


async def authelia_away(found: FrontDoorStage) -> None:
    found.upstream.away = True


async def callback_of(client: FrontDoorClient) -> str:
    """Consent and log in; return where Authelia sends the browser, which is not opened."""
    _, token = await consent_page(client)
    url = onward(await decide(client, token))
    return await john().log_in(client.browser, url)


async def opened(client: FrontDoorClient, url: str) -> list[httpx.Response]:
    """Open a URL as a browser does; return every answer of the gateway on the way."""
    seen = []
    while url.startswith(GATEWAY):
        answer = await client.browser.get(url)
        seen.append(answer)
        url = answer.headers.get("location", "")
    return seen


@pytest.mark.attack(SECRETS)
@pytest.mark.parametrize(
    "happens",
    [untouched, redis_away, redis_away_late, a_defect, authelia_away],
)
@pytest.mark.parametrize("redirect_uri", [LOOPBACK, CURSOR])
def test_no_code_stays_behind(
    play: Play, redirect_uri: str, happens: Callable[[FrontDoorStage], Awaitable[None]]
) -> None:
    """The callback's own address is never that of a page, and nothing of it is said again."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, redirect_uri=redirect_uri)
        callback = await callback_of(client)
        await happens(found)
        said = parse_qs(urlsplit(callback).query)
        seen = await opened(client, callback)
        assert seen[0].status_code == 303
        for answer in seen:
            assert answer.headers["referrer-policy"] in {"no-referrer", "strict-origin"}
            assert answer.headers["cache-control"] == "no-store"
            for name in ("code", "state"):
                assert said[name][0] not in answer.text
                assert said[name][0] not in answer.headers.get("location", "")
            assert "authelia_" not in answer.text + answer.headers.get("location", "")

    play(scene)


def test_a_program_of_its_own_scheme_is_opened_from_a_page_of_its_own(play: Play) -> None:
    """Cursor: the page has our code for the program, for this browser alone, and the code works."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, redirect_uri=CURSOR)
        *_, page = await opened(client, await callback_of(client))
        assert (page.status_code, page.url.path) == (200, "/authz/back")
        target = page.headers["refresh"].partition("url=")[2]
        assert target.startswith(f"{CURSOR}?")
        back = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        assert (back["state"], back["iss"]) == (client.state, GATEWAY)
        other = await found.browser().get(page.url)
        assert other.status_code == 404
        assert back["code"] not in other.text
        assert (await client.exchange(back["code"])).status_code == 200

    play(scene)


def test_a_no_is_told_to_a_program_of_its_own_scheme(play: Play) -> None:
    """It is opened with `access_denied`."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, redirect_uri=CURSOR)
        _, token = await consent_page(client)
        answer = await decide(client, token, "deny")
        assert answer.headers["refresh"].startswith(f"0; url={CURSOR}?error=access_denied")
        assert "You are not logged in" in answer.text

    play(scene)


def test_what_fits_into_no_cookie_is_told_in_place(play: Play) -> None:
    """A state that grows in an address: the program hears of its log-in all the same."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, redirect_uri=CURSOR)
        client.state = '"' * 1000
        (page,) = await opened(client, await callback_of(client))
        assert page.status_code == 200
        assert page.headers["refresh"].startswith(f"0; url={CURSOR}?")

    play(scene)


# What must not be known of a request to Authelia: what it proves, binds or opens.
HIDDEN = {
    "code", "code_verifier", "code_challenge", "state", "nonce", "client_assertion", "token",
    "refresh_token",
}  # fmt: skip


@pytest.mark.attack("Authelia's tokens, codes, secrets in logs, in Referer, in error pages")
def test_no_secret_reaches_the_log_when_things_go_wrong(play: Play) -> None:
    """Refused, away, broken, somebody else's: whatever goes wrong is told without its values."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        tokens = await client.tokens()
        secrets = {client.client_id, client.state, client.verifier, *tokens.values()}
        for error in (None, httpx.ConnectError("https://x/?code=s3cret"), KeyError("s3cret")):
            callback = await callback_of(client)
            secrets |= {value for name, value in parse_qsl(callback) if name in HIDDEN}
            await found.browser().get(callback)  # another browser
            await client.browser.get(callback.replace("iss=", "iss=x"))  # another issuer
            found.upstream.fault = error
            await client.browser.get(callback)
            await client.refresh(tokens["refresh_token"])
            await client.post("/revoke", token=tokens["access_token"])
            found.upstream.fault = None
            await client.exchange("c0de" * 10)
            await client.refresh(f"authelia_rt_{'a' * 43}.{'b' * 43}")
        for sent in found.upstream.sent:
            form = parse_qsl(sent.content.decode())
            secrets |= {value for name, value in form if name in HIDDEN}
        log = found.log.getvalue()
        events = {line["event"] for line in found.lines()}
        assert {"log_in", "page", "crash"} <= events
        assert len(secrets) > 30
        for secret in (*filter(lambda each: len(str(each)) > 10, secrets), "s3cret", "authelia_"):
            assert str(secret) not in log

    play(scene)

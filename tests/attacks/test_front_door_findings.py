"""What a reviewer found in the front door, each as it was found.

Law: whoever has no log-in costs Authelia nothing beyond the pace of an address, and whoever has one
cannot spend more of Authelia or of Redis than a person's use of it.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from authz.core.second_factor import Method, StepUpNeed
from authz.core.step_up import StepUpTicket
from authz.login.attempts import LOG_INS
from authz.tokens.tickets import seal_ticket
from tests.demo.kit import ISSUER, JOHN
from tests.login.conftest import Play, keys, play, store, world
from tests.login.front import GATEWAY, Client, Stage, bob

__all__ = ["keys", "play", "store", "world"]

FROM_OUR_PAGE = {"Origin": GATEWAY, "Sec-Fetch-Site": "same-origin"}
TICKET = StepUpTicket(
    issuer=ISSUER,
    subject=JOHN,
    grant="g",
    client="claude",
    account="john",
    server="files",
    tool="admin_all",
    need=StepUpNeed(Method.TOTP, None),
    at=0,
)


async def registered(found: Stage, **changes: Any) -> Client:
    client = Client(found, **changes)
    await client.register()
    return client


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return found[1]


# --- what costs Authelia something ------------------------------------------------------------


def own_log_ins(_: Stage) -> str:
    return "/authz/log-ins"


def step_up(found: Stage) -> str:
    return f"/authz/step-up?ticket={seal_ticket(found.built.means.sealer, TICKET)}"


@pytest.mark.parametrize("page", [own_log_ins, step_up])
def test_a_form_that_goes_to_authelia_is_paced_whatever_it_is_for(
    play: Play, page: Callable[[Stage], str]
) -> None:
    """A stranger's form, sent again and again, is a request at Authelia twenty times a minute."""

    async def scene(found: Stage) -> None:
        browser = found.browser()
        url = f"{GATEWAY}{page(found)}"
        token = form_token(await browser.get(url))
        statuses = [
            (await browser.post(url, data={"form_token": token}, headers=FROM_OUR_PAGE)).status_code
            for _ in range(22)
        ]
        assert [status == 429 for status in statuses] == [False] * 20 + [True] * 2
        assert len(found.upstream.calls("pushed-authorization-request")) == 20

    play(scene)


async def spent_code(found: Stage, client: Client) -> Callable[[], Awaitable[httpx.Response]]:
    back = await client.log_in()
    await client.exchange(back["code"])
    return lambda: client.exchange(back["code"])


async def ended_token(found: Stage, client: Client) -> Callable[[], Awaitable[httpx.Response]]:
    tokens = await client.tokens()
    return lambda: client.post("/revoke", token=tokens["refresh_token"])


@pytest.mark.parametrize("again", [spent_code, ended_token])
def test_what_is_ended_at_authelia_is_not_ended_again(play: Play, again: Any) -> None:
    """A code that was used, or a token that was revoked, tells Authelia once, however often."""

    async def scene(found: Stage) -> None:
        client = await registered(found)
        send = await again(found, client)
        for _ in range(20):
            await send()
        assert len(found.upstream.calls("revocation")) == 1

    play(scene)


def test_what_authelia_did_not_hear_is_told_again(play: Play) -> None:
    """Only what it has ended is remembered."""

    async def scene(found: Stage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        found.upstream.away = True
        await client.post("/revoke", token=tokens["refresh_token"])
        found.upstream.away = False
        await client.post("/revoke", token=tokens["refresh_token"])
        before = len(found.upstream.calls("revocation"))
        await client.post("/revoke", token=tokens["refresh_token"])
        assert len(found.upstream.calls("revocation")) == before

    play(scene)


def test_refreshes_of_one_person_are_paced(play: Play) -> None:
    """A client that refreshes without end costs Authelia sixty a minute, and keeps its log-in."""

    async def scene(found: Stage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        statuses = []
        for _ in range(62):
            answer = await client.refresh(tokens["refresh_token"])
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                tokens = answer.json()
        assert statuses == [200] * 60 + [503] * 2
        assert int(answer.headers["retry-after"]) > 0
        other = await registered(found, address="198.51.100.1")
        theirs = await other.tokens(bob())
        assert (await other.refresh(theirs["refresh_token"])).status_code == 200

    play(scene)


def test_log_ins_of_one_person_are_paced(play: Play) -> None:
    """Each leaves something in Redis for a month: the 121st of an hour is told to come later."""

    async def scene(found: Stage) -> None:
        attempts, client = found.built.means.attempts, await registered(found)
        for _ in range(119):
            attempts.take_of(LOG_INS, JOHN)
        assert "code" in await client.log_in()
        kept = found.keys("code")
        told = await client.log_in()
        assert (told["error"], told["state"]) == ("temporarily_unavailable", client.state)
        assert found.keys("code") == kept
        assert len(found.upstream.calls("revocation")) == 1
        other = await registered(found, address="198.51.100.1")
        assert "code" in await other.log_in(bob())

    play(scene)

"""Two replicas of the pages with one Redis: a log-in is of no one process.

Every second request of a browser or client goes to the other replica, in either order.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from authz_demo.issuer.keys import StandInKeys
from tests.demo.kit import JOHN
from tests.login.front import GATEWAY, FrontDoorClient, FrontDoorStage, john, stage
from tests.support.valkey import ValkeyServer

Replicated = Callable[[Callable[[FrontDoorStage], Awaitable[None]]], None]


@pytest.fixture(params=[0, 1], ids=["first", "second"])
def replicated(
    request: pytest.FixtureRequest, store: ValkeyServer, keys: StandInKeys, tmp_path: Path
) -> Replicated:
    """The whole front door with two replicas; one or the other has the first request."""

    def run(scene: Callable[[FrontDoorStage], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with stage(store, keys, tmp_path, replicas=2) as found:
                found.turns.turn = request.param
                await scene(found)
                assert min(found.turns.asked[0], found.turns.asked[1]) > 0

        asyncio.run(whole())

    return run


def test_a_log_in_begins_at_one_and_ends_at_the_other(replicated: Replicated) -> None:
    """Register, consent, TOTP, callback, code, refreshes: each step where the last one was not;
    then the page of log-ins, which ends it at both.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        assert (await client.register()).status_code == 201
        tokens = await client.tokens()
        for _ in range(3):
            answer = await client.refresh(tokens["refresh_token"])
            assert answer.status_code == 200, answer.text
            tokens = answer.json()
        assert len(await found.built.grants.of(JOHN)) == 1
        assert (await client.post("/revoke", token=tokens["refresh_token"])).status_code == 200
        for _ in found.turns.replicas:
            answer = await client.refresh(tokens["refresh_token"])
            assert answer.json()["error"] == "invalid_grant"

    replicated(scene)


@pytest.mark.attack("code twice, at two replicas")
def test_a_code_at_both_at_the_same_moment_gives_nothing_that_lasts(
    replicated: Replicated,
) -> None:
    """One of them gives tokens at most, and what it gave has ended."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        back = await client.log_in()
        answers = await asyncio.gather(*(client.exchange(back["code"]) for _ in range(4)))
        good = [each.json() for each in answers if each.status_code == 200]
        assert len(good) <= 1
        for tokens in good:
            assert (await client.refresh(tokens["refresh_token"])).status_code == 400

    replicated(scene)


@pytest.mark.attack("refresh token twice, at two replicas")
def test_refreshes_at_both_at_the_same_moment_are_one(replicated: Replicated) -> None:
    """Authelia sees one, and the client gets one answer: a second would end its log-in."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        tokens = await client.tokens()
        before = len(found.upstream.calls("token"))
        answers = await asyncio.gather(*(client.refresh(tokens["refresh_token"]) for _ in range(6)))
        assert {each.status_code for each in answers} == {200}
        assert len({each.json()["refresh_token"] for each in answers}) == 1
        assert len(found.upstream.calls("token")) == before + 1

    replicated(scene)


@pytest.mark.attack("callback twice, at two replicas")
def test_a_callback_counts_at_one(replicated: Replicated) -> None:
    """The address that Authelia sent the browser to is of no use at the other replica."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        visited = list[str]()

        async def note(request: object) -> None:
            visited.append(str(getattr(request, "url", "")))

        client.browser.event_hooks = {"request": [note]}
        assert "code" in await client.log_in(john())
        (callback,) = [url for url in visited if url.startswith(f"{GATEWAY}/authz/callback")]
        for _ in found.turns.replicas:
            answer = await client.browser.get(callback)
            assert "code=" not in answer.headers.get("location", "")

    replicated(scene)

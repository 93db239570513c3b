"""Replaced refresh tokens: copies that several processes of one program keep, and stolen ones."""

import time
from typing import Any

import httpx
import pytest

from authz.login.store.codes import RefreshStore
from tests.demo.kit import JOHN, claims
from tests.login.conftest import Play
from tests.login.front import HOME, FrontDoorClient, FrontDoorStage

SAME_NETWORK = "2001:db8:1:2::7", "2001:db8:1:2:ffff::1"
ELSEWHERE = "198.51.100.9"


async def begun(
    found: FrontDoorStage, address: str = HOME
) -> tuple[FrontDoorClient, dict[str, Any]]:
    """A client that has logged in, and its tokens."""
    client = FrontDoorClient(found, address=address)
    await client.register()
    return client, await client.tokens()


async def renewed(
    found: FrontDoorStage, client: FrontDoorClient, tokens: dict[str, Any]
) -> dict[str, Any]:
    """What a refresh gives; more than 30 seconds later."""
    answer = await client.refresh(tokens["refresh_token"])
    assert answer.status_code == 200, answer.text
    found.valkey.command("DEL", *found.keys("refreshed"))
    return dict(answer.json())


def calls(found: FrontDoorStage) -> int:
    return len(found.upstream.calls("token"))


def told(found: FrontDoorStage) -> list[tuple[str, str]]:
    """The outcomes of refreshes in the log."""
    lines = [each for each in found.lines() if each.get("step") == "refresh"]
    return [(each["outcome"], each.get("detail", "")) for each in lines]


async def ended(
    found: FrontDoorStage, client: FrontDoorClient, answer: httpx.Response, *tokens: Any
) -> None:
    """The grant has ended, and none of its tokens gives anything."""
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert await found.built.grants.of(JOHN) == ()
    for each in tokens:
        again = await client.refresh(each["refresh_token"])
        assert again.json()["error"] == "invalid_grant"


@pytest.mark.parametrize("rotations", [1, 2, 5])
def test_a_stale_copy_gets_the_newest_answer(play: Play, rotations: int) -> None:
    """Hours later and however often it was replaced: the tokens that the others have, no others."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        newest = first
        for _ in range(rotations):
            newest = await renewed(found, client, newest)
        asked = calls(found)
        answer = await client.refresh(first["refresh_token"])
        assert answer.status_code == 200, answer.text
        for name in ("access_token", "refresh_token", "scope"):
            assert answer.json()[name] == newest[name]
        assert calls(found) == asked
        assert len(await found.built.grants.of(JOHN)) == 1
        assert told(found)[-1] == (
            "reused", "a replaced refresh token, from the network of the last refresh"
        )  # fmt: skip
        # And on, for both.
        assert (await client.refresh(newest["refresh_token"])).status_code == 200

    play(scene)


def test_a_stale_copy_is_told_in_the_metrics(play: Play) -> None:
    """Counted as a step of its own, so that an alert can be put on it."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        await renewed(found, client, first)
        await client.refresh(first["refresh_token"])
        labels = {"step": "refresh", "outcome": "reused"}
        registry = found.built._recorder.metrics.registry
        assert registry.get_sample_value("authz_log_ins_total", labels) == 1

    play(scene)


def test_where_the_newest_access_token_ends_its_successor_is_refreshed(play: Play) -> None:
    """Once, with the newest token of Authelia's; whoever holds that one gets the same answer."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        second = await renewed(found, client, first)
        asked = calls(found)
        spent = claims(second["access_token"])["exp"] - 30
        _at(found, spent)
        answer = await client.refresh(first["refresh_token"])
        assert answer.status_code == 200, answer.text
        third = answer.json()
        assert third["refresh_token"] not in (first["refresh_token"], second["refresh_token"])
        assert calls(found) == asked + 1
        assert (await client.refresh(second["refresh_token"])).json() == third
        assert calls(found) == asked + 1

    play(scene)


def _at(found: FrontDoorStage, moment: float) -> None:
    """Let the refreshes' clock stand at a moment."""
    found.built.refresh._clock = lambda: moment


@pytest.mark.attack("a stolen refresh token that was replaced, from another network")
def test_from_another_network_a_stale_token_ends_the_grant(play: Play) -> None:
    """RFC 9700, section 4.14.2: somebody has a copy; Authelia is not asked to refresh."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        second = await renewed(found, client, first)
        asked = calls(found)
        thief = FrontDoorClient(found, client.client_id, address=ELSEWHERE)
        answer = await thief.refresh(first["refresh_token"])
        await ended(found, client, answer, first, second)
        assert calls(found) == asked

    play(scene)


@pytest.mark.attack("a thief refreshes first; the person's client comes with the old token")
def test_whose_token_was_taken_notices_it(play: Play) -> None:
    """The client's own, now stale, comes from another network than the thief's refresh."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        thief = FrontDoorClient(found, client.client_id, address=ELSEWHERE)
        stolen = await renewed(found, thief, first)
        answer = await client.refresh(first["refresh_token"])
        await ended(found, thief, answer, stolen)

    play(scene)


def test_a_network_is_what_addresses_are_counted_by(play: Play) -> None:
    """Another address of the same /64 is the same network; IPv6 changes it by itself."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found, SAME_NETWORK[0])
        second = await renewed(found, client, first)
        again = FrontDoorClient(found, client.client_id, address=SAME_NETWORK[1])
        answer = await again.refresh(first["refresh_token"])
        assert answer.json()["refresh_token"] == second["refresh_token"]

    play(scene)


def test_after_its_time_a_stale_token_ends_the_grant(play: Play) -> None:
    """From wherever it comes; and everything that is kept for it ends by then."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        second = await renewed(found, client, first)
        for key in (*found.keys("replaced"), *found.keys("latest")):
            assert 0 < found.valkey.command("TTL", key) <= 86_400
        found.valkey.command("DEL", *found.keys("replaced"))
        await ended(found, client, await client.refresh(first["refresh_token"]), first, second)

    play(scene)


def test_the_time_is_a_setting(play: Play) -> None:
    """`30s` leaves what lost answers need."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        await client.refresh(first["refresh_token"])
        for key in (*found.keys("replaced"), *found.keys("latest"), *found.keys("refreshed")):
            assert 0 < found.valkey.command("TTL", key) <= 30

    play(scene, lambda text: text.replace("front_door: {", "front_door: {stale_refresh: 30s, "))


@pytest.mark.attack("a replaced refresh token after the operator shortened its time")
def test_a_shorter_time_counts_for_what_was_replaced_before(play: Play) -> None:
    """A reload makes it true at once, not when what is in Redis has ended by itself."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        second = await renewed(found, client, first)
        found.built.refresh._stale_refresh = 30
        _at(found, time.time() + 40)
        await ended(found, client, await client.refresh(first["refresh_token"]), first, second)

    play(scene)


@pytest.mark.attack("a stale refresh token after the end of its grant")
def test_after_an_end_no_copy_gives_anything(play: Play) -> None:
    """Neither of the tokens, and Authelia is not asked."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        second = await renewed(found, client, first)
        await client.post("/revoke", token=second["access_token"])
        asked = calls(found)
        for each in (first, second):
            answer = await client.refresh(each["refresh_token"])
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert calls(found) == asked
        assert found.keys("latest") == []

    play(scene)


@pytest.mark.attack("a replaced refresh token, sent again and again")
def test_stale_copies_are_bounded(play: Play) -> None:
    """A program has a few; whoever sends one for ever gets 503, and the grant lives."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        await renewed(found, client, first)
        answers = [await client.refresh(first["refresh_token"]) for _ in range(25)]
        assert {each.status_code for each in answers} == {200, 503}
        assert len(await found.built.grants.of(JOHN)) == 1

    play(scene)


def test_a_refresh_between_two_looks_is_no_theft(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process refreshes after the grant was read, and before its newest answer is."""
    latest, refreshed = RefreshStore.latest, list[httpx.Response]()

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        second = await renewed(found, client, first)

        async def later(self: RefreshStore, name: str, grant: str, since: float) -> Any:
            if not refreshed:
                refreshed.append(await client.refresh(second["refresh_token"]))
            return await latest(self, name, grant, since)

        monkeypatch.setattr(RefreshStore, "latest", later)
        answer = await client.refresh(first["refresh_token"])
        assert answer.status_code == 200, answer.text
        assert answer.json()["refresh_token"] == refreshed[0].json()["refresh_token"]
        assert len(await found.built.grants.of(JOHN)) == 1

    play(scene)


def test_what_somebody_writes_into_redis_is_no_answer(play: Play) -> None:
    """What is kept is sealed, and belongs to the grant whose token is asked with."""

    async def scene(found: FrontDoorStage) -> None:
        client, first = await begun(found)
        second = await renewed(found, client, first)
        (mine,) = found.keys("latest")
        other, others = await begun(found)
        await renewed(found, other, others)
        (theirs,) = set(found.keys("latest")) - {mine}
        found.valkey.command("SET", mine, found.valkey.command("GET", theirs), "EX", 600)
        answer = await client.refresh(first["refresh_token"])
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert (await client.refresh(second["refresh_token"])).status_code == 400
        (left,) = await found.built.grants.of(JOHN)
        assert left.client_id == other.client_id

    play(scene)

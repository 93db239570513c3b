"""Authelia is told what ended here: later, sealed till then, and without anybody waiting for it."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from authz.core.principal import Person
from authz.ledger.keys import RedisKeys as Names
from authz.ledger.keys import grant_field
from authz.login.protocol.refresh import RefreshToken
from authz.login.protocol.values import UpstreamError
from authz.login.store.blocklist import BlocklistEntry
from authz.login.store.grants import GrantStore, outbox_key
from authz.login.store.known_clients import block
from authz.login.store.revocation_outbox import STEP, RevocationOutbox
from authz.login.store.sealed import open_refresh, seal_refresh
from authz.login.web.own_grants import PersonsGrants
from tests.demo.kit import ISSUER, JOHN
from tests.login.conftest import Play, keys, play, store, world
from tests.login.front import FrontDoorClient, FrontDoorStage

__all__ = ["keys", "play", "store", "world"]

End = Callable[[FrontDoorStage, str], Awaitable[object]]


async def by_the_person(found: FrontDoorStage, grant: str) -> None:
    built = found.built
    await PersonsGrants(built.grants, built.ender).end(Person(ISSUER, JOHN), grant)


async def by_command(found: FrontDoorStage, grant: str, issuer: str = ISSUER) -> object:
    """As `authz clients block` does: with Redis alone, and without what opens anything."""
    grants = GrantStore(
        found.ledger.command,
        Names(found.deployment),
        issuer,
        max_age=30 * 86_400,
        max_lifetime=43_210,
        clock=found.built.clock,
    )
    one = BlocklistEntry("dynamic/loopback", 1, "root", "why")
    return await block(grants, found.built.blocks, one)


def untold(
    found: FrontDoorStage, clock: Callable[[], float] = lambda: 0.0, issuer: str = ISSUER
) -> RevocationOutbox:
    built = found.built
    names = Names(found.deployment)
    return RevocationOutbox(
        found.ledger.command,
        names,
        issuer,
        sealer=built.sealer,
        upstream=built.upstream,
        log=built.log,
        clock=clock,
    )


async def logged_in(found: FrontDoorStage) -> tuple[str, dict[str, Any]]:
    """A grant that was refreshed once: its id, and what its client holds."""
    client = FrontDoorClient(found)
    await client.register()
    first = await client.tokens()
    tokens = (await client.refresh(first["refresh_token"])).json()
    return opened(found, tokens).grant_id, tokens


def opened(found: FrontDoorStage, tokens: dict[str, Any]) -> RefreshToken:
    return open_refresh(found.built.sealer, tokens["refresh_token"], ISSUER)


def inside(found: FrontDoorStage, tokens: dict[str, Any]) -> str:
    return opened(found, tokens).upstream


def alive(found: FrontDoorStage, token: str) -> bool:
    return found.issuer.memory.tokens[token].active(found.issuer.now())


def said(found: FrontDoorStage) -> list[tuple[str, str]]:
    """What was said of Authelia's part: outcome and grant."""
    lines = [line for line in found.lines() if line.get("step") == STEP]
    return [(line["outcome"], line["grant"]) for line in lines]


@pytest.mark.parametrize("end", [by_the_person, by_command])
def test_whoever_ends_it_authelia_is_told(play: Play, end: End) -> None:
    """The newest refresh token, once; who ends it has not waited for that."""

    async def scene(found: FrontDoorStage) -> None:
        grant, tokens = await logged_in(found)
        token = inside(found, tokens)
        await end(found, grant)
        assert found.upstream.calls("revocation") == []
        assert alive(found, token)

        assert await untold(found).revoke_all() == 0
        assert await untold(found).revoke_all() == 0
        assert not alive(found, token)
        (call,) = found.upstream.calls("revocation")
        assert IPv6Address(call.headers["x-forwarded-for"]) in IPv6Network("fd00::/8")
        assert found.keys("untold") == []
        assert said(found) == [("ok", grant)]
        assert token not in found.log.getvalue()

    play(scene)


@pytest.mark.parametrize("end", [by_the_person, by_command])
def test_authelia_that_is_away_changes_no_end(play: Play, end: End) -> None:
    """Ended here at once; that Authelia did not hear is said once, and told when it is back."""

    async def scene(found: FrontDoorStage) -> None:
        now = 0.0
        teller = untold(found, lambda: now)
        grant, tokens = await logged_in(found)
        token = inside(found, tokens)
        found.upstream.away = True
        await end(found, grant)
        assert await found.built.grants.find(JOHN, grant) is None
        assert grant_field(ISSUER, grant) in await found.ledger.revocations()
        sent = len(found.upstream.sent)
        for _ in range(20):
            assert await teller.revoke_all() == 1  # it waits on, whether or not it is tried again
            now += 1.0
        assert said(found) == [("failed", grant)]
        # It is asked less and less often: at 0, 5 and 15 seconds.
        assert len(found.upstream.sent) - sent == 3
        assert token not in repr(found.valkey.command("HGETALL", *found.keys("untold")))

        found.upstream.away = False
        await teller.revoke_all()
        assert alive(found, token)
        now += 300.0
        await teller.revoke_all()
        assert not alive(found, token)
        assert said(found) == [("failed", grant), ("ok", grant)]
        assert found.keys("untold") == []

    play(scene)


def test_one_that_is_not_heard_keeps_no_other_back(play: Play) -> None:
    """Each has a pause of its own."""

    async def scene(found: FrontDoorStage) -> None:
        now = 0.0
        teller = untold(found, lambda: now)
        grants = [await logged_in(found) for _ in range(2)]
        found.upstream.away = True
        await by_the_person(found, grants[0][0])
        await teller.revoke_all()
        found.upstream.away = False
        await by_the_person(found, grants[1][0])
        await teller.revoke_all()
        assert [alive(found, inside(found, tokens)) for _, tokens in grants] == [True, False]

    play(scene)


def test_what_authelia_refuses_is_not_repeated(play: Play) -> None:
    """It would say the same for ever; the log has it."""

    async def scene(found: FrontDoorStage) -> None:
        grant, _ = await logged_in(found)
        await by_the_person(found, grant)
        found.issuer.config = replace(found.issuer.config, clients=())
        await untold(found).revoke_all()
        assert said(found) == [("refused", grant)]
        assert found.keys("untold") == []

    play(scene)


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable"])
def test_a_fault_in_the_words_of_a_refusal_is_none(
    play: Play, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """Authelia, or what stands before it, says that it cannot now: it is told again."""

    async def scene(found: FrontDoorStage) -> None:
        now = 0.0
        teller = untold(found, lambda: now)
        grant, tokens = await logged_in(found)
        await by_the_person(found, grant)

        async def refuse(**_: object) -> None:
            raise UpstreamError(error)

        with monkeypatch.context() as patched:
            patched.setattr(found.built.upstream, "revoke", refuse)
            await teller.revoke_all()
        now += 5.0
        await teller.revoke_all()
        assert not alive(found, inside(found, tokens))
        assert said(found) == [("failed", grant), ("ok", grant)]

    play(scene)


def test_what_does_not_open_is_dropped(play: Play) -> None:
    """A sealing key that was taken away, or anything else that stands there."""

    async def scene(found: FrontDoorStage) -> None:
        key = outbox_key(Names(found.deployment), ISSUER)
        found.valkey.command("HSET", key, "g1", "not sealed", "g2", b"\xff")
        await untold(found).revoke_all()
        assert sorted(said(found)) == [("lost", "g1"), ("lost", "g2")]
        assert found.keys("untold") == []
        assert found.upstream.calls("revocation") == []

    play(scene)


def test_another_issuer_is_told_nothing(play: Play) -> None:
    """Where authz.yaml names another one meanwhile, the first one's tokens are not shown to it."""

    async def scene(found: FrontDoorStage) -> None:
        grant, _ = await logged_in(found)
        await by_the_person(found, grant)
        (key,) = found.keys("untold")
        assert key.encode() == outbox_key(Names(found.deployment), ISSUER)
        assert key.encode() != outbox_key(Names(found.deployment), "https://other.example.test")

    play(scene)


def test_a_grant_of_an_issuer_before_is_told_to_none_after(play: Play) -> None:
    """`authz clients block` ends those too: what the first one gave is not shown to the next."""

    async def scene(found: FrontDoorStage) -> None:
        other = "https://other.example.test"
        grant, tokens = await logged_in(found)
        assert await by_command(found, grant, other) == 1
        await untold(found, issuer=other).revoke_all()
        assert found.upstream.calls("revocation") == []
        assert alive(found, inside(found, tokens))
        assert said(found) == [("lost", grant)]
        assert found.keys("untold") == []

    play(scene)


@pytest.mark.parametrize("endpoint", ["refresh", "revoke"])
def test_a_refresh_token_of_an_issuer_before_is_none(play: Play, endpoint: str) -> None:
    """Its client may send it where it will: what is sealed in it goes to no other issuer."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        token = opened(found, await client.tokens())
        before = replace(token, issuer="https://other.example.test")
        text = seal_refresh(found.built.sealer, before, 3600)
        found.upstream.sent.clear()
        if endpoint == "refresh":
            answer = await client.refresh(text)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        else:
            assert (await client.post("/revoke", token=text)).status_code == 200
        assert found.upstream.sent == []

    play(scene)


def test_a_defect_in_one_keeps_no_other_back(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever one of them raises, the others are told; and the defect is not swallowed."""

    async def scene(found: FrontDoorStage) -> None:
        teller, revoke = untold(found), found.built.upstream.revoke
        ids = [(await logged_in(found))[0] for _ in range(2)]
        for grant in ids:
            await by_the_person(found, grant)
        calls = list[str]()

        async def broken(*, token: str, **more: Any) -> None:
            calls.append(token)
            if len(calls) == 1:
                raise ValueError("a defect")
            await revoke(token=token, **more)

        monkeypatch.setattr(found.built.upstream, "revoke", broken)
        with pytest.raises(ValueError, match="a defect"):
            await teller.revoke_all()
        assert len(set(calls)) == 2
        assert sorted(outcome for outcome, _ in said(found)) == ["failed", "ok"]
        # And it is asked less often, as any other that fails.
        await teller.revoke_all()
        assert len(calls) == 2

    play(scene)


def test_what_waits_is_bounded_and_has_an_end(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than so many are not told; they end here all the same."""

    async def scene(found: FrontDoorStage) -> None:
        monkeypatch.setattr("authz.login.store.grants._MOST_WAITING", 1)
        ids = [(await logged_in(found))[0] for _ in range(2)]
        for grant in ids:
            await by_the_person(found, grant)
            assert await found.built.grants.find(JOHN, grant) is None
        (key,) = found.keys("untold")
        assert found.valkey.command("HKEYS", key) == [ids[0].encode()]
        assert found.valkey.command("TTL", key) > 0

    play(scene)


def test_a_record_of_before_ends_too(play: Play) -> None:
    """What an earlier version wrote has no token in it: it is a grant, and ends here alone."""

    async def scene(found: FrontDoorStage) -> None:
        grant, _ = await logged_in(found)
        (key,) = found.keys("grants")
        record = found.valkey.command("HGET", key, grant)
        old = {name: each for name, each in json.loads(record).items() if name != "upstream"}
        found.valkey.command("HSET", key, grant, json.dumps(old))
        assert await found.built.grants.find(JOHN, grant) is not None
        await by_the_person(found, grant)
        assert grant_field(ISSUER, grant) in await found.ledger.revocations()
        assert found.keys("untold") == []

    play(scene)


def test_an_end_that_waits_for_nothing_says_what_was_not_heard(play: Play) -> None:
    """A token of a grant that is gone has nobody to tell it again: once, at once, it is said."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        tokens = await client.tokens()
        grant = opened(found, tokens).grant_id
        await client.post("/revoke", token=tokens["refresh_token"])
        await untold(found).revoke_all()
        found.built.upstream._ended.clear()
        found.upstream.away = True
        await client.post("/revoke", token=tokens["refresh_token"])
        assert said(found) == [("ok", grant), ("failed", grant)]

    play(scene)

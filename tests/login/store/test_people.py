"""Who has logged in, on a real Redis: sealed, with an end, and only who is meant."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from authz.core.limits import digest
from authz.core.principal import Person
from authz.ledger.keys import RedisKeys
from authz.login.protocol.people import PersonRecord
from authz.login.protocol.values import LoginIdentity
from authz.login.store.known_people import known_people
from authz.login.store.people import PeopleStore
from authz.tokens.sealing import Sealer
from tests.login.service.flow_kit import Flow
from tests.login.service.test_interleavings import exchange, refresh
from tests.login.store.test_store import GRANT, begun
from tests.support.values import ISSUER

Scene = Callable[[Flow], Awaitable[None]]
ADA = LoginIdentity("s-ada", frozenset({"pwd"}), 1_700_000_000, "ada", "ada@example.com")


async def all_of(people: PeopleStore) -> list[PersonRecord]:
    return [record async for _, record in people.all()]


def test_a_person_is_kept_sealed_and_for_as_long_as_a_log_in(run: Callable[[Scene], None]) -> None:
    """Redis holds neither name, address nor subject, and forgets them; the newest name counts."""

    async def scene(found: Flow) -> None:
        await found.people.keep(ADA)
        await found.people.keep(replace(ADA, account="ada2"))
        (key,) = found.keys("person")
        held = found.valkey.command("GET", key)
        for secret in (b"s-ada", b"ada", b"example.com"):
            assert secret not in held + key.partition(b"}")[2]
        assert found.grants.kept - 60 < found.valkey.command("TTL", key) <= found.grants.kept
        (record,) = await all_of(found.people)
        assert (record.subject, record.account, record.email) == (
            "s-ada", "ada2", "ada@example.com",
        )  # fmt: skip

    run(scene)


@pytest.mark.attack("named-like-another")
def test_what_stands_under_anothers_name_is_nobodys(run: Callable[[Scene], None]) -> None:
    """Who can write into Redis can neither make a person nor put one in another's place; what an
    older key sealed opens as long as that key is kept.
    """

    async def scene(found: Flow) -> None:
        await found.people.keep(ADA)
        (key,) = found.keys("person")
        held = found.valkey.command("GET", key)
        keys = RedisKeys(found.deployment)
        other = keys.record("person", digest(*Person(ISSUER, "s-bob")))
        found.valkey.command("SET", other, held)
        found.valkey.command("SET", keys.record("person", "f" * 32), b"a.b.c.d.e")
        assert [record.subject for record in await all_of(found.people)] == ["s-ada"]

        def store(*secrets: str) -> PeopleStore:
            sealer = Sealer(secrets, time.time)
            return PeopleStore(
                found.ledger.command, keys, ISSUER, sealer=sealer, lifetime=60, clock=time.time
            )

        assert len(await all_of(store("n" * 40, "k" * 40))) == 1
        assert await all_of(store("n" * 40)) == []

    run(scene)


def test_a_refresh_tells_whose_a_log_in_of_an_earlier_release_is(
    run: Callable[[Scene], None],
) -> None:
    """From then on the subject is known; before, it is where an access token lives."""

    async def scene(found: Flow) -> None:
        issued = await exchange(found, await found.code())
        assert found.keys("person") == []  # as an earlier release leaves it
        (person,) = await known_people(found.people, found.grants, found.records)
        assert (person.subject, person.account, person.log_ins) == ("john", "john", 1)
        found.valkey.command("DEL", *found.keys("log-in"))
        (person,) = await known_people(found.people, found.grants, found.records)
        assert (person.subject, person.account) == ("", "john")

        await refresh(found, issued["refresh_token"])
        (person,) = await known_people(found.people, found.grants, found.records)
        assert (person.subject, person.account, person.log_ins) == ("john", "john", 1)

    run(scene)


def test_people_are_told_with_what_they_have(run: Callable[[Scene], None]) -> None:
    """One row a person: log-ins that have not ended, names of before, and those without any."""

    async def scene(found: Flow) -> None:
        now = int(time.time())
        living = replace(GRANT, created_at=now, used_at=now, expires_at=now + 600)
        await begun(found, replace(living, account="ada-old"), "s-ada")
        await begun(found, replace(living, id="g2", account="ada"), "s-ada")
        ended = replace(living, id="g3", created_at=1_000_000_000, expires_at=1_000_000_000)
        await begun(found, ended, "s-bob")
        await found.people.keep(ADA)
        await found.people.keep(LoginIdentity("s-eve", frozenset(), 1, "eve"))
        people = await known_people(found.people, found.grants, found.records)
        rows = {each.account: (each.subject, each.log_ins, each.former) for each in people}
        assert rows == {
            "ada": ("s-ada", 2, frozenset({"ada-old"})),
            "eve": ("s-eve", 0, frozenset()),
        }

    run(scene)

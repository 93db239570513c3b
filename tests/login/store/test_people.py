"""Who has logged in, on a real Redis: sealed, with an end, and only who is meant."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

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

# What Authelia says of people whose names and addresses change: recorded.
NAMES: Final = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "authelia" / "names.json").read_text()
)
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


def recorded(version: str, what: str) -> LoginIdentity:
    """Return what an ID token that Authelia gave says."""
    said = NAMES[version][what]["id_token"]
    amr, names = frozenset(said["amr"]), (said["preferred_username"], said["email"])
    return LoginIdentity(said["sub"], amr, said["auth_time"], *names)


@pytest.mark.attack("named-like-another")
@pytest.mark.parametrize("version", NAMES)
def test_a_refresh_of_an_older_log_in_says_nothing_new(
    run: Callable[[Scene], None], version: str
) -> None:
    """John's address was given to bob: what his newest log-in says stays, whatever is refreshed."""

    async def scene(found: Flow) -> None:
        people = found.people
        await people.keep(recorded(version, "john logs in"))
        newest = recorded(version, "john logs in anew")
        await people.keep(newest)
        (key,) = found.keys("person")
        found.valkey.command("EXPIRE", key, 5)
        older = recorded(
            version, "john refreshed after the e-mail addresses were swapped and a group lost"
        )
        assert (older.subject, older.email) == (newest.subject, "john@example.test")
        await people.keep_refreshed(older)
        (record,) = await all_of(people)
        assert (record.account, record.email) == ("john", "bob@example.test")
        assert found.valkey.command("TTL", key) > found.grants.kept - 60

    run(scene)


def test_a_log_in_meanwhile_is_not_overwritten(run: Callable[[Scene], None]) -> None:
    """Nor is one that came between the look of a refresh and its writing."""

    async def scene(found: Flow) -> None:
        async def command(*words: Any) -> Any:
            answer = await found.ledger.command(*words)
            if words[0] == "GET":
                await found.people.keep(replace(ADA, account="newest"))
            return answer

        keys = RedisKeys(found.deployment)
        slow = PeopleStore(command, keys, ISSUER, sealer=found.sealer, lifetime=60, clock=time.time)
        for _ in range(2):
            await slow.keep_refreshed(ADA)
            assert [record.account for record in await all_of(found.people)] == ["newest"]

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

"""The trail on real servers: written once, trimmed by its bound, read back page by page."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from authz.audit.chain import AuditChain, ChainedRecord, TrailKeys
from authz.audit.record import AuditEvent, body, read_record
from authz.audit.store import LISTED, PAGE, LostRecordsError, TrailBound, TrailEntry, TrailStore
from authz.audit.verify import TrailFault, TrailFinding, TrailVerifier
from authz.core.ledger import UnavailableError
from authz.core.principal import Person
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from tests.support.valkey import ValkeyServer

KEYS = TrailKeys((b"k" * 32,))
ADA = Person("https://auth.example.test", "ada")
BOB = Person("https://auth.example.test", "bob")
KEEP = 86_400.0
T = TypeVar("T")


def on(
    server: ValkeyServer, deployment: str, work: Callable[[TrailStore], Coroutine[Any, Any, T]]
) -> T:
    async def go() -> T:
        ledger = RedisLedger(RedisOptions(server.url, deployment=deployment, timeout=20))
        try:
            return await work(TrailStore(ledger.command, RedisKeys(deployment)))
        finally:
            await ledger.aclose()

    return asyncio.run(go())


def records(chain: AuditChain, count: int, first: int = 0) -> list[ChainedRecord]:
    return [
        chain.add(body(AuditEvent.DECISION, (("tool", f"t{number}"),)), 1.0 + number)
        for number in range(first, first + count)
    ]


async def put(
    store: TrailStore, chain: AuditChain, some: Sequence[ChainedRecord], who: Person | None = None
) -> int:
    return await store.append(chain.name, some, [who] * len(some), KEEP)


async def everything(store: TrailStore) -> list[TrailEntry]:
    return [each async for each in store.forwards()]


async def verified(store: TrailStore) -> list[TrailFinding]:
    verifier = TrailVerifier(KEYS, await store.heads())
    found = list[TrailFinding]()
    async for each in store.forwards():
        found += verifier.add(each.id, each.text, each.mac)
    return [*found, *verifier.finish(await store.floors(KEYS))]


def tools(entries: Sequence[TrailEntry]) -> list[str]:
    return [read_record(each.text).fields["tool"] for each in entries]


def test_records_are_read_as_they_were_written(server: ValkeyServer, deployment: str) -> None:
    """Text, MAC and order, forwards and backwards, over several pages."""

    async def work(store: TrailStore) -> None:
        chain = AuditChain(KEYS.newest)
        some = records(chain, 2 * PAGE + 3)
        assert await put(store, chain, some) == len(some)

        found = await everything(store)
        assert [(each.text, each.mac) for each in found] == [
            (each.text, each.link.mac) for each in some
        ]
        assert [each async for each in store.backwards()] == found[::-1]
        assert [each async for each in store.forwards(after=found[4].id)] == found[5:]
        assert await store.length() == len(some)
        assert await store.heads() == {chain.name: chain.head}
        assert await verified(store) == []

    on(server, deployment, work)


def test_a_call_that_is_sent_again_writes_nothing_again(
    server: ValkeyServer, deployment: str
) -> None:
    """Whole, or in part: each record is there once, and its person's list has it once."""

    async def work(store: TrailStore) -> None:
        chain = AuditChain(KEYS.newest)
        some = records(chain, 5)
        await put(store, chain, some[:3], ADA)
        await put(store, chain, some[:3], ADA)
        await put(store, chain, some, ADA)

        assert tools(await everything(store)) == [f"t{number}" for number in range(5)]
        assert tools(await store.of_person(ADA, 10)) == [
            f"t{number}" for number in range(4, -1, -1)
        ]
        assert await verified(store) == []

    on(server, deployment, work)


def test_records_that_redis_lost_are_noticed(server: ValkeyServer, deployment: str) -> None:
    """A later record is refused where the one before it is missing; nothing is written."""

    async def work(store: TrailStore) -> None:
        chain = AuditChain(KEYS.newest)
        some = records(chain, 5)
        await put(store, chain, some[:2])

        with pytest.raises(LostRecordsError) as lost:
            await put(store, chain, some[3:])
        assert lost.value.last == 1
        assert await store.length() == 2

    on(server, deployment, work)


def test_a_persons_list_is_short_and_a_persons_own(server: ValkeyServer, deployment: str) -> None:
    """However much somebody does, the list stays short, and nobody else's is touched."""

    async def work(store: TrailStore) -> None:
        chain = AuditChain(KEYS.newest)
        await put(store, chain, records(chain, 1, first=9000), BOB)
        await put(store, chain, records(chain, LISTED + 20), ADA)

        assert len(await store.of_person(ADA, 10 * LISTED)) == LISTED
        assert tools(await store.of_person(ADA, 2)) == [f"t{LISTED + 19}", f"t{LISTED + 18}"]
        assert tools(await store.of_person(BOB, 5)) == ["t9000"]

    on(server, deployment, work)
    name = server.command("KEYS", f"{{{deployment}}}:audit-of:*")[0]
    assert 0 < server.command("TTL", name) <= KEEP


def test_trimming_by_number_keeps_the_newest(server: ValkeyServer, deployment: str) -> None:
    """Exactly the oldest are removed, chains verify, and a removed record behind them is found."""

    async def work(store: TrailStore) -> str:
        chains = [AuditChain(KEYS.newest) for _ in range(2)]
        length = 0
        for _ in range(5):
            for chain in chains:
                length = await put(store, chain, records(chain, 10))
        before = await everything(store)
        now = before[-1].written

        assert await store.trim(length, TrailBound(30, KEEP), KEYS, now) == 70
        left = await everything(store)
        assert left == before[70:]
        assert await verified(store) == []
        # Another process whose look is old removes nothing.
        assert await store.trim(30, TrailBound(30, KEEP), KEYS, now) == 0
        return left[0].id

    oldest = on(server, deployment, work)
    server.command("XDEL", f"{{{deployment}}}:audit", oldest)

    async def look(store: TrailStore) -> list[TrailFinding]:
        return await verified(store)

    assert [each.fault for each in on(server, deployment, look)] == [TrailFault.REMOVED]


def test_trimming_by_age_removes_what_is_older(server: ValkeyServer, deployment: str) -> None:
    """A day later everything of today goes; the chain goes on all the same."""

    async def work(store: TrailStore) -> None:
        chain = AuditChain(KEYS.newest)
        length = await put(store, chain, records(chain, 10))
        now = (await everything(store))[-1].written

        assert await store.trim(length, TrailBound(1000, KEEP), KEYS, now) == 0
        assert await store.trim(length, TrailBound(1000, KEEP), KEYS, now + KEEP + 1) == 10
        assert await store.heads() == {}
        assert await verified(store) == []
        await put(store, chain, records(chain, 1))
        assert await verified(store) == []
        await store.forget_floors(now + 3 * KEEP)
        assert await store.floors(KEYS) == {}

    on(server, deployment, work)


@pytest.mark.attack("audit-altered")
def test_a_floor_without_its_mac_excuses_nothing(server: ValkeyServer, deployment: str) -> None:
    """Whoever removes records in Redis cannot say that the bound did."""

    async def work(store: TrailStore) -> list[TrailEntry]:
        chain = AuditChain(KEYS.newest, "chain")
        await put(store, chain, records(chain, 10))
        return await everything(store)

    entries = on(server, deployment, work)
    stream, floors = f"{{{deployment}}}:audit", f"{{{deployment}}}:audit-floors"
    server.command("XTRIM", stream, "MINID", entries[5].id)
    forged = f"4 {entries[4].mac} 1800000000 {entries[4].mac}"
    server.command("HSET", floors, "chain", forged)

    async def look(store: TrailStore) -> list[TrailFinding]:
        return await verified(store)

    found = on(server, deployment, look)
    assert [(each.fault, each.count) for each in found] == [(TrailFault.REMOVED, 5)]


@pytest.mark.attack("audit-altered")
def test_what_others_write_there_is_found_and_breaks_nothing(
    server: ValkeyServer, deployment: str
) -> None:
    """Entries, heads and lists that are not of our making: a finding, no crash, no lost record."""
    tag = f"{{{deployment}}}:"
    server.command("XADD", tag + "audit", "*", "x", "y")
    server.command("XADD", tag + "audit", "*", "r", "{}", "m", "é" * 30)
    server.command("HSET", tag + "audit-heads", "who", "ever")
    server.command("HSET", tag + "audit-floors", "who", "ever")

    async def work(store: TrailStore) -> None:
        chain = AuditChain(KEYS.newest)
        length = await put(store, chain, records(chain, 3), ADA)
        assert [each.fault for each in await verified(store)] == [TrailFault.UNREADABLE] * 2
        now = (await everything(store))[-1].written
        assert await store.trim(length, TrailBound(3, KEEP), KEYS, now) == 2
        assert await verified(store) == []

    on(server, deployment, work)


def test_a_list_of_another_type_costs_the_list_alone(server: ValkeyServer, deployment: str) -> None:
    """A record is written though its person's list cannot be."""

    async def work(store: TrailStore) -> None:
        chain = AuditChain(KEYS.newest)
        await put(store, chain, records(chain, 1), ADA)

    on(server, deployment, work)
    (name,) = server.command("KEYS", f"{{{deployment}}}:audit-of:*")
    server.command("SET", name, "x")

    async def again(store: TrailStore) -> None:
        chain = AuditChain(KEYS.newest)
        await put(store, chain, records(chain, 2), ADA)
        assert await store.length() == 3
        with pytest.raises(UnavailableError):
            await store.of_person(ADA, 5)

    on(server, deployment, again)

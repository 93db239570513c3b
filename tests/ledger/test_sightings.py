"""What servers have listed is kept for all workers: the same contract in memory and in Redis."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.catalogue import Sighting, ToolDefinition, read_definition
from authz.ledger import sightings
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.sightings import (
    MemorySightings,
    RedisSightings,
    SightingStore,
    decode,
    encode,
)
from tests.support.valkey import ValkeyServer

NOW = 1_800_000_000


def tool(name: str = "tool", **members: object) -> ToolDefinition:
    return read_definition({"name": name, **members})


@asynccontextmanager
async def store_of(
    kind: str, shared: Callable[[str], ValkeyServer], deployment: str
) -> AsyncIterator[SightingStore]:
    if kind == "in_memory":
        yield MemorySightings()
        return
    server = shared(kind)
    options = RedisOptions(server.url, deployment=deployment, timeout=10)
    ledger = RedisLedger(options)
    try:
        yield RedisSightings(ledger.command, RedisKeys(deployment))
    finally:
        await ledger.aclose()


def contract(
    kind: str,
    shared: Callable[[str], ValkeyServer],
    deployment: str,
    work: Callable[[SightingStore], Awaitable[None]],
) -> None:
    async def run() -> None:
        async with store_of(kind, shared, deployment) as store:
            await work(store)

    asyncio.run(run())


def test_what_was_seen_is_read_by_everybody(
    kind: str, shared: Callable[[str], ValkeyServer], deployment: str
) -> None:
    """Of each server its own, every definition of a tool, as it was seen last; a change shows in
    the index, and a server that is being asked, too.
    """
    first, second = tool(description="\u202eevil \x1b[8m"), tool(description="other")

    async def work(store: SightingStore) -> None:
        assert await store.read("files") == ()
        assert (await store.index()).versions == {}
        await store.write("files", [Sighting(first, NOW), Sighting(second, NOW)])
        before = (await store.index()).versions["files"]
        await store.write("files", [Sighting(first, NOW + 5)])
        await store.write("notes", [Sighting(second, NOW)])
        assert set(await store.read("files")) == {
            Sighting(first, NOW + 5),
            Sighting(second, NOW),
        }
        assert await store.read("notes") == (Sighting(second, NOW),)
        assert (await store.index()).versions["files"] != before
        await store.forget("files", [first.digest, "unknown"])
        assert await store.read("files") == (Sighting(second, NOW),)
        await store.mark_asked("files", NOW)
        assert (await store.index()).asked == {"files": NOW}

    contract(kind, shared, deployment, work)


def test_what_nobody_of_ours_wrote_is_left_out(
    server_name: str, shared: Callable[[str], ValkeyServer], deployment: str
) -> None:
    """A record under another digest, or of another shape, makes no tool known."""
    good = Sighting(tool(), NOW)

    async def work() -> None:
        ledger = RedisLedger(
            RedisOptions(shared(server_name).url, deployment=deployment, timeout=20)
        )
        keys = RedisKeys(deployment)
        store = RedisSightings(ledger.command, keys)
        await store.write("files", [good])
        for field, value in (("0" * 64, encode(good)), ("x", b"{"), (good.definition.digest, b"")):
            await ledger.command("HSET", keys.catalogue("notes"), field, value)
        await ledger.command("HSET", keys.catalogue_index, b"asked:files", b"-1", b"\xff", b"\xff")
        assert await store.read("files") == (good,)
        assert await store.read("notes") == ()
        assert (await store.index()).asked == {}
        await ledger.aclose()

    asyncio.run(work())


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**53 - 1))
def test_a_sighting_is_read_as_it_was_written(text: str, seen: int) -> None:
    """Whatever a server says; and it is JSON that a person can read."""
    sighting = Sighting(tool(description=text), seen)
    digest = sighting.definition.digest.encode()

    assert decode(digest, encode(sighting)) == sighting
    assert json.loads(encode(sighting))["definition"]["description"] == text
    assert decode(b"0" * 64, encode(sighting)) is None


@given(st.binary(max_size=20) | st.integers(-1, 2**54).map(lambda n: str(n).encode()))
def test_what_is_known_is_read_as_if_it_were_not(seen: bytes) -> None:
    """A definition that is known is not parsed again, and nothing else is read for it."""
    known = Sighting(tool(description="d"), NOW)
    digest, text = known.definition.digest.encode(), known.definition.text.encode()
    for data in (b'{"seen":%b,"definition":%b}' % (seen, text), encode(known) + seen, seen):
        assert decode(digest, data, known) == decode(digest, data)


def test_a_definition_that_is_known_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change of a server's list is read by every worker."""
    known = Sighting(tool(), NOW)
    monkeypatch.setattr(sightings, "loads", None)
    again = Sighting(known.definition, NOW + 5)
    assert decode(known.definition.digest.encode(), encode(again), known) == again


@pytest.mark.parametrize("seen", [b"-1", b"1.0", b"true", b'"1"', b"9007199254740992"])
def test_a_moment_is_a_number_of_seconds(seen: bytes) -> None:
    """Another is no sighting."""
    one = tool()
    data = b'{"seen":%s,"definition":%s}' % (seen, one.text.encode())
    assert decode(one.digest.encode(), data) is None


@given(st.binary())
def test_any_bytes_are_a_sighting_or_none(data: bytes) -> None:
    """Nothing raises."""
    assert decode(b"0" * 64, data) is None

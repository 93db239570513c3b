"""What programs say of themselves and of decisions, in real servers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from authz.ledger.activity import (
    ActivityStore,
    DecisionKind,
    ProgramReport,
    Resolution,
)
from authz.ledger.keys import RedisKeys
from tests.ledger.queries import connected, patient
from tests.support.valkey import ValkeyServer

NOW = 1_795_380_700
ALLOWED, REFUSED = DecisionKind("files", "allowed"), DecisionKind("notes", "over_limit")
REPORT = ProgramReport(
    "authz serve", "host-1", 0, "abcd", NOW, "1.0", "3f9a12bc44d0", {"redis": ""}, {}, "redis", 0
)


def play(
    server: ValkeyServer, deployment: str, scenario: Callable[[ActivityStore], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            await scenario(ActivityStore(ledger.command, RedisKeys(deployment)))

    asyncio.run(run())


def test_reports_of_several_programs_add_up(server: ValkeyServer, deployment: str) -> None:
    """Counts of all programs are summed by minute and by ten minutes, each once; what lies before
    the hour or the day is not shown, and every key expires.
    """

    async def scenario(store: ActivityStore) -> None:
        other = replace(REPORT, instance="efgh", worker=1)
        await store.add(REPORT, {ALLOWED: 5})
        await store.add(other, {ALLOWED: 2, REFUSED: 1})
        await store.add(replace(REPORT, at=NOW + 60), {ALLOWED: 4})
        await store.add(replace(REPORT, at=NOW - 7200), {ALLOWED: 1000})
        hour = await store.decisions(Resolution.HOUR, NOW + 60)
        assert len(hour) == 60
        assert dict(hour[-2].counts) == {ALLOWED: 7, REFUSED: 1}
        assert dict(hour[-1].counts) == {ALLOWED: 4}
        assert sum(sum(each.counts.values()) for each in hour) == 12
        day = await store.decisions(Resolution.DAY, NOW + 60)
        assert len(day) == 144
        assert sum(sum(each.counts.values()) for each in day) == 1012
        assert not any(each.counts for each in await store.decisions(Resolution.HOUR, NOW + 9000))

    play(server, deployment, scenario)
    keys = server.command("KEYS", f"{{{deployment}}}:*")
    assert keys
    assert all(server.command("PTTL", key) > 0 for key in keys)


def test_each_program_is_listed_once_as_it_said_last(server: ValkeyServer, deployment: str) -> None:
    """The latest word of each process counts, that of ten minutes ago too, and none is kept."""

    async def scenario(store: ActivityStore) -> None:
        await store.add(replace(REPORT, at=NOW - 500, parts={"redis": "away"}), {})
        await store.add(REPORT, {})
        await store.add(replace(REPORT, instance="efgh", worker=1), {})
        assert await store.programs(NOW) == (REPORT, replace(REPORT, instance="efgh", worker=1))
        assert await store.programs(NOW + 3000) == ()

    play(server, deployment, scenario)


def test_what_others_wrote_is_read_as_nothing(server: ValkeyServer, deployment: str) -> None:
    """Junk among the counts and reports is left out, and harms nothing beside it."""

    async def scenario(store: ActivityStore) -> None:
        await store.add(REPORT, {ALLOWED: 1})
        for key in server.command("KEYS", f"{{{deployment}}}:*"):
            for name, value in (("x", "1"), ("a\x1fb", "-1"), ("a\x1fc", "9" * 40), ("j", "[1]")):
                server.command("HSET", key, name, value)
        assert await store.programs(NOW) == (REPORT,)
        hour = await store.decisions(Resolution.HOUR, NOW)
        assert dict(hour[-1].counts) == {ALLOWED: 1}

    play(server, deployment, scenario)

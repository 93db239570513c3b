"""A Redis that comes back empty or with an older copy of its data loses no revocation."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import LedgerAnswer, Query, Revoked, Taken, UnavailableError
from authz.ledger.data_loss import (
    DataLoss,
    DataSetTracker,
    MergeRequest,
    ReadRequest,
    RevocationChange,
    StoredRevocations,
    parse_merged,
    parse_stored_revocations,
)
from authz.ledger.keys import RedisKeys, token_field
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import Revocation, read_revocation, stricter
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.resilient import OutageOptions, ResilientLedger
from tests.ledger.queries import START, connected, patient, query, take
from tests.support.examples import examples
from tests.support.valkey import ValkeyServer, valkey

TARGETS = [token_field(name) for name in "abc"]
ALL = Revocation()
Data = dict[bytes, tuple[bytes, int]]


# Of a pattern, and of key, time of expiry (0: none) and dump each.
_PUT_BACK = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  redis.call('DEL', key)
end
for n = 2, #ARGV, 3 do
  redis.call('RESTORE', ARGV[n], ARGV[n + 1], ARGV[n + 2], 'ABSTTL')
end
"""


class LedgerWorker:
    """One worker's ledger, with connections of its own."""

    def __init__(self, redis: RedisLedger) -> None:
        self.redis = redis
        self.told: list[tuple[DataLoss, int]] = []
        self.errors: list[str] = []
        self.ledger = ResilientLedger(
            redis,
            redis,
            MemoryLedger(lambda: START),
            OutageOptions(),
            lambda: 0.0,
            on_error=lambda error: self.errors.append(error.detail),
            on_lost=lambda *said: self.told.append(said),
        )

    async def read(self) -> None:
        await self.ledger.refresh()

    async def refuses(self, token: str) -> bool:
        return isinstance(await self.ledger.take(named(token)), Revoked)


def named(token: str) -> Any:
    return replace(query(take(quota=1_000_000)), token_id=token)


def played(
    options: RedisOptions,
    scenario: Callable[[LedgerWorker, LedgerWorker], Awaitable[None]],
    *,
    apart: bool = True,
) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            redis = [await stack.enter_async_context(connected(options)) for _ in range(1 + apart)]
            await scenario(LedgerWorker(redis[0]), LedgerWorker(redis[-1]))

    asyncio.run(run())


def copied(server: ValkeyServer, deployment: str) -> Data:
    """Return a copy of a deployment's data, as a backup would hold it."""
    keys = server.command("KEYS", f"{{{deployment}}}:*")
    return {key: (server.command("DUMP", key), server.command("PEXPIRETIME", key)) for key in keys}


def put_back(server: ValkeyServer, deployment: str, data: Data) -> None:
    """Let a deployment have exactly these data, at once: workers look at them meanwhile."""
    each = [part for key, (value, until) in data.items() for part in (key, max(until, 0), value)]
    server.command("EVAL", _PUT_BACK, 0, f"{{{deployment}}}:*", *each)


# --- a real server with a real copy -------------------------------------------------------------


@pytest.mark.attack("redis-older-copy")
@pytest.mark.parametrize("persistence", ["rdb", "aof"])
def test_an_older_copy_un_revokes_nothing(server_name: str, persistence: str) -> None:
    """Saved, revoked, and started again with what was saved before: a worker that lives refuses
    the token all the same, writes the revocation again, and says so.
    """

    async def scenario(worker: LedgerWorker, other: LedgerWorker) -> None:
        await worker.redis.revoke(token_field("before"), Revocation(metadata="before"))
        for each in (worker, other):
            await each.read()
        backup = saved(server, persistence)
        await worker.redis.revoke(token_field("since"), Revocation(metadata="stolen"))
        await worker.redis.lift(token_field("before"))
        await worker.redis.revoke(token_field("before"), Revocation(issued_until=1))
        await worker.read()
        assert await worker.refuses("since")

        server.kill()
        for path, data in backup.items():
            (server.directory / path).write_bytes(data)
        server.start()
        for each in (worker, other):
            with suppress(UnavailableError):  # the connections that it closed
                await each.redis.ping()
        # Redis alone would let it pass.
        assert isinstance(await other.redis.take(named("since")), Taken)
        await worker.read()
        assert await worker.refuses("since")
        assert await other.refuses("since")
        assert worker.told == [(DataLoss.OLDER_COPY, 1)]
        await other.read()
        assert other.told in ([], [(DataLoss.OLDER_COPY, 0)])
        found = await worker.redis.revocations()
        assert found[token_field("since")] == Revocation(metadata="stolen")

        # And what is lifted from now on passes, whoever reads next.
        await worker.redis.lift(token_field("since"))
        for each in (worker, other, worker):
            await each.read()
        assert not await worker.refuses("since")

    def saved(server: ValkeyServer, persistence: str) -> dict[str, bytes]:
        if persistence == "rdb":
            server.command("SAVE")
        folder = server.directory
        kept = [folder / "dump.rdb"] if persistence == "rdb" else (folder / "aof").iterdir()
        return {str(each.relative_to(folder)): each.read_bytes() for each in kept}

    save, aof = ("3600 1000000", "no") if persistence == "rdb" else ("", "yes")
    # With "everysec" a slow fsync of the disk puts off the write that `saved` copies, by up to 2 s.
    with valkey(
        server_name, save=save, appendonly=aof, appendfsync="always", appenddirname="aof"
    ) as server:
        played(RedisOptions(server.url, timeout=60), scenario)


@pytest.mark.attack("redis-older-copy")
def test_a_promoted_replica_that_lagged_un_revokes_nothing(server_name: str) -> None:
    """A replica that had lost touch with its primary is promoted: it has the same generation, and
    lacks what was revoked since.
    """

    async def scenario(worker: LedgerWorker, other: LedgerWorker) -> None:
        async with connected(RedisOptions(replica.url, timeout=60)) as promoted:
            await worker.read()
            replica.command("REPLICAOF", "127.0.0.1", str(primary.port))
            mark = "{authz}:mark:" + worker.ledger._tracker.name
            while not replica.command("EXISTS", mark):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0)
            replica.command("REPLICAOF", "127.0.0.1", "1")
            await worker.redis.revoke(token_field("since"), ALL)
            await worker.read()
            replica.command("REPLICAOF", "NO", "ONE")
            worker.ledger._remote = worker.ledger._source = promoted
            assert isinstance(await promoted.take(named("since")), Taken)
            await worker.read()
            assert await worker.refuses("since")
            assert isinstance(await promoted.take(named("since")), Revoked)
            assert worker.told == [(DataLoss.OLDER_COPY, 1)]

    with valkey(server_name, tcp=True) as primary, valkey(server_name) as replica:
        played(RedisOptions(primary.url, timeout=60), scenario, apart=False)


@pytest.mark.attack("redis-older-copy")
def test_it_is_noticed_without_a_fault_and_without_waiting_for_a_reading(
    server: ValkeyServer, deployment: str
) -> None:
    """The background looks for its mark with every probe, not only when it reads again."""

    async def scenario(worker: LedgerWorker, _: LedgerWorker) -> None:
        worker.ledger._options = OutageOptions(probe=0, refresh=1_000_000)
        await worker.ledger.start()
        try:
            old = copied(server, deployment)
            await worker.redis.revoke(token_field("since"), ALL)
            await worker.read()
            put_back(server, deployment, old)
            while not worker.told:  # noqa: ASYNC110 - the task has nobody to tell
                await asyncio.sleep(0)
        finally:
            await worker.ledger.aclose()
        assert await worker.refuses("since")
        assert worker.errors == []

    played(patient(server, deployment), scenario)


# --- what is written again, and what is not -----------------------------------------------------


@pytest.mark.attack("redis-older-copy")
def test_more_writes_than_were_lost_hide_nothing(server: ValkeyServer, deployment: str) -> None:
    """An older copy that was written to more often than the newer one is an older copy still."""

    async def scenario(worker: LedgerWorker, _: LedgerWorker) -> None:
        await worker.read()
        old = copied(server, deployment)
        await worker.redis.revoke(token_field("since"), ALL)
        await worker.read()
        put_back(server, deployment, old)
        for number in range(20):
            await worker.redis.revoke(token_field(f"other-{number}"), ALL)
        await worker.read()
        assert await worker.refuses("since")

    played(patient(server, deployment), scenario)


@pytest.mark.attack("redis-older-copy")
def test_a_revocation_that_was_made_stricter_stays_so(
    server: ValkeyServer, deployment: str
) -> None:
    """Of a target that both have, the stricter half of each counts."""

    async def scenario(worker: LedgerWorker, _: LedgerWorker) -> None:
        await worker.redis.revoke(TARGETS[0], Revocation(issued_until=5, until=90, metadata="old"))
        await worker.read()
        old = copied(server, deployment)
        await worker.redis.revoke(TARGETS[0], Revocation(until=50, metadata="new"))
        await worker.read()
        put_back(server, deployment, old)
        await worker.read()
        assert await worker.redis.revocations() == {TARGETS[0]: Revocation(None, 90, "new")}

    played(patient(server, deployment), scenario)


@pytest.mark.attack("redis-older-copy")
@pytest.mark.parametrize("old_has_it", [True, False])
def test_what_is_lifted_after_the_first_worker_stays_lifted(
    server: ValkeyServer, deployment: str, old_has_it: bool
) -> None:
    """A worker that comes late, cut off for a while, revokes nothing that was lifted since the
    first one wrote what was lost.
    """

    async def scenario(first: LedgerWorker, late: LedgerWorker) -> None:
        if old_has_it:
            await first.redis.revoke(TARGETS[0], ALL)
        for each in (first, late):
            await each.read()
        old = copied(server, deployment)
        await first.redis.revoke(TARGETS[0], ALL)
        for each in (first, late):
            await each.read()
        put_back(server, deployment, old)
        await first.read()
        await first.redis.lift(TARGETS[0])
        for each in (late, first, late):
            await each.read()
        assert await first.redis.revocations() == {}
        assert not await late.refuses("a")

    played(patient(server, deployment), scenario)


@pytest.mark.attack("redis-older-copy")
def test_a_list_of_an_earlier_incident_hides_nothing(server: ValkeyServer, deployment: str) -> None:
    """A copy brings the list of what was merged into it once: it is of no use for the next time."""

    async def scenario(first: LedgerWorker, second: LedgerWorker) -> None:
        await first.redis.revoke(TARGETS[0], ALL)
        for each in (first, second):
            await each.read()
        server.command("DEL", *copied(server, deployment))
        for each in (first, second):
            await each.read()
        await first.redis.lift(TARGETS[0])
        for each in (first, second):
            await each.read()
        old = copied(server, deployment)  # with the list, and without the revocation

        await first.redis.revoke(TARGETS[0], ALL)
        for each in (first, second):
            await each.read()
        put_back(server, deployment, old)
        await second.read()
        assert await second.redis.revocations() == {TARGETS[0]: ALL}

    played(patient(server, deployment), scenario)


@pytest.mark.attack("redis-older-copy")
def test_a_data_set_of_an_older_version_is_read_as_it_is(
    server: ValkeyServer, deployment: str
) -> None:
    """A rolling upgrade: an older version left a generation without a number, and no marks. Nothing
    is lost; and where it is then, its generation is no later one.
    """

    async def scenario(worker: LedgerWorker, _: LedgerWorker) -> None:
        server.command("SET", RedisKeys(deployment).generation, b"0f" * 16)
        await worker.redis.revoke(TARGETS[0], ALL)
        await worker.read()
        assert worker.told == []
        old = copied(server, deployment)
        await worker.redis.revoke(TARGETS[1], ALL)
        await worker.read()
        put_back(server, deployment, old)
        # Workers of the older version that live beside note what they write without its value.
        server.command("HSET", RedisKeys(deployment).restored, TARGETS[1], "")
        await worker.read()
        assert worker.told == [(DataLoss.OLDER_COPY, 1)]
        assert set(await worker.redis.revocations()) == set(TARGETS[:2])
        assert server.command("GET", RedisKeys(deployment).generation).startswith(b"1:older_copy:")

    played(patient(server, deployment), scenario)


@pytest.mark.attack("redis-older-copy")
def test_what_redis_does_not_take_holds_here(server_name: str) -> None:
    """Where an older copy takes no writes, the worker goes by what it knows, and tries again."""

    async def scenario(worker: LedgerWorker, _: LedgerWorker) -> None:
        await worker.read()
        old = copied(server, "authz")
        await worker.redis.revoke(token_field("since"), ALL)
        await worker.read()
        put_back(server, "authz", old)
        server.command("CONFIG", "SET", "min-replicas-to-write", "1")
        await worker.read()
        assert worker.ledger.lost is DataLoss.OLDER_COPY
        assert worker.told == []
        server.command("CONFIG", "SET", "min-replicas-to-write", "0")
        # Redis itself does not know yet.
        assert isinstance(await worker.redis.take(named("since")), Taken)
        assert await worker.refuses("since")
        await worker.read()
        assert worker.ledger.lost is None
        assert worker.told == [(DataLoss.OLDER_COPY, 1)]
        assert isinstance(await worker.redis.take(named("since")), Revoked)

    with valkey(server_name) as server:
        played(RedisOptions(server.url, timeout=60), scenario)


def test_a_replica_is_read_without_leaving_a_mark(server_name: str) -> None:
    """A Redis that takes no writes tells what is revoked, and is not taken for an older copy."""

    async def scenario(worker: LedgerWorker, _: LedgerWorker) -> None:
        await worker.read()
        server.command("CONFIG", "SET", "min-replicas-to-write", "1")
        for _again in range(2):
            await worker.read()
        assert worker.errors == []
        assert worker.told == []
        server.command("CONFIG", "SET", "min-replicas-to-write", "0")
        await worker.redis.revoke(token_field("since"), ALL)
        await worker.read()
        assert worker.ledger._revocations == {token_field("since"): ALL}

    with valkey(server_name) as server:
        played(RedisOptions(server.url, timeout=60), scenario)


# --- answers that were lost ---------------------------------------------------------------------


class Deaf:
    """Have Redis carry out what is asked, and lose the answers on request."""

    def __init__(self, redis: RedisLedger) -> None:
        self.redis = redis
        self.deaf_to = ""

    async def take(self, asked: Query) -> LedgerAnswer:
        return await self.redis.take(asked)

    async def mark(self, reader: str) -> bytes:
        return await self.redis.mark(reader)

    async def read(self, question: ReadRequest) -> StoredRevocations:
        reading = await self.redis.read(question)
        if self.deaf_to == "read":
            raise UnavailableError("redis", "no answer in time")
        return reading

    async def merge(self, merge: MergeRequest) -> int | None:
        written = await self.redis.merge(merge)
        if self.deaf_to == "merge":
            raise UnavailableError("redis", "no answer in time")
        return written


@pytest.mark.attack("redis-older-copy")
def test_a_lost_answer_hides_no_older_copy(server: ValkeyServer, deployment: str) -> None:
    """The mark of a question whose answer was lost says nothing of what the next reading brings."""

    async def scenario(worker: LedgerWorker, _: LedgerWorker) -> None:
        deaf = worker.ledger._remote = worker.ledger._source = Deaf(worker.redis)
        await worker.read()
        deaf.deaf_to = "read"
        await worker.read()  # left a mark
        old = copied(server, deployment)
        deaf.deaf_to = ""
        await worker.redis.revoke(token_field("since"), ALL)
        await worker.read()
        assert worker.told == []
        put_back(server, deployment, old)
        deaf.deaf_to = "read"
        await worker.read()
        deaf.deaf_to = "merge"
        await worker.read()  # the merge was written
        assert worker.ledger.lost is DataLoss.OLDER_COPY
        deaf.deaf_to = ""
        await worker.read()
        assert worker.told == [(DataLoss.OLDER_COPY, 1)]
        assert await worker.refuses("since")

    played(patient(server, deployment), scenario)


@pytest.mark.parametrize(
    "reply",
    [
        None, [], b"OK", 1, [b"", b"", 2, []], [b"", b"", 1, [b"a"]], [b"", b"", 1, [b"a", 1]],
        [b"", b"", 1, None], [b"", b"", 1], ["", "", 1, []],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_reading_is_a_fault(reply: object) -> None:
    """Nothing is revoked only where Redis says so."""
    with pytest.raises(UnavailableError):
        parse_stored_revocations(reply)
    if reply != 1:
        with pytest.raises(UnavailableError):
            parse_merged(reply)


# --- any interleaving ---------------------------------------------------------------------------


@dataclass
class Model:
    """What is done to a data set that two workers read, and what must hold after each reading."""

    server: ValkeyServer
    deployment: str
    workers: tuple[LedgerWorker, LedgerWorker]
    copies: list[tuple[int, Data]] = field(default_factory=list)
    step: int = 0
    # Per worker: the step of its last reading, while the data set is not older than that.
    read_at: dict[int, int | None] = field(default_factory=dict)
    # What was changed since the data set was merged into, by its target, in this incident.
    merge_revocations: set[bytes] = field(default_factory=set)
    changed: set[bytes] = field(default_factory=set)
    incidents: int = 0

    async def do(self, what: str, number: int, moment: int | None) -> None:
        self.step += 1
        target = TARGETS[number % len(TARGETS)]
        redis = self.workers[0].redis
        if what == "revoke":
            await redis.revoke(target, Revocation(moment, metadata=str(self.step)))
            self.changed |= {target} & self.merge_revocations
        elif what == "lift":
            await redis.lift(target)
            self.changed |= {target} & self.merge_revocations
        elif what == "copy":
            self.copies.append((self.step, copied(self.server, self.deployment)))
        elif what == "lose":
            at, data = self.copies[number % len(self.copies)] if self.copies else (0, {})
            put_back(self.server, self.deployment, data)
            self.copies = [each for each in self.copies if each[0] <= at]
            for index, read in self.read_at.items():
                if read is not None and read > at:
                    self.read_at[index] = None
            self.merge_revocations, self.changed = set(), set()
            self.incidents += 1
        else:
            await self.read(number % 2)

    async def read(self, index: int) -> None:
        worker = self.workers[index]
        redis, ledger = worker.redis, worker.ledger
        before, known = dict(await redis.revocations()), dict(ledger._revocations)
        follows = self.read_at.get(index, self.step) is not None
        await worker.read()
        after = dict(await redis.revocations())
        assert worker.errors == []
        for target, one in before.items():
            assert stricter(after.get(target), one) == after.get(target), "weaker than it was"
        if follows:
            assert after == before, "nothing was lost, and something written"
            assert ledger._revocations == before
        else:
            for target, one in known.items():
                held = ledger._revocations.get(target)
                assert stricter(held, one) == held, "the worker forgot it"
                if target not in self.changed:
                    assert stricter(after.get(target), one) == after.get(target), "un-revoked"
            if self.incidents == 1:
                for target in self.changed:
                    assert after.get(target) == before.get(target), "a change was undone"
            self.merge_revocations |= known.keys() | before.keys()
        self.read_at[index] = self.step


@pytest.mark.attack("redis-older-copy")
@examples(60)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["revoke", "revoke", "lift", "copy", "lose", "read", "read", "read"]),
            st.integers(0, 5),
            st.sampled_from([None, 5, 9]),
        ),
        min_size=4,
        max_size=24,
    )
)
def test_whatever_happens_a_merge_weakens_nothing(
    model_server: ValkeyServer, steps: list[tuple[str, int, int | None]]
) -> None:
    """Revoked, lifted, copied, set back, and read by two workers in any order: no reading makes a
    revocation weaker; one of a data set that lost nothing changes nothing; after one of an older
    copy all that the worker knew is in force, but for what was changed since another worker merged.
    """
    deployment = "model"
    put_back(model_server, deployment, {})

    async def scenario(first: LedgerWorker, second: LedgerWorker) -> None:
        model = Model(model_server, deployment, (first, second))
        for step in steps:
            await model.do(*step)

    played(patient(model_server, deployment), scenario)


@pytest.fixture(scope="module")
def model_server() -> Any:
    with valkey() as server:
        yield server


def test_what_both_revoke_is_the_stricter_of_both() -> None:
    """`stricter` covers what either covers, keeps as long as either, and is the first one where
    that says it all.
    """
    moments = [None, 3, 7]
    every = [Revocation(issued, until, "x") for issued in moments for until in moments]
    for one in every:
        for other in every:
            both = stricter(one, other)
            for issued_at in (2, 3, 5, 7, 9):
                assert both.covers(issued_at) == (one.covers(issued_at) or other.covers(issued_at))
            assert stricter(both, one) == stricter(both, other) == both
        assert stricter(None, one) is one


def test_a_record_that_cannot_be_read_is_left_as_it_is(
    server: ValkeyServer, deployment: str
) -> None:
    """It revokes all that its target names: nothing is stricter."""

    async def scenario(worker: LedgerWorker, _: LedgerWorker) -> None:
        await worker.redis.command(
            "HSET", RedisKeys(deployment).revocations, TARGETS[0], b"\xff odd"
        )
        await worker.read()
        old = copied(server, deployment)
        await worker.read()
        put_back(server, deployment, old)
        await worker.read()
        assert worker.told == [(DataLoss.OLDER_COPY, 0)]
        assert server.command("HGETALL", RedisKeys(deployment).revocations) == {
            TARGETS[0]: b"\xff odd"
        }
        assert read_revocation(b"\xff odd").covers(1)

    played(patient(server, deployment), scenario)


def test_a_merge_of_what_changed_meanwhile_writes_nothing(
    server: ValkeyServer, deployment: str
) -> None:
    """Between reading and writing somebody was quicker: the next reading tells."""

    async def scenario(worker: LedgerWorker, other: LedgerWorker) -> None:
        tracker = DataSetTracker()
        reading = await worker.redis.read(tracker.read_request)
        change = (RevocationChange(TARGETS[0], b"", ALL.encode()),)
        await other.redis.revoke(TARGETS[0], Revocation(5))
        assert await worker.redis.merge(tracker.merge_request(reading, change)) is None
        assert await other.redis.revocations() == {TARGETS[0]: Revocation(5)}
        server.command("SET", RedisKeys(deployment).generation, "another")
        assert await worker.redis.merge(tracker.merge_request(reading, ())) is None

    played(patient(server, deployment), scenario)

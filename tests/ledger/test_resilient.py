"""Degraded mode: the outage policy, known revocations, one probe, and recovery by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from authz.core.ledger import (
    LedgerAnswer,
    Mode,
    OverLimit,
    Query,
    Revoked,
    SessionOfAnother,
    StepUpMissing,
    Taken,
    UnavailableError,
)
from authz.core.limits import OutagePolicy, Quota, Take
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.data_loss import DataLoss, MergeRequest, ReadRequest, StoredRevocations
from authz.ledger.keys import EVERYTHING, token_field
from authz.ledger.late_charges import LateBatch
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import CorruptRecordError, Revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.resilient import OutageOptions, ResilientLedger
from tests.ledger.queries import START, approving, connected, left, query, session, take
from tests.support.valkey import ValkeyServer, valkey

NEED = StepUpNeed(Method.TOTP, None)


@dataclass
class FakeRedis:
    """Answer as told, and count the questions."""

    broken: UnavailableError | None = None  # what a take raises
    readable: bool = True  # whether the revocations are
    answer: LedgerAnswer = field(default_factory=lambda: Taken((), Mode.REDIS))
    known: dict[bytes, Revocation] = field(default_factory=dict)
    asked: int = 0
    marker: bytes = b""
    gate: asyncio.Event | None = None
    late: list[LateBatch] = field(default_factory=list)

    async def take(self, asked: Query) -> LedgerAnswer:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        return self.answer

    async def read(self, question: ReadRequest) -> StoredRevocations:
        if not self.readable:
            raise UnavailableError("redis", "test")
        mark, self.marker = self.marker, question.mark
        values = {name: one.encode() for name, one in self.known.items()}
        return StoredRevocations(b"", mark, is_marked=True, values=values)

    async def mark(self, reader: str) -> bytes:
        return self.marker

    async def merge(self, merge: MergeRequest) -> int | None:
        raise AssertionError("nothing was lost")

    async def charge_late(self, batch: LateBatch) -> int:
        self.late.append(batch)
        return sum(units for each in batch.charges for units, _ in each.units)


class ResilientScene:
    """A resilient ledger before a fake Redis, with a clock to turn."""

    def __init__(
        self, mode: OutagePolicy = OutagePolicy.LOCAL, workers: int = 1, *, tolerated: int = 0
    ) -> None:
        self.redis = FakeRedis()
        self.in_memory = MemoryLedger(lambda: START)
        self.seconds = 1000.0
        self.errors: list[str] = []
        self.probes: list[float] = []
        self.outages: list[tuple[str, float]] = []
        self.options = OutageOptions(
            mode, workers, max_away=300, pause=0.25, refresh=5, tolerated=tolerated
        )
        self.ledger = ResilientLedger(
            self.redis,
            self.redis,
            self.in_memory,
            self.options,
            lambda: self.seconds,
            on_error=lambda error: self.errors.append(error.dependency),
            on_probe=self.probes.append,
            late=self.redis,
            on_outage=lambda fault, seconds: self.outages.append((fault, seconds)),
        )

    def breaks(self) -> None:
        self.redis.broken = UnavailableError("redis", "test")
        self.redis.readable = False

    def heals(self) -> None:
        self.redis.broken = None
        self.redis.readable = True


def played(scenario: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(run())


async def away(
    mode: OutagePolicy = OutagePolicy.LOCAL, workers: int = 1, **known: Revocation
) -> ResilientScene:
    """Return a scene whose Redis was there once, told the revocations, and broke."""
    scene = ResilientScene(mode, workers)
    scene.redis.known = {name.encode(): one for name, one in known.items()}
    await scene.ledger.refresh()
    scene.breaks()
    return scene


# --- the modes --------------------------------------------------------------------------------


def test_only_probes_that_redis_answered_are_timed() -> None:
    """Not one that was answered by memory, which is quick however long Redis is away."""

    async def scenario() -> None:
        scene = ResilientScene(tolerated=1)
        await scene.ledger.probe()
        assert scene.probes == [0.0]
        scene.breaks()
        for _ in range(3):  # the first is tolerated, and answered from memory
            await scene.ledger.probe()
            scene.seconds += 1
        assert scene.probes == [0.0]
        scene.heals()
        await scene.ledger.probe()
        assert scene.probes == [0.0, 0.0]

    played(scenario)


def test_while_redis_is_there_it_answers() -> None:
    """What Redis says is the answer, whatever it is."""

    async def scenario() -> None:
        scene = ResilientScene(OutagePolicy.DENY)
        for answer in (Taken((), Mode.REDIS), Revoked("token"), StepUpMissing(), OverLimit((), 3)):
            scene.redis.answer = answer
            assert await scene.ledger.take(query(take())) is answer
        assert scene.ledger.mode is Mode.REDIS
        assert scene.errors == []

    played(scenario)


def test_local_counts_on_with_a_share_of_the_quota() -> None:
    """In mode local each of four workers admits a quarter, and the policy told stays the same."""

    async def scenario() -> None:
        scene = await away(workers=4)
        asked = query(take(quota=10))
        answers = [await scene.ledger.take(asked) for _ in range(3)]

        assert [left(answer) for answer in answers] == [[1], [0], [0]]
        assert [type(answer) for answer in answers] == [Taken, Taken, OverLimit]
        assert isinstance(answers[0], Taken)
        assert answers[0].mode is Mode.LOCAL
        for answer in answers:
            assert isinstance(answer, Taken | OverLimit)
            assert answer.quotas[0].limit is asked.takes[0].limit
        assert scene.ledger.mode is Mode.LOCAL

    played(scenario)


@pytest.mark.parametrize(
    ("quota", "cost", "workers", "admitted"),
    [
        pytest.param(3, 1, 4, 1, id="at-least-one"),
        pytest.param(7, 1, 2, 3, id="rounded-down"),
        pytest.param(9, 3, 4, 1, id="at-least-what-one-request-costs"),
        pytest.param(9, 9, 9, 1, id="all-at-once"),
        pytest.param(5, 1, 1, 5, id="one-worker"),
    ],
)
def test_the_share_of_a_worker(quota: int, cost: int, workers: int, admitted: int) -> None:
    """A share is the quota divided by the workers, and room for one request at least."""

    async def scenario() -> None:
        scene = await away(workers=workers)
        asked = query(take(quota=quota, cost=cost))
        answers = [await scene.ledger.take(asked) for _ in range(admitted + 1)]

        assert [type(answer) for answer in answers] == [Taken] * admitted + [OverLimit]

    played(scenario)


def test_two_takes_on_one_bucket_share_one_share() -> None:
    """Takes of different cost on one bucket agree on its share."""

    async def scenario() -> None:
        scene = await away(workers=4)
        asked = query(take(quota=8, cost=3), take(quota=8, cost=1))

        assert left(await scene.ledger.take(asked)) == [0, 0]
        assert isinstance(await scene.ledger.take(asked), OverLimit)

    played(scenario)


def test_what_the_twin_refuses_is_refused() -> None:
    """An in-memory ledger that knows more than limits is believed."""

    async def scenario() -> None:
        scene = await away()
        await scene.in_memory.revoke(EVERYTHING, Revocation())

        assert await scene.ledger.take(query(take())) == Revoked("everything")

    played(scenario)


def test_allow_counts_nothing_and_says_so() -> None:
    """In mode allow limits are untouched, and the answer says that nobody counted."""

    async def scenario() -> None:
        scene = await away(OutagePolicy.ALLOW)
        asked = query(take(quota=1))
        for _ in range(3):
            answer = await scene.ledger.take(asked)
            assert answer == Taken((Quota(asked.takes[0].limit, 1, 0),), Mode.UNLIMITED)
        assert scene.ledger.mode is Mode.UNLIMITED

    played(scenario)


def test_deny_refuses() -> None:
    """In mode deny nothing passes without Redis."""

    async def scenario() -> None:
        scene = await away(OutagePolicy.DENY)
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await scene.ledger.take(query(take()))
        assert scene.ledger.mode is None

    played(scenario)


def limited(outage: OutagePolicy | None, *, shadow: bool = False, quota: int = 1) -> Take:
    """Return a take on a limit that says what it does while Redis is away."""
    one = take(f"{outage} {quota}", quota=quota)
    return replace(one, limit=replace(one.limit, outage=outage, shadow=shadow))


@pytest.mark.parametrize("mode", OutagePolicy)
@pytest.mark.parametrize("first", [None, *OutagePolicy])
@pytest.mark.parametrize("second", [None, *OutagePolicy])
def test_each_limit_says_what_it_does(
    mode: OutagePolicy, first: OutagePolicy | None, second: OutagePolicy | None
) -> None:
    """One that denies refuses, one that counts is used up, one that allows is untouched."""

    async def scenario() -> None:
        scene = await away(mode)
        asked = query(limited(first), limited(second, quota=2))
        policies = [first or mode, second or mode]
        if OutagePolicy.DENY in policies:
            with pytest.raises(UnavailableError):
                await scene.ledger.take(asked)
            return
        answers = [await scene.ledger.take(asked) for _ in range(2)]
        counts = [each is OutagePolicy.LOCAL for each in policies]
        assert left(answers[0]) == [0 if counts[0] else 1, 1 if counts[1] else 2]
        assert isinstance(answers[0], Taken)
        assert answers[0].mode is (Mode.LOCAL if any(counts) else Mode.UNLIMITED)
        if first != second:
            assert isinstance(answers[1], OverLimit if counts[0] else Taken)

    played(scenario)


def test_a_limit_in_shadow_denies_nothing() -> None:
    """It refuses nothing while Redis is there, and nothing while it is away."""

    async def scenario() -> None:
        scene = await away()
        asked = query(limited(OutagePolicy.DENY, shadow=True))
        for _ in range(3):
            assert isinstance(await scene.ledger.take(asked), Taken)

    played(scenario)


@pytest.mark.attack("shadow-decides")
@pytest.mark.parametrize("mode", OutagePolicy)
@pytest.mark.parametrize("of_shadow", [None, *OutagePolicy])
@pytest.mark.parametrize("enforced", [(), (None,), *((each,) for each in OutagePolicy)], ids=str)
def test_with_a_limit_in_shadow_a_caller_is_answered_as_without(
    mode: OutagePolicy,
    of_shadow: OutagePolicy | None,
    enforced: tuple[OutagePolicy | None, ...],
) -> None:
    """Refused where nothing else lets it pass, and let pass where nothing else refuses it."""

    async def answered(takes: tuple[Take, ...]) -> list[str]:
        scene, told = await away(mode), list[str]()
        for _ in range(3):
            try:
                told.append(type(await scene.ledger.take(query(*takes))).__name__)
            except UnavailableError as error:
                told.append(error.detail)
        return told

    async def scenario() -> None:
        takes = tuple(limited(each, quota=2) for each in enforced)
        in_shadow = limited(of_shadow, shadow=True)
        assert await answered((*takes, in_shadow)) == await answered(takes)

    played(scenario)


def test_each_change_is_told_once() -> None:
    """With what is wrong as it begins, and how long it took as it ends."""

    async def scenario() -> None:
        scene = await away()
        for _ in range(3):
            await scene.ledger.take(query(take()))
            scene.seconds += 0.25
        scene.heals()
        for _ in range(2):
            await scene.ledger.probe()
        assert scene.outages == [("test", 0.0), ("", 0.75)]

    played(scenario)


def test_what_may_have_been_charged_is_not_charged_afterwards() -> None:
    """A call whose answer was lost may have run: only those are owed that were never sent."""

    async def scenario() -> None:
        scene = await away()
        asked = query(take(quota=99))
        await scene.ledger.take(asked)  # sent, and its answer lost
        for _ in range(5):
            await scene.ledger.take(asked)
        scene.seconds += 0.25
        await scene.ledger.take(asked)  # sent again, to see whether Redis is back
        scene.heals()
        scene.seconds += 0.25
        await scene.ledger.probe()
        await scene.ledger.charge_late()
        ((charge,),) = (batch.charges for batch in scene.redis.late)
        assert [units for units, _ in charge.units] == [5]

    played(scenario)


@pytest.mark.attack("revoked-while-redis-is-away")
@pytest.mark.parametrize("mode", [OutagePolicy.LOCAL, OutagePolicy.ALLOW])
def test_known_revocations_hold(mode: OutagePolicy) -> None:
    """A token that was known to be revoked is refused while Redis is away too."""

    async def scenario() -> None:
        scene = await away(mode, everything=Revocation())
        assert await scene.ledger.take(query(take(), need=NEED)) == Revoked("everything")

        scene = await away(mode, everything=Revocation(issued_until=1))
        assert isinstance(await scene.ledger.take(query(take())), Taken)

    played(scenario)


@pytest.mark.parametrize("mode", OutagePolicy)
def test_what_needs_a_step_up_is_refused(mode: OutagePolicy) -> None:
    """Step-up records are in Redis only: without it nobody has stepped up."""

    async def scenario() -> None:
        scene = await away(mode)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await scene.ledger.take(query(take(), need=NEED))

    played(scenario)


@pytest.mark.attack("approval-without-redis")
@pytest.mark.parametrize("lifetime", [None, 300])
@pytest.mark.parametrize("mode", OutagePolicy)
def test_what_needs_an_approval_is_refused(mode: OutagePolicy, lifetime: int | None) -> None:
    """Approvals are in Redis only: without it nobody has approved."""

    async def scenario() -> None:
        scene = await away(mode)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await scene.ledger.take(approving(query(take()), lifetime))

    played(scenario)


@pytest.mark.parametrize("mode", OutagePolicy)
def test_a_worker_that_knows_no_revocations_refuses(mode: OutagePolicy) -> None:
    """A worker that began while Redis was away cannot tell who is revoked."""

    async def scenario() -> None:
        scene = ResilientScene(mode)
        scene.breaks()
        await scene.ledger.refresh()
        with pytest.raises(UnavailableError):
            await scene.ledger.take(query(take()))
        assert scene.ledger.mode is None

    played(scenario)


@pytest.mark.parametrize("mode", OutagePolicy)
def test_after_max_away_everything_is_refused(mode: OutagePolicy) -> None:
    """Five minutes without Redis, and nothing passes any more."""

    async def scenario() -> None:
        scene = await away(mode)
        passes = mode is not OutagePolicy.DENY
        scene.seconds += 10
        assert await outcome(scene) is passes
        # What was read last is 300 s old at 290 s after the first failure.
        scene.seconds += 290
        assert await outcome(scene) is passes
        scene.seconds += 0.1
        assert await outcome(scene) is False
        assert scene.ledger.mode is None

    played(scenario)


async def outcome(scene: ResilientScene) -> bool:
    try:
        return isinstance(await scene.ledger.take(query(take(quota=1000))), Taken)
    except UnavailableError:
        return False


@pytest.mark.attack("redis-readonly")
def test_a_replica_that_answers_everything_but_charges_is_away() -> None:
    """Readings and refusals prove nothing: five minutes without a charge is away."""

    async def scenario() -> None:
        scene = await away()
        scene.redis.readable = True
        for _ in range(60):
            assert await outcome(scene)
            scene.seconds += 2.5
            scene.redis.broken, scene.redis.answer = None, OverLimit((), 1)
            assert not await outcome(scene)
            scene.seconds += 2.5
            scene.breaks()
            scene.redis.readable = True
            await scene.ledger.refresh()
        assert await outcome(scene)
        scene.seconds += 0.1
        assert not await outcome(scene)

    played(scenario)


@pytest.mark.attack("redis-readonly")
def test_what_charges_nothing_proves_nothing() -> None:
    """A replica, and a full Redis, take what has no limit: a page's requests, or a server's without
    limits. Five minutes without a charge are away all the same.
    """

    async def scenario() -> None:
        scene = await away()
        scene.redis.readable = True
        for _ in range(60):
            assert await outcome(scene)
            scene.seconds += 2.5
            scene.redis.broken = None
            assert isinstance(await scene.ledger.take(query()), Taken)
            assert scene.ledger.mode is Mode.LOCAL
            scene.seconds += 2.5
            scene.breaks()
            scene.redis.readable = True
            await scene.ledger.refresh()
        assert await outcome(scene)
        scene.seconds += 0.1
        assert not await outcome(scene)

    played(scenario)


# --- the pause and the probe ------------------------------------------------------------------


@pytest.mark.attack("redis-frozen")
def test_after_a_failure_nobody_waits_for_redis() -> None:
    """During the pause Redis is not asked; the first one after it asks."""

    async def scenario() -> None:
        scene = await away()
        await outcome(scene)
        assert scene.redis.asked == 1
        scene.seconds += 0.2
        for _ in range(10):
            await outcome(scene)
        assert scene.redis.asked == 1
        scene.seconds += 0.1
        await outcome(scene)
        assert scene.redis.asked == 2

    played(scenario)


@pytest.mark.attack("redis-slow-once")
def test_one_slow_answer_is_not_redis_away() -> None:
    """One trip that fails, with all that were in it, is answered without Redis; the next request
    asks Redis, and where it answers, nothing was away. Two failures in a row are.
    """

    async def scenario() -> None:
        scene = ResilientScene(tolerated=1)
        await scene.ledger.refresh()
        for _ in range(3):
            scene.redis.broken, scene.redis.gate = (
                UnavailableError("redis", "late"),
                asyncio.Event(),
            )
            trip = [
                asyncio.create_task(scene.ledger.take(query(take(quota=1000)))) for _ in range(20)
            ]
            await asyncio.sleep(0)
            scene.seconds += 0.05
            scene.redis.gate.set()
            answers = await asyncio.gather(*trip)
            assert {each.mode for each in answers if isinstance(each, Taken)} == {Mode.LOCAL}
            scene.heals()
            assert scene.ledger.mode is Mode.REDIS
            assert scene.ledger.is_failing
            asked = scene.redis.asked
            assert await scene.ledger.take(query(take())) == Taken((), Mode.REDIS)
            assert scene.redis.asked == asked + 1
            assert not scene.ledger.is_failing

        scene.redis.broken = UnavailableError("redis", "late")
        for _ in range(2):
            scene.seconds += 0.05
            await outcome(scene)
        assert scene.ledger.mode is Mode.LOCAL
        assert scene.ledger.fault == "late"

    played(scenario)


@pytest.mark.attack("redis-failover")
def test_without_traffic_it_shows_that_redis_takes_no_charges() -> None:
    """The background tries a charge of its own every second, so that it shows within two that Redis
    answers reads only.
    """

    async def scenario() -> None:
        scene = ResilientScene(tolerated=1)
        scene.ledger._options = OutageOptions(probe=0, refresh=1000)
        await scene.ledger.start()
        try:
            scene.redis.broken = UnavailableError("redis", "READONLY: it is a replica")
            while scene.ledger.mode is not Mode.LOCAL:
                scene.seconds += 0.001
                await asyncio.sleep(0)
        finally:
            await scene.ledger.aclose()
        assert scene.ledger.fault == "READONLY: it is a replica"

    played(scenario)


def test_one_caller_asks_for_all() -> None:
    """While one caller waits for the probe, the others are answered at once."""

    async def scenario() -> None:
        scene = await away()
        await outcome(scene)
        scene.seconds += 1
        scene.redis.gate = asyncio.Event()
        probe = asyncio.create_task(scene.ledger.take(query(take(quota=1000))))
        await asyncio.sleep(0)
        for _ in range(20):
            answer = await scene.ledger.take(query(take(quota=1000)))
            assert isinstance(answer, Taken)
            assert answer.mode is Mode.LOCAL
        assert scene.redis.asked == 2

        scene.heals()
        scene.redis.gate.set()
        assert await probe is scene.redis.answer
        assert scene.ledger.mode is Mode.REDIS
        assert await scene.ledger.take(query(take())) is scene.redis.answer
        assert scene.redis.asked == 3

    played(scenario)


@pytest.mark.attack("cancelled-caller")
def test_a_probe_whose_caller_went_away_is_asked_by_the_next() -> None:
    """A cancelled probe is neither a failure nor the end of probing."""

    async def scenario() -> None:
        scene = await away()
        await outcome(scene)
        scene.seconds += 1
        scene.redis.gate = asyncio.Event()
        probe = asyncio.create_task(scene.ledger.take(query(take())))
        await asyncio.sleep(0)
        errors = list(scene.errors)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert scene.errors == errors

        scene.heals()
        scene.redis.gate = None
        assert await scene.ledger.take(query(take())) is scene.redis.answer

    played(scenario)


@pytest.mark.attack("wrongtype")
def test_one_broken_record_is_answered_for_alone() -> None:
    """A corrupt bucket is the mode's business for its own query; all others go on with Redis."""

    async def scenario() -> None:
        scene = await away()
        scene.redis.broken = CorruptRecordError("redis", "test")
        answer = await scene.ledger.take(query(take()))
        assert isinstance(answer, Taken)
        assert answer.mode is Mode.LOCAL
        assert scene.errors == ["redis"]

        scene.heals()
        assert await scene.ledger.take(query(take())) is scene.redis.answer
        assert scene.ledger.mode is Mode.REDIS

    played(scenario)


# --- the background ---------------------------------------------------------------------------


def test_the_copy_is_read_again_and_again() -> None:
    """Revocations that are written later reach the copy; failures end nothing and are told."""

    async def scenario() -> None:
        scene = ResilientScene()
        scene.ledger._options = OutageOptions(refresh=0, probe=0)
        await scene.ledger.start()
        try:
            scene.breaks()
            await until(lambda: len(scene.errors) > 3)
            scene.heals()
            scene.redis.known = {token_field("token-1"): Revocation()}
            await until(lambda: bool(scene.ledger._revocations))
        finally:
            await scene.ledger.aclose()
            await scene.ledger.aclose()
        scene.breaks()
        assert await scene.ledger.take(query(take())) == Revoked("token")

    played(scenario)


@pytest.mark.attack("redis-emptied")
def test_an_empty_redis_un_revokes_nothing(server_name: str) -> None:
    """A Redis that comes back without its data gets the revocations that a worker knows, and the
    log says so; what was lifted before stays lifted, and a second worker writes nothing anew.
    """

    async def run(server: ValkeyServer) -> None:
        options = RedisOptions(server.url, timeout=60)
        async with connected(options) as first, connected(options) as second:
            told: list[tuple[DataLoss, int]] = []
            ledgers = [
                ResilientLedger(
                    each, each, MemoryLedger(lambda: START), OutageOptions(), lambda: 0.0,
                    on_lost=lambda *said: told.append(said),
                )
                for each in (first, second)
            ]  # fmt: skip
            await first.revoke(token_field("kept"), Revocation(metadata="stolen"))
            await first.revoke(token_field("lifted"), Revocation())
            for each in ledgers:
                await each.refresh()
            await first.lift(token_field("lifted"))
            for each in ledgers:
                await each.refresh()
            server.command("FLUSHALL")
            for each in (*ledgers, *ledgers):
                await each.refresh()

            assert await second.revocations() == {
                token_field("kept"): Revocation(metadata="stolen")
            }
            assert told == [(DataLoss.EMPTIED, 1), (DataLoss.EMPTIED, 0)]
            answer = await ledgers[1].take(replace(query(take()), token_id="kept"))
            assert answer == Revoked("token")

    with valkey(server_name) as server:
        asyncio.run(run(server))


@pytest.mark.attack("redis-emptied")
def test_after_a_failure_what_is_known_to_be_revoked_stays_so(server_name: str) -> None:
    """A Redis that was started anew without its data allows no revoked token, not even until the
    revocations are read again; after that its word counts, and what was lifted passes.
    """

    async def run(server: ValkeyServer) -> None:
        options = RedisOptions(server.url, timeout=60)
        async with connected(options) as redis:
            ledger = ResilientLedger(
                redis, redis, MemoryLedger(lambda: START), OutageOptions(), lambda: 0.0
            )
            one = replace(query(take()), token_id="stolen")
            await redis.revoke(token_field("stolen"), Revocation())
            await ledger.refresh()
            server.kill()
            assert await ledger.take(one) == Revoked("token")
            server.start()
            assert isinstance(await redis.take(one), Taken)
            assert await ledger.take(one) == Revoked("token")
            await ledger.refresh()
            assert await ledger.take(one) == Revoked("token")
            await redis.lift(token_field("stolen"))
            await ledger.refresh()
            assert isinstance(await ledger.take(one), Taken)

    with valkey(server_name) as server:
        asyncio.run(run(server))


async def until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110 - there is no event: the task has nobody to tell
        await asyncio.sleep(0)


def test_without_traffic_it_comes_back_too() -> None:
    """The background tries a charge of its own, so that the mode does not wait for a caller."""

    async def scenario() -> None:
        scene = await away()
        await outcome(scene)
        modes = []
        for healed in (False, True):
            if healed:
                scene.heals()
            scene.seconds += 5
            await scene.ledger.refresh()
            modes.append(scene.ledger.mode)
        assert modes == [Mode.LOCAL, Mode.REDIS]

    played(scenario)


# --- with a real server -----------------------------------------------------------------------


def unhurried(server: ValkeyServer) -> RedisOptions:
    """Return options that a busy machine meets, and a frozen server does not."""
    return RedisOptions(server.url, timeout=0.5)


async def real(redis: RedisLedger) -> tuple[ResilientLedger, list[float]]:
    seconds = [1000.0]
    ledger = ResilientLedger(
        redis, redis, MemoryLedger(lambda: START), OutageOptions(), lambda: seconds[0]
    )
    await ledger.start()
    return ledger, seconds


async def has_read(ledger: ResilientLedger) -> None:
    """Read the revocations: a busy machine's Redis may be late for the first time, and until then
    nothing is answered without it.
    """
    while not ledger.has_read:
        await ledger.refresh()


async def mode_of(ledger: ResilientLedger) -> Mode:
    answer = await ledger.take(query(take(quota=1000)))
    assert isinstance(answer, Taken)
    return answer.mode


async def back(ledger: ResilientLedger, seconds: list[float]) -> None:
    while await mode_of(ledger) is not Mode.REDIS:
        seconds[0] += 1


@pytest.mark.attack("redis-frozen")
@pytest.mark.attack("redis-killed")
def test_no_caller_sees_redis_break(fragile: ValkeyServer) -> None:
    """Frozen, thawed, killed and started again: every request is answered, nothing is told."""

    async def run() -> None:
        async with asyncio.timeout(180), connected(unhurried(fragile)) as redis:
            await redis.revoke(EVERYTHING, Revocation(issued_until=1))
            ledger, seconds = await real(redis)
            try:
                await has_read(ledger)
                await back(ledger, seconds)
                for stop, go in ((fragile.freeze, fragile.thaw), (fragile.kill, fragile.start)):
                    stop()
                    modes = await asyncio.gather(*(mode_of(ledger) for _ in range(50)))
                    assert set(modes) == {Mode.LOCAL}
                    assert await mode_of(ledger) is Mode.LOCAL
                    go()
                    await back(ledger, seconds)
            finally:
                await ledger.aclose()

    asyncio.run(run())


@pytest.mark.attack("redis-late")
def test_redis_may_come_late(server_name: str) -> None:
    """A service that begins without Redis refuses, and answers once Redis is there."""

    async def run(server: ValkeyServer) -> None:
        async with asyncio.timeout(180), connected(unhurried(server)) as redis:
            ledger, seconds = await real(redis)
            try:
                with pytest.raises(UnavailableError):
                    await ledger.take(query(take()))
                server.start()
                seconds[0] += 1
                await has_read(ledger)
                await back(ledger, seconds)
            finally:
                await ledger.aclose()

    with valkey(server_name, start=False) as server:
        asyncio.run(run(server))


# --- sessions ---------------------------------------------------------------------------------


@pytest.mark.attack("session-of-another")
@pytest.mark.parametrize("mode", [OutagePolicy.LOCAL, OutagePolicy.ALLOW])
def test_sessions_stay_their_owners_while_redis_is_away(mode: OutagePolicy) -> None:
    """What this worker has seen holds; what it sees first while Redis is away it binds itself."""

    async def scenario() -> None:
        scene = await away(mode)
        scene.heals()
        await scene.ledger.take(replace(query(), session=session("before")))
        scene.breaks()

        for name in ("before", "since"):
            mine = replace(query(), session=session(name))
            theirs = replace(query(), session=session(name, "bob"))
            assert isinstance(await scene.ledger.take(mine), Taken)
            assert await scene.ledger.take(theirs) == SessionOfAnother()
            assert isinstance(await scene.ledger.take(mine), Taken)

    played(scenario)


def test_what_was_refused_while_redis_is_away_binds_nothing() -> None:
    """A request that the local share refuses leaves the session to its owner."""

    async def scenario() -> None:
        scene = await away()
        one = take(quota=1)
        await scene.ledger.take(query(one))
        refused = await scene.ledger.take(replace(query(one), session=session(owner="bob")))
        assert isinstance(refused, OverLimit)

        assert isinstance(await scene.ledger.take(replace(query(), session=session())), Taken)

    played(scenario)


def test_redis_has_the_last_word_on_a_session() -> None:
    """What this worker bound while Redis was away gives way to what Redis says."""

    async def scenario() -> None:
        scene = await away()
        mine = replace(query(), session=session())
        assert isinstance(await scene.ledger.take(mine), Taken)
        scene.heals()
        scene.seconds += 1
        scene.redis.answer = SessionOfAnother()

        assert await scene.ledger.take(mine) == SessionOfAnother()

    played(scenario)

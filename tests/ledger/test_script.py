"""take.lua equals the pure model on any history, and an impossible reply is never believed."""

import asyncio
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from authz.core.calendar_windows import SPANS, CalendarUnit
from authz.core.ledger import (
    MOST_SESSIONS,
    OverLimit,
    Query,
    Revoked,
    StepUpMissing,
    Taken,
    UnavailableError,
)
from authz.core.limits import SLOTS, Limit, Per, Take, WindowState, digest
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.keys import EVERYTHING, RedisKeys, client_field, person_field, token_field
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import CorruptRecordError, Revocation
from authz.ledger.redis import RedisLedger
from authz.ledger.script import TakeCall
from tests.ledger.queries import (
    CLIENT,
    DAY,
    ISSUED,
    KEY,
    PERSON,
    approving,
    connected,
    left,
    patient,
    query,
    session,
    take,
    timed,
    without_mode,
)
from tests.support.examples import examples
from tests.support.ports import held_port
from tests.support.valkey import ValkeyServer, binaries, valkey

STATE = struct.Struct(">Q11I")
WINDOWS = (1, 60, DAY)
TAKES = (
    *(
        Take(digest(str(window)), Limit("t", Per.USER, quota, window))
        for quota, window in zip((5, 7, 9), WINDOWS, strict=True)
    ),
    *(
        Take(digest(f"shadow {window}"), Limit("s", Per.USER, 4, window, shadow=True))
        for window in WINDOWS
    ),
    # Of a day that is over by Redis' clock, and of one that is not.
    *(
        Take(digest(f"day {ends}"), Limit("d", Per.USER, 6, SPANS[CalendarUnit.DAY]), ends)
        for ends in (1, 2_600_000_000_000)
    ),
)
TARGETS = (token_field("token-1"), person_field(PERSON), client_field(CLIENT), EVERYTHING)


async def command(ledger: RedisLedger, *words: Any) -> Any:
    return await ledger.command(*words)


async def milliseconds(ledger: RedisLedger) -> int:
    seconds, micros = await command(ledger, "TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def write_state(ledger: RedisLedger, one: Take, state: WindowState) -> None:
    """Write a bucket as the script would have left it."""
    key = ledger._keys.bucket(one.bucket)
    await command(ledger, "SET", key, STATE.pack(state.slot, *state.counts), "EX", DAY * 2)


# --- equal to the model -----------------------------------------------------------------------


@dataclass
class Both:
    """Drive Redis and the in-memory ledger side by side, by Redis' clock."""

    ledger: RedisLedger
    now: int = 0
    in_memory: MemoryLedger = field(init=False)

    def __post_init__(self) -> None:
        # Half a millisecond more, so that no rounding of a float loses one.
        self.in_memory = MemoryLedger(lambda: (self.now + 0.5) / 1000)

    async def take(self, asked: Query) -> None:
        self.now, answer = await timed(self.ledger, asked)
        assert without_mode(await self.in_memory.take(asked)) == without_mode(answer)
        await self.compare_states()

    async def compare_states(self) -> None:
        states = self.in_memory._buckets._states
        for one in TAKES:
            raw = await command(self.ledger, "GET", self.ledger._keys.bucket(one.bucket))
            kept = states.get(one.bucket)
            if raw is not None:
                assert kept is not None
                slot, *counts = STATE.unpack(raw)
                assert kept == WindowState(slot, tuple(counts))

    async def write_state(self, one: Take, late: int, counts: Sequence[int]) -> None:
        now = await milliseconds(self.ledger)
        state = WindowState(now // one.limit.slot - late, tuple(counts))
        await write_state(self.ledger, one, state)
        self.in_memory._buckets._states[one.bucket] = state

    async def step_up(self, method: Method, age: int) -> None:
        self.now = await milliseconds(self.ledger)
        for ledger in (self.ledger, self.in_memory):
            await ledger.record_step_up(KEY, method, self.now // 1000 - age, DAY)

    async def approve(self, lifetime: int | None, age: int, approved: bool) -> None:
        self.now = await milliseconds(self.ledger)
        key = approving(query(), lifetime).approval_key
        assert key is not None
        for ledger in (self.ledger, self.in_memory):
            await ledger.record_approval(key, self.now // 1000 - age, DAY, approved=approved)

    async def revoke(self, target: bytes, moment: int | None) -> None:
        for ledger in (self.ledger, self.in_memory):
            await ledger.revoke(target, Revocation(issued_until=moment))

    async def lift(self, target: bytes) -> None:
        for ledger in (self.ledger, self.in_memory):
            await ledger.lift(target)


Step = Callable[[Both], Any]


def takes_of(indexes: Sequence[tuple[int, int]]) -> tuple[Take, ...]:
    return tuple(replace(TAKES[i], limit=replace(TAKES[i].limit, cost=cost)) for i, cost in indexes)


indexes = st.integers(0, len(TAKES) - 1)
charges = st.lists(st.tuples(indexes, st.integers(1, 3)), max_size=4)
needs = st.none() | st.builds(
    StepUpNeed, st.sampled_from([Method.ANY, Method.TOTP]), st.none() | st.just(300)
)
sessions = st.none() | st.builds(
    session, st.sampled_from(["s", "t"]), st.sampled_from(["ada", "bob"])
)
counts = st.lists(st.integers(0, 3), min_size=SLOTS + 1, max_size=SLOTS + 1)
approvals = st.sampled_from([None, 0, 300])  # none, each call, five minutes


def asking(asked: Query, approval: int | None) -> Query:
    return asked if approval is None else approving(asked, approval or None)


steps = st.one_of(
    st.builds(
        lambda chosen, need, of, approval: (
            lambda both: both.take(
                asking(replace(query(*takes_of(chosen), need=need), session=of), approval)
            )
        ),
        charges,
        needs,
        sessions,
        approvals,
    ),
    st.builds(
        lambda lifetime, age, approved: lambda both: both.approve(lifetime, age, approved),
        st.sampled_from([None, 300]),
        st.sampled_from([0, 100, 400, -100]),
        st.booleans(),
    ),
    st.builds(
        lambda i, late, units: lambda both: both.write_state(TAKES[i], late, units),
        indexes,
        st.integers(-3, SLOTS + 2),
        counts,
    ),
    st.builds(
        lambda method, age: lambda both: both.step_up(method, age),
        st.sampled_from([Method.ANY, Method.OTP, Method.TOTP]),
        st.sampled_from([0, 100, 400, -100]),
    ),
    st.builds(
        lambda target, moment: lambda both: both.revoke(target, moment),
        st.sampled_from(TARGETS),
        st.sampled_from([ISSUED - 1, ISSUED, None]),
    ),
    *[st.builds(lambda t: lambda both: both.lift(t), st.sampled_from(TARGETS))] * 2,
)


@given(trace=st.lists(steps, min_size=1, max_size=25))
@settings(examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_equals_the_model(server: ValkeyServer, trace: list[Step]) -> None:
    """Redis and the in-memory ledger answer the same after any history."""

    async def run() -> None:
        async with connected(patient(server, f"test-{uuid.uuid4().hex}")) as ledger:
            both = Both(ledger)
            for step in trace:
                await step(both)
            for target in TARGETS:
                await both.lift(target)
            await both.take(query(*TAKES))

    asyncio.run(run())


@pytest.mark.parametrize("late", [-1000, -1, 0, 1, 9, 10, 11, 12, 1000])
def test_the_edges_of_the_window(server: ValkeyServer, deployment: str, late: int) -> None:
    """A slot counts until ten others have begun after it, and the future counts as of now."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            one = take(quota=3)
            slot = await milliseconds(ledger) // one.limit.slot
            await write_state(ledger, one, WindowState(slot - late, (3, *(0,) * SLOTS)))

            answer = await ledger.take(query(one))

            assert isinstance(answer, Taken if late > SLOTS else OverLimit)

    asyncio.run(run())


@pytest.mark.parametrize("late", [-1, 0, 1, SLOTS + 1])
def test_a_refusal_tells_what_stands(server: ValkeyServer, deployment: str, late: int) -> None:
    """What a refused charge would have made, be it more than 32 bits hold, is seen nowhere."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            both = Both(ledger)
            most = 2**32 - 1
            full = Take(TAKES[2].bucket, Limit("t", Per.USER, most, DAY, most))
            await both.write_state(TAKES[2], late, (2**31, *range(SLOTS)))
            await both.write_state(TAKES[1], 0, (7, *(0,) * SLOTS))

            await both.take(query(full, TAKES[1], TAKES[0]))

    asyncio.run(run())


@pytest.mark.attack("shadow-limit-refuses")
def test_a_limit_in_shadow_is_never_a_fault(server: ValkeyServer, deployment: str) -> None:
    """What stands in place of its bucket, of any type and size, is written over and refuses nobody;
    beside it the same in place of an enforced limit's is a fault, and nothing is charged.
    """

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            shadow = replace(take("s"), limit=replace(take().limit, shadow=True))
            name = ledger._keys.bucket(shadow.bucket)
            for odd in (("SET", name, "x"), ("SET", name, "x" * 51), ("HSET", name, "a", "b")):
                await command(ledger, "DEL", name)
                await command(ledger, *odd)
                assert left(await ledger.take(query(shadow, take(odd[-1])))) == [2, 2]
            other = take("other")
            await command(ledger, "SET", ledger._keys.bucket(other.bucket), "x")
            with pytest.raises(UnavailableError):
                await ledger.take(query(shadow, other))
            assert left(await ledger.take(query(shadow))) == [1]

    asyncio.run(run())


@pytest.mark.attack("clock-back")
def test_a_clock_that_stepped_back_is_met_once(server: ValkeyServer, deployment: str) -> None:
    """A bucket ahead of the clock begins to age at its first refusal, with a new lifetime."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            one, other = take("a", quota=3), take("b", quota=9)
            slot = await milliseconds(ledger) // one.limit.slot
            await write_state(ledger, one, WindowState(slot + 50, (1, 1, 1, *(0,) * 8)))

            answer = await ledger.take(query(other, one))

            assert isinstance(answer, OverLimit)
            assert left(answer) == [9, 0]
            assert answer.retry_after <= DAY * 11 // 10
            raw = await command(ledger, "GET", ledger._keys.bucket(one.bucket))
            assert STATE.unpack(raw) == (slot, 3, *(0,) * SLOTS)
            assert await command(ledger, "EXISTS", ledger._keys.bucket(other.bucket)) == 0

    asyncio.run(run())


# --- what is in Redis -------------------------------------------------------------------------


@pytest.mark.attack("bounded-memory")
def test_every_key_is_of_this_deployment_and_is_forgotten(
    server: ValkeyServer, deployment: str
) -> None:
    """All keys share one hash tag, and all but the revocations have a lifetime."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            await ledger.revoke(EVERYTHING, Revocation(issued_until=0))
            await ledger.record_step_up(KEY, Method.TOTP, ISSUED, 100)
            await ledger.take(replace(query(), session=session()))
            for window in WINDOWS:
                asked = query(*(take(f"{window}{n}", window=window) for n in range(20)))
                for _ in range(2):
                    assert isinstance(await ledger.take(asked), Taken)
            keys = await command(ledger, "KEYS", f"*{deployment}*")
            lives = {key: await command(ledger, "PTTL", key) for key in keys}

            # The shortest windows may be over by now on a slow machine: -2.
            assert 44 <= len(keys) <= 64
            assert {key_slot(key) for key in keys} == {key_slot(b"{%s}" % deployment.encode())}
            assert [key for key, life in lives.items() if life == -1] == [
                b"{%s}:revocations" % deployment.encode()
            ]
            assert max(lives.values()) <= DAY * 1200

    asyncio.run(run())


def test_a_bucket_lives_as_long_as_it_counts(server: ValkeyServer, deployment: str) -> None:
    """A charge made within a slot does not lose the lifetime that the slot was given."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            one = take(quota=9)
            for _ in range(3):
                await ledger.take(query(one))
            life = await command(ledger, "PTTL", ledger._keys.bucket(one.bucket))

            # It must outlive the end of its slot by ten slots.
            now = await milliseconds(ledger)
            slot = one.limit.slot
            assert now + life >= (now // slot + SLOTS + 1) * slot

    asyncio.run(run())


@pytest.mark.attack("sessions-fill-memory")
def test_short_sessions_do_not_free_the_count_of_long_ones(server: ValkeyServer) -> None:
    """What bounds a person's sessions is kept as long as the longest of them is bound."""

    async def run() -> None:
        async with connected(patient(server, "rings")) as ledger:
            ring = ledger._keys.session_ring(session())
            for name, lifetime in (("long", DAY), ("short", 1), ("longer", 2 * DAY)):
                one = session(name, lifetime=lifetime)
                await ledger.take(replace(query(), session=one))
                longest = 2 * DAY if name == "longer" else DAY
                assert longest - 60 < await ledger.command("PTTL", ring) / 1000 <= longest

    asyncio.run(run())


def test_a_cluster_runs_it() -> None:
    """Every key that the script touches is in one slot of a Redis Cluster."""

    async def run(server: ValkeyServer) -> None:
        async with connected(patient(server, "authz")) as ledger:
            await ledger.record_step_up(KEY, Method.TOTP, ISSUED, DAY)
            await ledger.revoke(EVERYTHING, Revocation(issued_until=0))
            need = StepUpNeed(Method.TOTP, None)
            answer = await ledger.take(query(take("a"), take("b"), need=need))

            assert left(answer) == [2, 2]
            for number in range(MOST_SESSIONS + 1):
                asked = query() if number else query(take("a"), need=need)
                asked = replace(asked, session=session(str(number)))
                assert isinstance(await ledger.take(asked), Taken)

    name = next((name for name, path in binaries().items() if path), None)
    if name is None:
        pytest.skip("NOT TESTED: no server")
    # The bus would listen on port + 10000, which there may not be.
    bus = str(held_port())
    with valkey(name, cluster_enabled="yes", cluster_port=bus, tcp=True) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            pass
        asyncio.run(run(server))


ALIENS: dict[str, tuple[Any, ...]] = {
    "short": ("SET", "x" * 51),
    "long": ("SET", "x" * 53),
    "empty": ("SET", ""),
    "number": ("SET", "7"),
    "hash": ("HSET", "a", "b"),
    "list": ("RPUSH", "a"),
    "set": ("SADD", "a"),
}


@pytest.mark.attack("wrongtype")
@pytest.mark.parametrize("alien", ALIENS)
def test_a_bucket_that_is_none_admits_nobody(
    server: ValkeyServer, deployment: str, alien: str
) -> None:
    """A wrong type or length is a fault, charges nothing, and ages until it is gone."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            good, bad = take("good"), take("bad")
            key = ledger._keys.bucket(bad.bucket)
            name, *values = ALIENS[alien]
            await command(ledger, name, key, *values)
            before = await command(ledger, "DUMP", key)
            for takes in ((good, bad), (bad, good), (take("fresh"), bad), (bad,)):
                with pytest.raises(CorruptRecordError) as raised:
                    await ledger.take(query(*takes))
                assert raised.value.dependency == "redis"

            assert await command(ledger, "DUMP", key) == before
            assert 0 < await command(ledger, "PTTL", key) <= DAY * 1200
            assert left(await ledger.take(query(good))) == [2]

    asyncio.run(run())


@pytest.mark.attack("wrongtype")
def test_a_bucket_with_absurd_counts_is_full(server: ValkeyServer, deployment: str) -> None:
    """Bytes of the right length count as what they say, and never as room."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            one = take()
            for slot in (await milliseconds(ledger) // one.limit.slot, 2**64 - 1):
                await write_state(ledger, one, WindowState(slot, (2**32 - 1,) * 11))
                answer = await ledger.take(query(one))

                assert isinstance(answer, OverLimit)
                assert left(answer) == [0]

    asyncio.run(run())


@pytest.mark.attack("wrongtype")
def test_revocations_that_cannot_be_read_admit_nobody(
    server: ValkeyServer, deployment: str
) -> None:
    """Where the revocations are no hash, nobody knows who is revoked."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            await command(ledger, "SET", ledger._keys.revocations, "x")
            for work in (ledger.take(query(take())), ledger.revocations()):
                with pytest.raises(UnavailableError):
                    await work
            await command(ledger, "DEL", ledger._keys.revocations)

            assert left(await ledger.take(query(take()))) == [2]

    asyncio.run(run())


@pytest.mark.attack("wrongtype")
def test_a_step_up_record_of_a_wrong_type_proves_nothing(
    server: ValkeyServer, deployment: str
) -> None:
    """Only a text can be a record."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            await command(ledger, "HSET", ledger._keys.step_up(KEY), "a", "b")
            asked = query(take(), need=StepUpNeed(Method.ANY, None))

            assert await ledger.take(asked) == StepUpMissing()

    asyncio.run(run())


@pytest.mark.parametrize("alien", ["hash", "list", "set"])
@pytest.mark.attack("wrongtype")
def test_a_binding_that_is_none_is_made_anew(
    server: ValkeyServer, deployment: str, alien: str
) -> None:
    """What is no text binds nobody, and ages from the first use on."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            key = ledger._keys.session(session())
            name, *values = ALIENS[alien]
            await command(ledger, name, key, *values)

            assert isinstance(await ledger.take(replace(query(), session=session())), Taken)
            assert 0 < await command(ledger, "PTTL", key) <= DAY * 1000

    asyncio.run(run())


def test_a_binding_lives_on_with_every_use(server: ValkeyServer, deployment: str) -> None:
    """The lifetime counts from the last admitted use, in whichever call it came."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            key = ledger._keys.session(session())
            for takes in ((), (take("a", quota=99), take("b", quota=99))):
                asked = replace(query(*takes), session=session())
                await ledger.take(asked)
                await command(ledger, "PEXPIRE", key, 1000)
                await ledger.take(asked)
                assert await command(ledger, "PTTL", key) > 1000 * 1000

                await command(ledger, "PEXPIRE", key, 1000_000)
                calls = [ledger.call(each) for each in (asked, query(), asked)]
                assert all(isinstance(each, Taken) for each in await ledger.answer(calls))
                assert await command(ledger, "PTTL", key) > 1000 * 1000

    asyncio.run(run())


# --- the answer -------------------------------------------------------------------------------

NOW = 1_800_000_000_000
ONE, TWO = take("one", quota=5, cost=2), take("two", quota=5)
SLOT = NOW // ONE.limit.slot


def state(*units: int, slot: int = SLOT) -> bytes:
    return STATE.pack(slot, *units, *(0,) * (SLOTS + 1 - len(units)))


def read(reply: object, *takes: Take, need: StepUpNeed | None = None) -> object:
    return TakeCall(RedisKeys("test"), query(*takes, need=need)).read(reply)


def test_what_the_script_says_is_read() -> None:
    """The script's answers become the ledger's."""
    assert isinstance(read([NOW, b"taken", state(2), state(1)], ONE, TWO), Taken)
    assert isinstance(read([NOW, b"over", state(4), state(0)], ONE, TWO), OverLimit)
    assert read([NOW, b"revoked", 2]) == Revoked("person")
    assert read([NOW, b"missing"], need=StepUpNeed(Method.ANY, None)) == StepUpMissing()


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(reply, id=str(index))
        for index, reply in enumerate(
            list[object]([
                None, 1, b"taken", "taken", {}, [], [[]], [None], [NOW], [b"taken"],
                [b"taken", NOW],
                # taken, but not of this query
                [NOW, b"taken"],
                [NOW, b"taken", state(2)],
                [NOW, b"taken", state(2), state(1), state(1)],
                [NOW, b"taken", [state(2), state(1)]],
                [NOW, "taken", state(2), state(1)],
                [NOW, b"TAKEN", state(2), state(1)],
                [NOW, b"taken ", state(2), state(1)],
                [None, b"taken", state(2), state(1)],
                [b"%d" % NOW, b"taken", state(2), state(1)],
                [float(NOW), b"taken", state(2), state(1)],
                # taken, but beyond the quota with what is charged
                [NOW, b"taken", state(4), state(1)],
                [NOW, b"taken", state(0, 4), state(1)],
                [NOW, b"taken", state(2, 2), state(1)],
                [NOW, b"taken", state(2), state(5)],
                # states of another moment or shape
                [NOW, b"taken", state(2, slot=SLOT - 1), state(1)],
                [NOW, b"taken", state(2, slot=SLOT + 1), state(1)],
                [NOW, b"taken", state(2)[:-1], state(1)],
                [NOW, b"taken", state(2) + b"\0", state(1)],
                [NOW, b"taken", state(2).decode("latin-1"), state(1)],
                [NOW, b"taken", None, state(1)],
                [NOW, b"taken", 2, 1],
                # refused without a reason
                [NOW, b"over", state(3), state(4)],
                [NOW, b"over"],
                [NOW, b"over", state(5)],
                [NOW, b"over", None, None],
                # not asked
                [NOW, b"missing"], [NOW, b"old"], [NOW, b"missing", 1], [NOW, b"foreign"],
                [NOW, b"revoked"], [NOW, b"revoked", 0], [NOW, b"revoked", 7],
                [NOW, b"revoked", -1], [NOW, b"revoked", b"1"], [NOW, b"revoked", None],
                [NOW, b"revoked", 1, 1],
                [NOW, b"corrupt"],
            ])
        )
    ],
)  # fmt: skip
def test_an_odd_answer_is_a_fault(reply: object) -> None:
    """What the script cannot have said of this query is no verdict."""
    with pytest.raises(UnavailableError):
        read(reply, ONE, TWO)


values = st.recursive(
    st.none()
    | st.integers()
    | st.booleans()
    | st.sampled_from([NOW, b"taken", b"over", b"revoked", b"missing", state(2), state(1)])
    | st.binary(max_size=52),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(reply=values)
def test_no_answer_raises_anything_else(reply: object) -> None:
    """Any reply at all is an answer of the contract or a fault of Redis."""
    try:
        answer = read(reply, ONE, TWO)
    except UnavailableError:
        return
    if isinstance(answer, Taken):
        assert isinstance(reply, list)
        assert reply[1:] == [b"taken", state(2), state(1)]

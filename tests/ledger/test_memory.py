"""The memory of the in-memory ledger is bounded, and eviction costs admitted requests."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import Mode, StepUpKey, StepUpMissing, Taken
from authz.core.limits import Limit, Per, Take, digest
from authz.core.principal import Person
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.memory import Buckets, MemoryLedger
from tests.ledger.queries import START, query, take

NOW = int(START * 1000)
WINDOW = 10


def one(name: str, quota: int = 3, cost: int = 1) -> Take:
    return Take(digest(name), Limit("t", Per.ADDRESS, quota, WINDOW, cost))


@given(
    trace=st.lists(
        st.tuples(st.integers(0, 6), st.integers(1, 2), st.integers(0, 3000)), max_size=80
    ),
    capacity=st.integers(1, 4),
)
@pytest.mark.attack("bounded-memory")
def test_the_bound_at_the_cap(trace: list[tuple[int, int, int]], capacity: int) -> None:
    """In any window a bucket admits its quota, and once more per `capacity` charges elsewhere."""
    buckets, now, admitted = Buckets(capacity), NOW, list[tuple[int, int, int]]()
    for name, cost, gap in trace:
        now += gap
        if not buckets.take((one(str(name), cost=cost),), now).retry_after:
            admitted.append((now, name, cost))
        assert len(buckets) <= capacity

    for index, (begin, name, _) in enumerate(admitted):
        window = [each for each in admitted[index:] if each[0] <= begin + WINDOW * 1000]
        own = sum(cost for _, each, cost in window if each == name)
        elsewhere = sum(each != name for _, each, _ in window)
        assert own <= 3 * (1 + elsewhere // capacity)


@pytest.mark.attack("bounded-memory")
def test_refusals_push_nothing_out() -> None:
    """Refused requests, under whatever names, make no bucket and so take nobody's place."""
    buckets = Buckets(capacity=3)
    victim, user = one("victim", quota=1), one("user", quota=1)
    buckets.take((victim, user), NOW)
    for name in range(1000):
        assert buckets.take((one(str(name)), user), NOW).retry_after

    assert buckets.take((victim,), NOW).retry_after == 11


def test_the_bucket_charged_least_lately_makes_room() -> None:
    """A charge keeps a bucket, a refusal does not: refusals are free."""
    buckets = Buckets(capacity=2)
    first, second, third = one("1", quota=2), one("2", quota=1), one("3", quota=1)
    for each in (first, second, first, second, third):
        buckets.take((each,), NOW)

    assert list(buckets._states) == [first.bucket, third.bucket]


@pytest.mark.attack("bounded-memory")
def test_many_names_take_no_more_memory_than_some() -> None:
    """Memory is bounded by the capacity, not by who comes."""
    buckets = Buckets(capacity=1000)
    for name in range(10_000):
        buckets.take((one(str(name)),), NOW + name)

    assert len(buckets) == 1000


def test_step_ups_are_bounded_and_forgotten() -> None:
    """The oldest step-up makes room, and each ends with its lifetime."""
    clock = [START]
    ledger = MemoryLedger(lambda: clock[0], capacity=2)
    keys = [StepUpKey(Person("i", str(n)), "g", "s") for n in range(3)]
    need = StepUpNeed(Method.ANY, None)

    async def run() -> None:
        for key in keys:
            await ledger.record_step_up(key, Method.TOTP, int(START), ttl=10)
        answers = [await ledger.take(query(need=need, key=key)) for key in keys]
        assert answers == [StepUpMissing(), Taken((), Mode.LOCAL), Taken((), Mode.LOCAL)]

        clock[0] += 9.999
        assert isinstance(await ledger.take(query(need=need, key=keys[2])), Taken)
        clock[0] += 0.001
        assert await ledger.take(query(need=need, key=keys[2])) == StepUpMissing()

    asyncio.run(run())


def test_the_mode_says_who_counted() -> None:
    """Whoever runs the in-memory ledger says what its answers are called."""

    async def run() -> None:
        ledger = MemoryLedger(lambda: START, mode=Mode.UNLIMITED)
        answer = await ledger.take(query(take()))
        assert isinstance(answer, Taken)
        assert answer.mode is Mode.UNLIMITED

    asyncio.run(run())

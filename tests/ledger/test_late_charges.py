"""What was admitted without Redis is charged afterwards: once, no more, and within the quota."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.core.ledger import Mode, Taken, UnavailableError
from authz.core.limits import SLOTS, Limit, Per, Take, WindowState, advance, digest
from authz.ledger.late_charges import LateBatch, LateCharge, LateCharges, parse_charged
from authz.ledger.memory import MemoryLedger
from authz.ledger.resilient import OutageOptions, ResilientLedger
from tests.ledger.queries import connected, left, patient, query, take
from tests.support.examples import examples
from tests.support.valkey import ValkeyServer, valkey

WINDOW = 100  # seconds, so that a slot is ten
LONG = 25_000 * 86_400  # a slot is 2,500 days, so that none ends while a test runs
FOREVER = 60.0


def limit(quota: int = 1000, window: int = WINDOW, cost: int = 1) -> Limit:
    return Limit("test", Per.USER, quota, window, cost)


@dataclass
class Remote:
    """Charge each batch once, as the script does; its answers may be lost."""

    charged: Counter[str] = field(default_factory=Counter)
    batches: set[str] = field(default_factory=set)

    def charge(self, batch: LateBatch) -> None:
        if batch.id not in self.batches:
            self.batches.add(batch.id)
            for each in batch.charges:
                self.charged[each.bucket] += sum(units for units, _ in each.units)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from("abc"), st.integers(1, 5)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 40)),
        st.tuples(st.sampled_from(["ran", "lost", "never sent"]), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whichever_answers_are_lost_each_unit_is_charged_once(
    steps: list[tuple[str, str, int]],
) -> None:
    """Never more than was admitted; all of it, where the window still holds it."""
    owed, remote, now = LateCharges(), Remote(), 5000.0
    admitted, moments = Counter[str](), list[tuple[float, str, int]]()
    for step, name, number in steps:
        if step == "admit":
            owed.add([Take(name, limit(cost=number))], now)
            admitted[name] += number
            moments.append((now, name, number))
        elif step == "wait":
            now += number
        elif (batch := owed.next(now)) is not None:
            if step != "never sent":
                remote.charge(batch)
            if step == "ran":
                owed.confirm(batch)
        assert all(remote.charged[each] <= admitted[each] for each in admitted)
    while (batch := owed.next(now)) is not None:
        remote.charge(batch)
        owed.confirm(batch)
    assert len(owed) == 0
    due = Counter[str]()
    for at, name, number in moments:
        if at > now - WINDOW:
            due[name] += number
    assert all(due[name] <= remote.charged[name] <= admitted[name] for name in admitted)


@given(st.integers(0, 200), st.integers(1, 300))
def test_a_unit_is_as_old_as_it_is(begin: int, wait: int) -> None:
    """Not older, and younger by a slot at most; gone once the window has passed."""
    owed, at = LateCharges(), 5000.0 + begin
    owed.add([Take("a", limit())], at)
    batch = owed.next(at + wait)
    if batch is None:
        assert wait > WINDOW
        return
    ((_, age),) = batch.charges[0].units
    assert wait - WINDOW / SLOTS <= age / 1000 <= wait


def test_memory_is_bounded() -> None:
    """The buckets that were charged longest ago are forgotten: they are charged too little."""
    owed = LateCharges(capacity=10)
    for n in range(100):
        owed.add([Take(str(n), limit())], 5000.0)
    assert len(owed) == 10
    batch = owed.next(5000.0)
    assert batch is not None
    assert [each.bucket for each in batch.charges] == [str(n) for n in range(90, 100)]


def test_a_batch_that_nobody_takes_is_given_up() -> None:
    """Before Redis forgets that it may have charged it."""
    owed = LateCharges()
    owed.add([Take("a", limit(window=86_400))], 5000.0)
    first = owed.next(5000.0)
    assert owed.next(6000.0) is not None
    assert owed.next(7000.0) is None
    assert first is not None
    owed.confirm(first)
    assert len(owed) == 0


# --- the script -------------------------------------------------------------------------------


def charged(state: WindowState | None, one: LateCharge, now: int) -> tuple[int, ...]:
    """Return what the script makes of a bucket."""
    found = advance(state, one.limit, now)
    counts = list(found.counts)
    for units, age in one.units:
        behind = max(0, found.slot - (now - age) // one.limit.slot)
        if behind <= SLOTS:
            counts[behind] += min(units, one.limit.quota - sum(counts))
    return tuple(counts)


UNITS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 14)), min_size=1, max_size=12)


@given(st.integers(0, 60), UNITS)
@settings(examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_charges_as_the_model(
    server: ValkeyServer, deployment: str, before: int, units: list[tuple[int, int]]
) -> None:
    """Each unit in its slot, within the quota and the window; the second time nothing."""
    rule = limit(quota=100, window=LONG)
    name = digest(str(time.monotonic_ns()))
    aged = tuple((each, days * rule.slot) for each, days in sorted(units, key=lambda u: u[1]))
    one = LateCharge(name, rule, aged)

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            key = ledger._keys.bucket(name)
            if before:
                cost = Limit("test", Per.USER, 100, LONG, before)
                await ledger.take(query(Take(name, cost)))
            seconds, _ = await ledger.command("TIME")
            now = int(seconds) * 1000
            state = WindowState(now // rule.slot, (before, *(0,) * SLOTS))
            batch = LateBatch(name, (one,))
            wanted = charged(state, one, now)
            assert await ledger.charge_late(batch) == sum(wanted) - before
            (value,) = await ledger.command("MGET", key)
            if value is None:
                assert sum(wanted) == 0
            else:
                counts = tuple(int.from_bytes(value[n : n + 4]) for n in range(8, 52, 4))
                assert counts == wanted
                assert await ledger.command("PTTL", key) > 11 * rule.slot
            assert await ledger.charge_late(batch) == 0
            assert (await ledger.command("MGET", key)) == [value]

    asyncio.run(run())


@pytest.mark.parametrize("reply", [None, [], b"1", "1", -1, True], ids=repr)
def test_what_the_script_does_not_give_is_a_fault(reply: object) -> None:
    """It ends no task that reads the revocations, too."""
    with pytest.raises(UnavailableError):
        parse_charged(reply)


def test_what_is_no_bucket_stays(server: ValkeyServer, deployment: str) -> None:
    """Nothing is written over that is not ours."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            text, other = ledger._keys.bucket("text"), ledger._keys.bucket("hash")
            await ledger.command("SET", text, b"x")
            await ledger.command("HSET", other, b"x", b"y")
            charges = (LateCharge(name, limit(), ((1, 0),)) for name in ("text", "hash"))
            assert await ledger.charge_late(LateBatch("x", tuple(charges))) == 0
            assert await ledger.command("MGET", text) == [b"x"]
            assert await ledger.command("HGETALL", other) == {b"x": b"y"}

    asyncio.run(run())


@pytest.mark.attack("redis-killed")
def test_after_an_outage_the_quota_is_used_up(server_name: str) -> None:
    """A client that used up its limit while Redis was away has not got it back with Redis."""

    async def run(server: ValkeyServer) -> None:
        asked, told = query(take(quota=10)), list[int]()
        async with connected(patient(server, "authz")) as remote:
            ledger = ResilientLedger(
                remote,
                remote,
                MemoryLedger(time.time),
                OutageOptions(probe=0.05, pause=0.05),
                time.monotonic,
                late=remote,
                on_late=told.append,
            )
            await ledger.start()
            assert left(await ledger.take(asked)) == [9]
            server.kill()
            answers = [await ledger.take(asked) for _ in range(9)]
            assert all(isinstance(each, Taken) for each in answers)
            assert {each.mode for each in answers if isinstance(each, Taken)} == {Mode.LOCAL}
            server.start()
            async with asyncio.timeout(FOREVER):
                while not told:  # noqa: ASYNC110 - its own task does it
                    await asyncio.sleep(0.01)
            remaining = left(await ledger.take(asked))
            await ledger.aclose()
        # The server came back empty. The calls that met its end may have been charged, so they
        # are not charged again: at most the two that failed before it counted as away, and one
        # for each time that somebody looked whether it was back.
        assert sum(told) <= 9
        assert remaining == [10 - sum(told) - 1]
        assert sum(told) >= 1

    with valkey(server_name) as server:
        asyncio.run(run(server))

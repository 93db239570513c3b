"""Batches: each caller gets its own verdict, whatever becomes of the others.

The sequential model is the in-memory ledger, which the contract tests hold together with Redis.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import (
    LedgerAnswer,
    OverLimit,
    Query,
    Revoked,
    StepUpKey,
    StepUpMissing,
    Taken,
    UnavailableError,
)
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.batch import BatchedLedger
from authz.ledger.deadline import Deadline
from authz.ledger.keys import RedisKeys, token_field
from authz.ledger.memory import MemoryLedger
from authz.ledger.records import CorruptRecordError, Revocation
from authz.ledger.script import BatchCall, TakeCall
from tests.ledger.queries import (
    CLIENT,
    ISSUED,
    KEY,
    PERSON,
    START,
    connected,
    left,
    patient,
    query,
    take,
    without_mode,
)
from tests.support.examples import examples
from tests.support.valkey import ValkeyServer

TOTP = StepUpNeed(Method.TOTP, None)
NOBODY = StepUpKey(PERSON, "grant-2", "files")


class Scripted:
    """A Redis in this process: answers as the in-memory ledger does, when it is told to.

    Attributes:
        batches: the queries of each batch, as they were sent.
        waiting: one future for each batch that has not been answered yet.
    """

    def __init__(self) -> None:
        self.in_memory = MemoryLedger(lambda: START)
        self.batches: list[list[Query]] = []
        self.waiting: list[asyncio.Future[None]] = []

    def call(self, asked: Query) -> TakeCall:
        return TakeCall(RedisKeys("test"), asked)

    async def answer(self, calls: Sequence[TakeCall]) -> Sequence[LedgerAnswer | UnavailableError]:
        queries = [each._query for each in calls]
        self.batches.append(queries)
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        answers = [await self.in_memory.take(each) for each in queries]
        await gate
        return answers

    def let_go(self, error: Exception | None = None) -> bool:
        """Answer the oldest batch, or let it fail; tell whether there was one."""
        if not self.waiting:
            return False
        gate = self.waiting.pop(0)
        if error is None:
            gate.set_result(None)
        else:
            gate.set_exception(error)
        return True


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(8):
        await asyncio.sleep(0)


def begin(ledger: BatchedLedger, *asked: Query) -> list["asyncio.Task[LedgerAnswer]"]:
    return [asyncio.create_task(ledger.take(one)) for one in asked]


def refused(task: "asyncio.Task[LedgerAnswer]") -> str:
    """Return the words of a task's UnavailableError."""
    error = task.exception()
    assert isinstance(error, UnavailableError), error
    return error.detail


# --- batches ------------------------------------------------------------------------------------


def test_what_is_asked_in_one_turn_goes_in_one_batch() -> None:
    """Sixty callers of one turn cost one batch; those who come meanwhile share the next ones."""

    async def run() -> None:
        remote = Scripted()
        ledger = BatchedLedger(remote, max_batch=64, max_concurrent=1)
        first = begin(ledger, *[query(take(str(n))) for n in range(60)])
        await settle()
        second = begin(ledger, *[query(take(str(n))) for n in range(100)])
        await settle()
        assert [len(batch) for batch in remote.batches] == [60]

        while remote.let_go():
            await settle()

        assert [len(batch) for batch in remote.batches] == [60, 64, 36]
        assert all(task.done() for task in first + second)

    asyncio.run(run())


def test_those_for_whom_a_batch_has_no_room_take_the_next_at_once() -> None:
    """As many batches as may be under way begin in one turn, and no more."""

    async def run() -> None:
        remote = Scripted()
        ledger = BatchedLedger(remote, max_batch=4, max_concurrent=2)
        tasks = begin(ledger, *[query(take(str(n))) for n in range(10)])
        await settle()
        assert [len(batch) for batch in remote.batches] == [4, 4]
        while remote.let_go():
            await settle()

        assert [len(batch) for batch in remote.batches] == [4, 4, 2]
        assert all(task.done() for task in tasks)

    asyncio.run(run())


def test_who_was_cancelled_before_the_batch_is_not_asked_for() -> None:
    """Nobody is charged for an answer that nobody waits for, where that is known in time."""

    async def run() -> None:
        remote = Scripted()
        ledger = BatchedLedger(remote, max_concurrent=1)
        begin(ledger, query())
        await settle()
        gone, kept = begin(ledger, query(take("gone")), query(take("kept")))
        await settle()
        gone.cancel()
        await settle()
        while remote.let_go():
            await settle()

        assert [each.takes for each in remote.batches[1]] == [(take("kept"),)]
        assert left(await kept) == [2]

    asyncio.run(run())


def test_more_than_may_wait_are_refused_at_once() -> None:
    """The queue has an end."""

    async def run() -> None:
        remote = Scripted()
        ledger = BatchedLedger(remote, max_concurrent=1, max_batch=1, max_queued=3)
        tasks = begin(ledger, *[query()] * 5)
        await settle()
        # The turn's end came after all five had asked: three wait, two are told.
        assert [refused(task) for task in tasks[3:]] == ["too many are waiting"] * 2
        while remote.let_go():
            await settle()
        assert [left(await task) for task in tasks[:3]] == [[]] * 3

    asyncio.run(run())


@pytest.mark.attack("error-in-a-shared-call")
def test_a_batch_that_fails_is_nobodys_second_try() -> None:
    """All in it, and all who wait behind it, are refused; nothing is sent again."""

    async def run() -> None:
        remote = Scripted()
        ledger = BatchedLedger(remote, max_concurrent=1, max_batch=2)
        tasks = begin(ledger, *[query(take(str(n))) for n in range(5)])
        await settle()
        remote.let_go(UnavailableError("redis", "TimeoutError"))
        await settle()

        assert [refused(task) for task in tasks] == [
            "TimeoutError",
            "TimeoutError",
            *["an earlier call had no answer"] * 3,
        ]
        assert len(remote.batches) == 1
        assert len({id(task.exception()) for task in tasks}) == 5
        (later,) = begin(ledger, query(take("later")))
        await settle()
        remote.let_go()
        assert left(await later) == [2]

    asyncio.run(run())


@pytest.mark.parametrize("change", [-1, 1])
def test_answers_that_could_have_shifted_are_nobodys(change: int) -> None:
    """One answer too few or too many, and nobody is told anything but a fault."""

    class Shifted(Scripted):
        async def answer(
            self, calls: Sequence[TakeCall]
        ) -> Sequence[LedgerAnswer | UnavailableError]:
            answers = [await self.in_memory.take(each._query) for each in calls]
            return answers[:change] if change < 0 else [answers[0], *answers]

    async def run() -> None:
        tasks = begin(BatchedLedger(Shifted()), *[query(take(str(n))) for n in range(3)])
        await asyncio.wait(tasks, timeout=60)

        assert [refused(task) for task in tasks] == ["ValueError"] * 3

    asyncio.run(run())


def test_a_query_that_cannot_be_written_is_its_callers_trouble() -> None:
    """It is refused before it comes near the others."""

    class Fussy(Scripted):
        def call(self, asked: Query) -> TakeCall:
            if asked.token_id == "bad":
                raise ValueError("no")
            return super().call(asked)

    async def run() -> None:
        remote = Fussy()
        ledger = BatchedLedger(remote)
        bad = Query("bad", PERSON, CLIENT, ISSUED, None, None, ())
        tasks = begin(ledger, query(take()), bad, query(take()))
        await settle()
        remote.let_go()
        await asyncio.wait(tasks)

        assert [left(tasks[n].result()) for n in (0, 2)] == [[2], [1]]
        assert isinstance(tasks[1].exception(), ValueError)

    asyncio.run(run())


def test_at_the_end_nobody_waits_for_ever() -> None:
    """A batch that is cancelled with the service is a fault for those in it."""

    async def run() -> None:
        remote = Scripted()
        ledger = BatchedLedger(remote)
        (task,) = begin(ledger, query())
        await settle()
        for batch in ledger._tasks:
            batch.cancel()
        await asyncio.wait([task])
        await ledger.aclose()

        assert refused(task) == "the service is ending"

    asyncio.run(run())


def test_a_batch_that_is_cancelled_before_it_begins_leaves_nobody_behind() -> None:
    """Nothing was sent for it, so those who wait for it go with the next one."""

    async def run() -> None:
        remote = Scripted()
        ledger = BatchedLedger(remote, max_concurrent=1)
        (task,) = begin(ledger, query(take()))
        await asyncio.sleep(0)
        for batch in ledger._tasks:
            batch.cancel()
        await settle()
        remote.let_go()

        assert left(await task) == [2]
        assert len(remote.batches) == 1

    asyncio.run(run())


# --- the model --------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchStep:
    """One thing that happens: somebody asks, is cancelled, or a batch is answered or fails."""

    what: str
    which: int = 0


def asked_for(which: int) -> Query:
    """Return one of twelve queries: admitted soon refused, revoked, without a step-up, costly."""
    name = f"bucket-{which % 3}"
    kind = which % 4
    if kind == 0:
        return query(take(name, quota=4), take("shared", quota=9))
    if kind == 1:
        return Query("revoked", PERSON, CLIENT, ISSUED, None, None, (take(name, quota=4),))
    if kind == 2:
        key = KEY if which % 3 else NOBODY
        return query(take(name, quota=4), need=TOTP, key=key)
    return query(take("shared", quota=9), take(name, quota=4, cost=3))


STEPS = st.lists(
    st.one_of(
        st.builds(BatchStep, st.just("ask"), st.integers(0, 11)),
        st.builds(BatchStep, st.just("cancel"), st.integers(0, 60)),
        st.builds(BatchStep, st.sampled_from(["answer", "fail", "crash", "turn"])),
    ),
    max_size=60,
)
FAILURES = {"fail": UnavailableError("redis", "TimeoutError"), "crash": RuntimeError("script")}


@pytest.mark.attack("error-in-a-shared-call")
@pytest.mark.attack("cancelled-caller")
@given(STEPS, st.integers(1, 5), st.integers(1, 3))
@examples(300)
def test_every_verdict_is_that_of_the_sequential_model(
    steps: list[BatchStep], largest: int, batches: int
) -> None:
    """Whoever is cancelled and whatever fails: who is answered is answered as one after another.

    What was sent is charged once, in the order of the batches, whether anybody hears of it or not.
    """

    async def run() -> None:
        remote = Scripted()
        await prepare(remote.in_memory)
        ledger = BatchedLedger(remote, max_batch=largest, max_concurrent=batches)
        tasks: list[tuple[Query, asyncio.Task[LedgerAnswer]]] = []
        for step in steps:
            if step.what == "ask":
                # A new object for each, so that a query in a batch tells whose it is.
                asked = asked_for(step.which)
                tasks.append((asked, asyncio.create_task(ledger.take(asked))))
            elif step.what == "cancel" and tasks:
                tasks[step.which % len(tasks)][1].cancel()
            elif step.what == "turn":
                await asyncio.sleep(0)
            else:
                remote.let_go(FAILURES.get(step.what))
                await settle()
        await settle()
        while remote.let_go():
            await settle()
        await ledger.aclose()
        await check(remote, tasks)

    asyncio.run(run())


async def prepare(in_memory: MemoryLedger) -> None:
    await in_memory.revoke(token_field("revoked"), Revocation())
    await in_memory.record_step_up(KEY, Method.TOTP, int(START), 600)


async def check(
    remote: Scripted, tasks: Sequence[tuple[Query, "asyncio.Task[LedgerAnswer]"]]
) -> None:
    model = MemoryLedger(lambda: START)
    await prepare(model)
    verdicts = dict[int, LedgerAnswer]()
    for sent in (one for batch in remote.batches for one in batch):
        assert id(sent) not in verdicts, "sent twice"
        verdicts[id(sent)] = await model.take(sent)
    for asked, task in tasks:
        assert task.done()
        if task.cancelled():
            continue
        error = task.exception()
        if error is None:
            assert without_mode(task.result()) == without_mode(verdicts[id(asked)])
        else:
            assert isinstance(error, UnavailableError)
    assert remote.in_memory._buckets._states == model._buckets._states


# --- on real servers --------------------------------------------------------------------------


async def together(ledger: BatchedLedger, asked: Sequence[Query]) -> list[LedgerAnswer]:
    return await asyncio.gather(*(ledger.take(one) for one in asked))


@given(st.lists(st.integers(0, 11), min_size=1, max_size=40))
@examples(25)
def test_one_script_call_answers_as_one_call_each(
    shared_server: ValkeyServer, which: list[int]
) -> None:
    """On a real server too, a mix in one batch is what it is one by one: verdicts and charges."""

    async def run() -> None:
        server = shared_server
        server.command("FLUSHALL")
        asked = [asked_for(one) for one in which]
        # The slots of a limit by the day do not move while this runs.
        async with (
            connected(patient(server, "one")) as one,
            connected(patient(server, "many")) as many,
        ):
            for remote in (one, many):
                await remote.revoke(token_field("revoked"), Revocation())
                await remote.record_step_up(KEY, Method.TOTP, int(START) - 600, 600)
            expected = [await one.take(each) for each in asked]

            found = await together(BatchedLedger(many), asked)

        assert [kind(each) for each in found] == [kind(each) for each in expected]
        assert stored(server, "one") == stored(server, "many")

    asyncio.run(run())


def kind(answer: LedgerAnswer) -> object:
    """Return the verdict without the seconds that pass between two of them."""
    return (type(answer), left(answer)) if isinstance(answer, Taken | OverLimit) else answer


def stored(server: ValkeyServer, deployment: str) -> dict[bytes, bytes]:
    names = server.command("KEYS", f"{{{deployment}}}:limit:*")
    return {name.partition(b":")[2]: server.command("GET", name) for name in names}


@pytest.fixture(scope="module")
def shared_server(shared):  # type: ignore[no-untyped-def]  # the conftest's factory
    """One server for all examples of a property."""
    return shared("valkey")


@pytest.mark.attack("exactly-100-of-2000")
def test_of_two_thousand_at_once_exactly_a_hundred_pass(
    server: ValkeyServer, deployment: str
) -> None:
    """Batches count as exactly as single ones."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as remote:
            answers = await together(
                BatchedLedger(remote), [query(take(quota=100), take("o", quota=9999))] * 2000
            )
            assert sum(isinstance(each, Taken) for each in answers) == 100
            assert sum(isinstance(each, OverLimit) for each in answers) == 1900
            assert left(await remote.take(query(take("o", quota=9999)))) == [9999 - 101]

    asyncio.run(run())


@pytest.mark.attack("wrongtype")
def test_a_broken_record_spoils_its_own_query_only(server: ValkeyServer, deployment: str) -> None:
    """Corrupt among sound ones: they are answered and charged, it is a fault."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as remote:
            key = remote._keys.bucket(take("broken").bucket)
            server.command("SET", key, "no count")
            ledger = BatchedLedger(remote)
            first, broken, last = begin(
                ledger, query(take("a")), query(take("broken")), query(take("a"))
            )
            await asyncio.wait([first, broken, last])

            assert [left(first.result()), left(last.result())] == [[2], [1]]
            assert isinstance(broken.exception(), CorruptRecordError)

    asyncio.run(run())


@pytest.mark.attack("redis-oom")
def test_an_error_in_one_query_is_nobody_elses(fragile: ValkeyServer) -> None:
    """Out of memory: what would charge is a fault, what denies is still told, in one batch."""

    async def run() -> None:
        async with connected(patient(fragile, "authz")) as remote:
            ledger = BatchedLedger(remote)
            await remote.revoke(token_field("revoked"), Revocation())
            await ledger.take(query(take("small", quota=1)))
            fragile.command("CONFIG", "SET", "maxmemory", "1")
            tasks = begin(
                ledger,
                query(take("new")),
                Query("revoked", PERSON, CLIENT, ISSUED, None, None, ()),
                query(take("new"), take("small", quota=1)),
                query(need=TOTP, key=NOBODY),
            )
            await asyncio.wait(tasks)

            assert refused(tasks[0]) == "OOM: it has no memory left"
            assert tasks[1].result() == Revoked("token")
            assert isinstance(tasks[2].result(), OverLimit)
            assert tasks[3].result() == StepUpMissing()
            fragile.command("CONFIG", "SET", "maxmemory", "0")
            assert left(await ledger.take(query(take("new")))) == [2]

    asyncio.run(run())


@pytest.mark.attack("noscript")
def test_a_forgotten_script_is_loaded_again(server: ValkeyServer, deployment: str) -> None:
    """The script for many is loaded as the one for one is, and charges once."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as remote:
            for _ in range(3):
                await remote.command("SCRIPT FLUSH")
                answers = await together(BatchedLedger(remote), [query(take(quota=1000))] * 50)
                assert all(isinstance(each, Taken) for each in answers)
            assert left(await remote.take(query(take(quota=1000)))) == [1000 - 151]

    asyncio.run(run())


@pytest.mark.attack("redis-frozen")
def test_a_frozen_server_is_waited_for_once(fragile: ValkeyServer) -> None:
    """All callers are refused after the time-out of the batches under way, and then it is used."""

    async def run() -> None:
        options = patient(fragile, "authz")
        async with connected(options) as remote:
            remote._deadline = Deadline(0.05, patient=True)
            ledger = BatchedLedger(remote)

            async def fails(one: Awaitable[LedgerAnswer]) -> bool:
                try:
                    await one
                except UnavailableError:
                    return True
                return False

            while await fails(ledger.take(query())):
                pass
            before = remote._lost_calls  # a busy machine's Redis may have been late until here
            fragile.freeze()
            found = await asyncio.gather(*(fails(ledger.take(query())) for _ in range(500)))
            assert all(found)
            assert remote._lost_calls - before <= 16
            fragile.thaw()
            async with asyncio.timeout(180):
                while await fails(ledger.take(query())):
                    pass

    asyncio.run(run())


@pytest.mark.attack("cancelled-caller")
@pytest.mark.parametrize("turns", [*range(10), 20, 40])
def test_cancelled_callers_shift_nobodys_answer(
    server: ValkeyServer, deployment: str, turns: int
) -> None:
    """Every caller has a cost of its own; wherever others are cancelled, it gets its answer."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as remote:
            ledger = BatchedLedger(remote, max_batch=7)
            asked = {cost: query(take(str(cost), quota=100, cost=cost)) for cost in range(1, 41)}
            tasks = {cost: asyncio.create_task(ledger.take(one)) for cost, one in asked.items()}
            for _ in range(turns):
                await asyncio.sleep(0)
            for cost, task in tasks.items():
                if cost % 3:
                    task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks.values(), return_exceptions=True)

            for cost, task in tasks.items():
                if not task.cancelled():
                    assert left(task.result()) == [100 - cost]
            await ledger.aclose()

    asyncio.run(run())


# --- the words of the script ------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="no answers"),
        pytest.param([[1, b"taken"]], id="one of two"),
        pytest.param([[1, b"taken"]] * 3, id="three of two"),
        pytest.param([[1, b"taken"], None], id="a hole"),
        pytest.param([[1, b"taken"], [1, b"admitted"]], id="an unknown word"),
        pytest.param([[1, b"taken"], [1, b"taken", b"x"]], id="a bucket too many"),
        pytest.param([[1, b"taken"], [1, b"error"]], id="an error with a time"),
        pytest.param(((1, b"taken"), (1, b"taken")), id="tuples"),
    ],
)
def test_an_odd_answer_is_a_fault_for_all(reply: object) -> None:
    """Where one place cannot be trusted, none can."""
    calls = BatchCall([TakeCall(RedisKeys("test"), query()) for _ in range(2)])

    with pytest.raises(UnavailableError):
        calls.read(reply)

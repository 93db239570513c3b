"""The writer loses nothing that its queue holds, and says what it loses."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from itertools import pairwise
from typing import Any, ParamSpec

import pytest

from authz.audit.chain import ChainedRecord, TrailKeys
from authz.audit.record import AuditEvent, AuditRecord, ChainLink, read_record
from authz.audit.store import LostRecordsError, TrailBound
from authz.audit.verify import TrailVerifier, verify_all
from authz.audit.writer import TrailWriter
from authz.core.ledger import UnavailableError
from authz.core.principal import Person

KEYS = TrailKeys((b"k",))
P = ParamSpec("P")
BOUND = TrailBound(1000, 86_400)
ADA = Person("https://auth.example.test", "ada")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop of its own."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Observed:
    """Keep what a writer tells."""

    def __init__(self) -> None:
        self.confirmed = self.missed = 0
        self.faults = list[str]()
        self.ends = list[tuple[str, ChainLink]]()
        self.crashes = list[Exception]()

    def written(self, records: int) -> None:
        self.confirmed += records

    def lost(self, records: int) -> None:
        self.missed += records

    def fault(self, detail: str) -> None:
        self.faults.append(detail)

    def head(self, chain: str, link: ChainLink) -> None:
        self.ends.append((chain, link))

    def crash(self, error: Exception) -> None:
        self.crashes.append(error)


class Backend:
    """What append.lua does (tests/audit/test_store.py), with faults on request."""

    def __init__(self) -> None:
        self.records = list[ChainedRecord]()
        self.chains = list[str]()
        self.lasts: dict[str, ChainLink] = {}
        self.away = False
        self.answers_late = 0  # how many calls run and get no reply
        self.called = asyncio.Event()

    async def append(
        self, chain: str, records: list[ChainedRecord], people: list[Person | None], keep: float
    ) -> int:
        self.called.set()
        if self.away:
            raise UnavailableError("redis", "away")
        last = self.lasts.get(chain, ChainLink(-1, "")).number
        if last + 1 < records[0].link.number:
            raise LostRecordsError(last)
        new = [each for each in records if each.link.number > last]
        self.records += new
        self.chains += [chain] * len(new)
        self.lasts[chain] = records[-1].link
        if self.answers_late:
            self.answers_late -= 1
            raise UnavailableError("redis", "late")
        return len(self.records)

    async def trim(self, length: int, bound: TrailBound, keys: TrailKeys, now: float) -> int:
        return 0

    async def heads(self) -> Mapping[str, ChainLink]:
        return self.lasts

    async def forget_floors(self, before: float) -> None:
        return

    def read(self) -> list[AuditRecord]:
        return [read_record(each.text) for each in self.records]


def writer(backend: Backend, observed: Observed, queue: int = 1000) -> TrailWriter:
    return TrailWriter(backend, BOUND, KEYS, observed, lambda: 1.0, queue=queue, gather=0, retry=0)


def told(records: list[AuditRecord]) -> list[str]:
    return [each.fields["tool"] for each in records if each.event is AuditEvent.DECISION]


def record(each: TrailWriter, tool: object) -> None:
    each.record(AuditEvent.DECISION, (("tool", str(tool)),), ADA)


async def until(backend: Backend) -> None:
    """Wait for the next call of the backend."""
    backend.called.clear()
    async with asyncio.timeout(60):
        await backend.called.wait()


async def until_true(condition: Callable[[], bool]) -> None:
    """Let the writer go on until something holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the writer has no event for it
            await asyncio.sleep(0)


@in_loop
async def test_everything_is_written_in_order_and_the_chain_ends() -> None:
    """More records than a batch holds, in their order; the last one says that it is the last."""
    backend, observed = Backend(), Observed()
    trail = writer(backend, observed)
    trail.start()
    for number in range(300):
        record(trail, number)
    await trail.aclose()

    assert told(backend.read()) == [str(number) for number in range(300)]
    assert backend.read()[0].event is AuditEvent.ANCHOR
    assert backend.read()[-1].event is AuditEvent.END
    assert observed.missed == trail.lost == 0
    assert observed.confirmed == len(backend.records)
    assert observed.ends[-1] == (backend.chains[0], backend.records[-1].link)


@pytest.mark.parametrize("late", [0, 1, 3])
@in_loop
async def test_what_the_queue_holds_survives_an_outage(late: int) -> None:
    """Redis is away, then runs calls without an answer: each record is there, and once."""
    backend, observed = Backend(), Observed()
    trail = writer(backend, observed)
    trail.start()
    backend.away = True
    for number in range(150):
        record(trail, number)
    await until(backend)
    await until(backend)
    backend.away, backend.answers_late = False, late
    await trail.aclose()

    assert told(backend.read()) == [str(number) for number in range(150)]
    assert trail.lost == 0
    assert observed.faults == ["away", *["late"] * bool(late), ""]
    entries = [(f"{n}-0", each.text, each.link.mac) for n, each in enumerate(backend.records)]
    assert not list(verify_all(TrailVerifier(KEYS, backend.lasts), entries, {}))


@in_loop
async def test_what_the_queue_does_not_hold_is_counted_and_told_by_the_trail() -> None:
    """A full queue loses the newest; a gap record says how many, where they would have been."""
    backend, observed = Backend(), Observed()
    trail = writer(backend, observed, queue=100)
    for number in range(130):
        record(trail, number)
    trail.start()
    await trail.aclose()

    assert told(backend.read()) == [str(number) for number in range(100)]
    assert trail.lost == observed.missed == 30
    (gap,) = [each for each in backend.read() if each.event is AuditEvent.GAP]
    assert gap.fields["lost"] == "30"


@in_loop
async def test_a_redis_that_lost_records_gets_a_new_chain_that_says_so() -> None:
    """The old chain's end is named in the new one, so that verification finds what is missing."""
    backend, observed = Backend(), Observed()
    trail = writer(backend, observed)
    trail.start()
    record(trail, "before")
    await until(backend)
    await until_true(lambda: len(backend.records) == 2)
    old = backend.chains[0]
    backend.records.clear()
    backend.chains.clear()
    backend.lasts.clear()
    record(trail, "after")
    await trail.aclose()

    gap, after, _ = backend.read()
    assert (gap.event, gap.fields["lost"]) == (AuditEvent.GAP, "2")
    assert after.fields["tool"] == "after"
    assert observed.missed == 2
    assert old not in backend.chains
    entries = [(f"{n}-0", each.text, each.link.mac) for n, each in enumerate(backend.records)]
    found = list(verify_all(TrailVerifier(KEYS, backend.lasts), entries, {}))
    assert [(each.chain, each.count) for each in found] == [(old, 2)]


@in_loop
async def test_what_cannot_be_written_at_the_end_is_counted() -> None:
    """A process that stops while Redis is away waits a moment, and counts what it leaves."""
    backend, observed = Backend(), Observed()
    trail = writer(backend, observed)
    backend.away = True
    trail.start()
    for number in range(10):
        record(trail, number)
    await until(backend)
    await trail.aclose(grace=0)

    assert backend.records == []
    assert observed.missed >= 10


@in_loop
async def test_a_second_process_names_the_end_of_the_first() -> None:
    """A chain that is removed with its head is missed by the others."""
    backend, observed = Backend(), Observed()
    for name in ("first", "second"):
        trail = writer(backend, observed)
        trail.start()
        record(trail, name)
        await trail.aclose()

    first, second = dict.fromkeys(backend.chains)
    anchor = next(
        each for each in backend.read() if each.chain == second and each.event is AuditEvent.ANCHOR
    )
    link = backend.lasts[first]
    assert anchor.fields["heads"] == f"{first}:{link.number}:{link.mac}"
    assert all(
        one.chain != other.chain or one.number + 1 == other.number
        for one, other in pairwise(backend.read())
    )


@in_loop
async def test_a_defect_ends_no_trail(monkeypatch: pytest.MonkeyPatch) -> None:
    """What raises in the background is logged, and the records after it are written."""
    backend, observed = Backend(), Observed()
    trail = writer(backend, observed)
    whole = Backend.append

    async def broken(*_: object) -> int:
        monkeypatch.setattr(Backend, "append", whole)
        raise RuntimeError

    monkeypatch.setattr(Backend, "append", broken)
    trail.start()
    record(trail, "first")
    await until_true(lambda: bool(observed.crashes))
    record(trail, "second")
    await trail.aclose()

    assert told(backend.read()) == ["second"]
    assert observed.missed == 2  # the anchor and the first

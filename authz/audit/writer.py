"""Write records in the background: a bounded queue, batches, and a chain for this process.

Invariant: whoever records waits for nothing; a record that the queue holds is written once Redis
answers, whatever happened to it meanwhile; one that is lost is counted, and a record of the trail
says how many (tests/audit/test_writer.py).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from authz.audit.chain import AuditChain, ChainedRecord, TrailKeys
from authz.audit.record import AuditEvent, ChainLink, Fields, body
from authz.audit.refusals import PERIOD, RefusalCounter, RefusedGroup
from authz.audit.store import LostRecordsError, TrailBound
from authz.audit.verify import write_links
from authz.core.ledger import UnavailableError
from authz.core.principal import Person

QUEUE: Final = 10_000  # records that wait in one process
_BATCH: Final = 64
_GATHER: Final = 0.1  # seconds in which records are gathered for one call
_RETRY: Final = 0.5
_ANCHOR: Final = 3600.0
_HEADS: Final = 64  # chains in an anchor
_FORGET: Final = 7 * 86_400.0  # seconds for which floors are kept beyond the records


class TrailBackend(Protocol):
    """Where records go; every method may raise UnavailableError."""

    async def append(
        self,
        chain: str,
        records: list[ChainedRecord],
        people: list[Person | None],
        keep: float,
    ) -> int:
        """Append records of a chain, each once; return the trail's length."""

    async def trim(self, length: int, bound: TrailBound, keys: TrailKeys, now: float) -> int:
        """Remove the oldest records beyond the bound; return how many."""

    async def heads(self) -> Mapping[str, ChainLink]:
        """Return the ends of all chains."""

    async def forget_floors(self, before: float) -> None:
        """Forget up to where chains were trimmed before a moment."""


class TrailObserver(Protocol):
    """Is told how the writing goes."""

    def written(self, records: int) -> None:
        """Records were confirmed."""

    def lost(self, records: int) -> None:
        """Records were lost."""

    def fault(self, detail: str) -> None:
        """Redis failed, or (empty) is back."""

    def head(self, chain: str, link: ChainLink) -> None:
        """Tell how far a chain is: for the log, which is not in Redis."""

    def crash(self, error: Exception) -> None:
        """Tell of a defect of the writer, which goes on."""


@dataclass(frozen=True, slots=True)
class _QueuedRecord:
    body: str
    time: float
    person: Person | None


class TrailWriter:
    """Write the trail of one process.

    Attributes:
        lost: records that were lost since the start.
    """

    def __init__(
        self,
        backend: TrailBackend,
        bound: TrailBound,
        keys: TrailKeys,
        observer: TrailObserver,
        clock: Callable[[], float] = time.time,
        *,
        queue: int = QUEUE,
        gather: float = _GATHER,
        retry: float = _RETRY,
    ) -> None:
        """Write nothing yet.

        Args:
            backend: where records go.
            bound: of the trail.
            keys: of the chain.
            observer: is told how it goes.
            clock: seconds since the epoch.
            queue: how many records may wait.
            gather: seconds in which records are gathered for one call.
            retry: seconds between two attempts while Redis is away.
        """
        self._backend = backend
        self._bound = bound
        self._keys = keys
        self._observer = observer
        self._clock = clock
        self._size = queue
        self._gather = gather
        self._retry = retry
        self._chain = AuditChain(keys.newest)
        self._queue: deque[_QueuedRecord] = deque()
        self._refusals = RefusalCounter()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unreported = 0  # lost records that no gap record tells of yet
        self._unreported_since = 0.0
        self._anchored_at = 0.0
        self._logged_head: ChainLink | None = None
        self._told_at = 0.0
        self._trimmed_at = 0.0
        self._counted_at = clock()
        self._sending = 0  # records of the call under way
        self.lost = 0
        self.fault = ""

    @property
    def waiting(self) -> int:
        """Return how many records wait."""
        return len(self._queue)

    def record(self, event: AuditEvent, fields: Fields, person: Person | None = None) -> None:
        """Take a record, at once; where too many wait, it is lost."""
        now = self._clock()
        if len(self._queue) >= self._size:
            self._lose(1, now)
            return
        self._queue.append(_QueuedRecord(body(event, fields), now, person))
        self._wake.set()

    def gets_own_record(self, group: RefusedGroup) -> bool:
        """Tell whether a refusal is to be a record of its own; else it is counted."""
        return self._refusals.gets_own_record(group, self._clock())

    def start(self) -> None:
        """Write from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def aclose(self, grace: float = 5.0) -> None:
        """Write what waits, for so many seconds at most, and end the chain."""
        if self._task is None:
            return
        self._stopping.set()
        self._wake.set()
        await asyncio.wait({self._task}, timeout=grace)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        left = len(self._queue) + self._sending
        if left:
            self._queue.clear()
            self._lose(left, self._clock())

    def _lose(self, records: int, now: float) -> None:
        if not self._unreported:
            self._unreported_since = now
        self._unreported += records
        self.lost += records
        self._observer.lost(records)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD):
                    await self._wake.wait()
            # More records may come meanwhile; the end does not wait for them.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._gather):
                    await self._stopping.wait()
            self._wake.clear()
            try:
                await self._write()
            except Exception as error:  # noqa: BLE001 - a defect must not end the trail
                self._observer.crash(error)
                await asyncio.sleep(self._retry)
        self._count_refusals()
        await self._anchor(self._clock())
        if self._queue or self._chain.head is not None:
            self._queue.append(_QueuedRecord(body(AuditEvent.END, ()), self._clock(), None))
        await self._drain()
        self._log_head()

    async def _write(self) -> None:
        now = self._clock()
        await self._anchor(now)
        if now - self._counted_at >= PERIOD:
            self._count_refusals()
        await self._drain()
        if now - self._told_at >= PERIOD:
            self._told_at = now
            self._log_head()

    def _count_refusals(self) -> None:
        self._counted_at = self._clock()
        for each in self._refusals.flush():
            self.record(AuditEvent.REFUSALS, each.fields)

    async def _anchor(self, now: float) -> None:
        """Name the ends of the other chains, so that these cannot be cut unseen."""
        has_begun = self._chain.head is not None
        if has_begun and now - self._anchored_at < _ANCHOR:
            return
        if not has_begun and not self._queue:
            return  # a process that records nothing leaves no chain
        try:
            heads = await self._backend.heads()
            await self._backend.forget_floors(now - self._bound.keep - _FORGET)
        except UnavailableError:
            return  # the next time
        self._anchored_at = now
        others = {name: link for name, link in heads.items() if name != self._chain.name}
        latest = dict(list(others.items())[-_HEADS:])
        text = write_links(latest)
        self._queue.appendleft(_QueuedRecord(anchor_body(text), now, None))

    async def _drain(self) -> None:
        while self._queue or self._unreported:
            batch = self._batch()
            records = [self._chain.add(each.body, each.time) for each in batch]
            await self._send(batch, records)

    def _batch(self) -> list[_QueuedRecord]:
        batch = list[_QueuedRecord]()
        if self._unreported:
            fields = (
                ("lost", str(self._unreported)),
                ("since", f"{self._unreported_since:.3f}"),
                ("until", f"{self._clock():.3f}"),
            )
            batch.append(_QueuedRecord(body(AuditEvent.GAP, fields), self._clock(), None))
            self._unreported = 0
        while self._queue and len(batch) < _BATCH:
            batch.append(self._queue.popleft())
        return batch

    async def _send(self, batch: list[_QueuedRecord], records: list[ChainedRecord]) -> None:
        """Send a batch until it is confirmed."""
        people = [each.person for each in batch]
        self._sending = len(batch)
        while True:
            try:
                length = await self._backend.append(
                    self._chain.name, records, people, self._bound.keep
                )
            except UnavailableError as error:
                self._report_fault(error.detail or error.dependency)
                await asyncio.sleep(self._retry)
            except LostRecordsError as error:
                batch, records = self._start_new_chain(batch, records, error.last)
                people = [each.person for each in batch]
            else:
                break
        self._sending = 0
        self._report_fault("")
        self._observer.written(len(records))
        await self._trim(length)

    def _start_new_chain(
        self, batch: list[_QueuedRecord], records: list[ChainedRecord], last: int
    ) -> tuple[list[_QueuedRecord], list[ChainedRecord]]:
        """Go on in a new chain, which says where the old one ended, after Redis lost data."""
        confirmed = records[0].link.number
        missing = confirmed - 1 - last
        old = f"{self._chain.name}:{confirmed - 1}:{records[0].previous}"
        self.lost += missing
        self._observer.lost(missing)
        now = self._clock()
        self._chain = AuditChain(self._keys.newest)
        self._logged_head = None
        fields = (("lost", str(missing)), ("detail", "Redis lost records"), ("heads", old))
        batch = [_QueuedRecord(body(AuditEvent.GAP, fields), now, None), *batch]
        return batch, [self._chain.add(each.body, each.time) for each in batch]

    async def _trim(self, length: int) -> None:
        now = self._clock()
        if length <= self._bound.most and now - self._trimmed_at < PERIOD:
            return
        self._trimmed_at = now
        with suppress(UnavailableError):
            await self._backend.trim(length, self._bound, self._keys, now)

    def _report_fault(self, detail: str) -> None:
        if detail != self.fault:
            self.fault = detail
            self._observer.fault(detail)

    def _log_head(self) -> None:
        head = self._chain.head
        if head is not None and head != self._logged_head and not self._queue:
            self._logged_head = head
            self._observer.head(self._chain.name, head)


def anchor_body(heads: str) -> str:
    """Return the body of a record that names the ends of other chains."""
    return body(AuditEvent.ANCHOR, (("heads", heads),), longest=8000)

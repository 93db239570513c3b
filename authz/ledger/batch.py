"""Batches of queries: what is asked while others are under way goes to Redis in one script call.

Invariant: an answer belongs to its query and to no other. A caller cancelled before the flush is
not asked for; one cancelled later is answered into the void, and the others notice nothing. Where a
batch fails, all in it and all who waited behind it get UnavailableError; no query is sent twice
(tests/ledger/test_batch.py).
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from authz.core.ledger import LedgerAnswer, Query, UnavailableError
from authz.ledger.script import TakeCall

# Queries of one batch: Redis serves nobody else while it answers them, about 20 µs each.
MAX_BATCH: Final = 64
# Batches under way at once: a second one is written while Redis answers the first.
MAX_CONCURRENT: Final = 2
# Queries that may wait for a batch; more than a worker can have in flight on a healthy Redis.
MAX_QUEUED: Final = 4096


class BatchBackend(Protocol):
    """Answer many queries at once (`RedisLedger`)."""

    def call(self, query: Query) -> TakeCall:
        """Return a query as a script call."""
        ...

    async def answer(self, calls: Sequence[TakeCall]) -> Sequence[LedgerAnswer | UnavailableError]:
        """Answer many queries, in their order; may raise UnavailableError for all of them."""
        ...


class _Waiter:
    __slots__ = ("answer", "call")

    def __init__(self, call: TakeCall, answer: asyncio.Future[LedgerAnswer]) -> None:
        self.call: Final = call
        self.answer: Final = answer


class BatchedLedger:
    """Answer queries as `RedisLedger` does, with fewer round trips."""

    def __init__(
        self,
        backend: BatchBackend,
        *,
        max_batch: int = MAX_BATCH,
        max_concurrent: int = MAX_CONCURRENT,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        """Wait for queries.

        Args:
            backend: Redis.
            max_batch: queries of one batch.
            max_concurrent: batches under way at once.
            max_queued: queries that may wait for one.
        """
        self._backend = backend
        self._max_batch = max_batch
        self._max_concurrent = max_concurrent
        self._max_queued = max_queued
        self._queue = deque[_Waiter]()
        self._tasks = set[asyncio.Task[None]]()
        self._pending: asyncio.Task[None] | None = None  # the flush that has not begun yet

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query, atomically.

        Raises:
            UnavailableError: where Redis gave no proper reply in time; it may have charged.
        """
        if len(self._queue) >= self._max_queued:
            raise UnavailableError("redis", "too many are waiting")
        # A query that cannot be encoded fails its own caller alone.
        call = self._backend.call(query)
        answer: asyncio.Future[LedgerAnswer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiter(call, answer))
        self._schedule()
        return await answer

    def _schedule(self) -> None:
        """Schedule a flush, where there is room for one and none is pending.

        It begins after all that is ready in this turn of the loop: that has been queued by then.
        """
        if self._pending is None and self._queue and len(self._tasks) < self._max_concurrent:
            self._pending = asyncio.create_task(self._flush())
            self._tasks.add(self._pending)
            self._pending.add_done_callback(self._flushed)

    def _next_batch(self) -> list[_Waiter]:
        batch = list[_Waiter]()
        while self._queue and len(batch) < self._max_batch:
            waiter = self._queue.popleft()
            # Nothing is charged for a caller that was cancelled.
            if not waiter.answer.done():
                batch.append(waiter)
        return batch

    async def _flush(self) -> None:
        batch = self._next_batch()
        self._pending = None
        self._schedule()  # for those this batch has no room for
        if not batch:
            return
        try:
            answers = await self._backend.answer([each.call for each in batch])
            # Before anybody is answered: in a list of another length answers could have shifted.
            answered = list(zip(batch, answers, strict=True))
        except UnavailableError as error:
            self._fail(batch, error)
        except Exception as fault:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._fail(batch, UnavailableError("redis", type(fault).__name__))
        except asyncio.CancelledError:
            self._fail(batch, UnavailableError("redis", "the service is ending"))
            raise
        else:
            for waiter, answer in answered:
                _resolve(waiter, answer)

    def _fail(self, batch: Sequence[_Waiter], error: UnavailableError) -> None:
        for waiter in batch:
            _resolve(waiter, error)
        # They do not each wait for a time-out of their own.
        while self._queue:
            _resolve(
                self._queue.popleft(), UnavailableError("redis", "an earlier call had no answer")
            )

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task is self._pending:  # cancelled before it began: its callers still need a flush
            self._pending = None
        self._schedule()

    async def aclose(self) -> None:
        """Let the batches under way end."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _resolve(waiter: _Waiter, answer: LedgerAnswer | UnavailableError) -> None:
    if waiter.answer.done():
        return
    if isinstance(answer, UnavailableError):
        # One for each: an exception that many raise would gather all their frames.
        waiter.answer.set_exception(type(answer)(answer.dependency, answer.detail))
    else:
        waiter.answer.set_result(answer)

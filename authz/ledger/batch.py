"""Shared trips to Redis: what is asked while others are under way goes there in one script call.

Law: a verdict belongs to the place of its question and to nobody else. Who is cancelled before
the trip is not asked for, who is cancelled during it is answered into the void; the others notice
nothing. A trip that fails is a fault for all in it and for all who waited behind it, and nobody
is sent twice.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from authz.core.ledger import LedgerAnswer, Query, UnavailableError
from authz.ledger.data_loss import MergeRequest, ReadRequest, StoredRevocations
from authz.ledger.script import TakeCall

# Queries of one trip: Redis serves nobody else while it answers them, about 20 µs each.
LARGEST: Final = 64
# Trips under way at once: a second one is written while Redis answers the first.
TRIPS: Final = 2
# Those who may wait for a trip; more than a worker can have in flight on a healthy Redis.
LONGEST: Final = 4096


class Remote(Protocol):
    """Answer many queries at once, and tell the revocations (`RedisLedger`)."""

    def call(self, query: Query) -> TakeCall:
        """Return a query in the script's words."""
        ...

    async def answer(self, calls: Sequence[TakeCall]) -> Sequence[LedgerAnswer | UnavailableError]:
        """Answer many queries, each at its place.

        Raises:
            UnavailableError: where no proper answer came in time.
        """
        ...

    async def read(self, question: ReadRequest) -> StoredRevocations:
        """Return the revocations as they are stored, and leave the reader's mark."""
        ...

    async def mark(self, reader: str) -> bytes:
        """Return the mark that a reader has left; empty where there is none."""
        ...

    async def merge(self, merge: MergeRequest) -> int | None:
        """Write revocations that were lost; return how many, None where another was quicker."""
        ...


class _Waiting:
    __slots__ = ("answer", "call")

    def __init__(self, call: TakeCall, answer: asyncio.Future[LedgerAnswer]) -> None:
        self.call: Final = call
        self.answer: Final = answer


class BatchedLedger:
    """Answer queries as `RedisLedger` does, with fewer trips."""

    def __init__(
        self, remote: Remote, *, largest: int = LARGEST, trips: int = TRIPS, longest: int = LONGEST
    ) -> None:
        """Wait for queries.

        Args:
            remote: Redis.
            largest: queries of one trip.
            trips: trips at once.
            longest: how many may wait for one.
        """
        self._remote = remote
        self._largest = largest
        self._trips = trips
        self._longest = longest
        self._queue = deque[_Waiting]()
        self._under_way = set[asyncio.Task[None]]()
        self._boarding: asyncio.Task[None] | None = None  # the trip that has not begun yet

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query, atomically.

        Raises:
            UnavailableError: where Redis gave no proper answer in time; it may have charged.
        """
        if len(self._queue) >= self._longest:
            raise UnavailableError("redis", "too many are waiting")
        # What cannot be written is its caller's trouble alone.
        call = self._remote.call(query)
        answer: asyncio.Future[LedgerAnswer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(call, answer))
        self._depart()
        return await answer

    async def read(self, question: ReadRequest) -> StoredRevocations:
        """Return the revocations as they are stored, and leave the reader's mark.

        Raises:
            UnavailableError: where Redis did not answer; it may have left the mark.
        """
        return await self._remote.read(question)

    async def mark(self, reader: str) -> bytes:
        """Return the mark that a reader has left; empty where there is none.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        return await self._remote.mark(reader)

    async def merge(self, merge: MergeRequest) -> int | None:
        """Write revocations that were lost; return how many, None where another was quicker.

        Raises:
            UnavailableError: where Redis did not confirm it; it may have written them.
        """
        return await self._remote.merge(merge)

    def _depart(self) -> None:
        """Call a trip, where there is room for one and none is boarding.

        It begins after all that is ready in this turn: that has been asked by then.
        """
        if self._boarding is None and self._queue and len(self._under_way) < self._trips:
            self._boarding = asyncio.create_task(self._travel())
            self._under_way.add(self._boarding)
            self._boarding.add_done_callback(self._arrived)

    def _board(self) -> list[_Waiting]:
        aboard = list[_Waiting]()
        while self._queue and len(aboard) < self._largest:
            one = self._queue.popleft()
            # Who was cancelled is not charged for what nobody waits for.
            if not one.answer.done():
                aboard.append(one)
        return aboard

    async def _travel(self) -> None:
        aboard = self._board()
        self._boarding = None
        self._depart()  # for whom this one has no room
        if not aboard:
            return
        try:
            answers = await self._remote.answer([one.call for one in aboard])
            # Before anybody is told: a list of another length could have shifted.
            told = list(zip(aboard, answers, strict=True))
        except UnavailableError as error:
            self._fail(aboard, error)
        except Exception as fault:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._fail(aboard, UnavailableError("redis", type(fault).__name__))
        except asyncio.CancelledError:
            self._fail(aboard, UnavailableError("redis", "the service is ending"))
            raise
        else:
            for one, answer in told:
                _tell(one, answer)

    def _fail(self, aboard: Sequence[_Waiting], error: UnavailableError) -> None:
        for one in aboard:
            _tell(one, error)
        # They do not each wait for a time-out of their own.
        while self._queue:
            _tell(self._queue.popleft(), UnavailableError("redis", "an earlier call had no answer"))

    def _arrived(self, trip: asyncio.Task[None]) -> None:
        self._under_way.discard(trip)
        if trip is self._boarding:  # cancelled before it began; who asked is not left behind
            self._boarding = None
        self._depart()

    async def aclose(self) -> None:
        """Let the trips under way end."""
        await asyncio.gather(*self._under_way, return_exceptions=True)


def _tell(one: _Waiting, answer: LedgerAnswer | UnavailableError) -> None:
    if one.answer.done():
        return
    if isinstance(answer, UnavailableError):
        # One for each: an exception that many raise would gather all their frames.
        one.answer.set_exception(type(answer)(answer.dependency, answer.detail))
    else:
        one.answer.set_result(answer)

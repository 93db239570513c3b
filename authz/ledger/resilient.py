"""The ledger that goes on while Redis is away, in the mode that the operator declared.

Law: nothing but `UnavailableError` is raised, and no caller waits longer for a broken Redis than
    for a
slow one. While Redis is away, revocations known so far hold, and so do the sessions that this
worker has seen; one that it has not seen is bound by it alone. What needs a step-up record is
refused, and after `max_away` everything is. A worker that never read the revocations answers
nothing on its own.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol

from authz.core.ledger import (
    Ledger,
    LedgerAnswer,
    Mode,
    OverLimit,
    Query,
    SessionOfAnother,
    Taken,
    UnavailableError,
)
from authz.core.limits import MAX_UNITS, Limit, Per, Quota, Take, charges
from authz.core.principal import Client
from authz.ledger.data_loss import (
    DataLoss,
    DataSetTracker,
    MergeRequest,
    ReadRequest,
    StoredRevocations,
    merge_revocations,
)
from authz.ledger.records import CorruptRecordError, Revocation, read_revocation, revoked
from authz.ledger.sessions import SessionBindings


class OutagePolicy(Enum):
    """Name what happens to limits while Redis is away (`redis.when_away`)."""

    LOCAL = "local"
    DENY = "deny"
    ALLOW = "allow"


_MODES: Final[Mapping[OutagePolicy, Mode | None]] = {
    OutagePolicy.LOCAL: Mode.LOCAL,
    OutagePolicy.DENY: None,
    OutagePolicy.ALLOW: Mode.UNLIMITED,
}

_SESSIONS: Final = 16_384

# Asks for a charge that nobody minds: a replica or a full Redis answers reads, but not this.
PROBE: Final = Query(
    token_id="",
    person=None,
    client=Client("", ""),
    issued_at=2**53,
    step_up_key=None,
    step_up=None,
    takes=(Take("probe", Limit("probe", Per.CLIENT, MAX_UNITS, 1)),),
)


@dataclass(frozen=True, slots=True)
class OutageOptions:
    """Say what to do while Redis is away.

    Attributes:
        mode: what happens to limits.
        workers: by how many processes a quota is shared while each counts for itself.
        max_away: seconds after which everything is refused.
        pause: seconds after a failure before Redis is asked again, by one caller.
        refresh: seconds between two readings of the revocations.
        probe: seconds between two charges that nobody asked for, so that it shows without traffic
            whether Redis is there and takes charges.
        tolerated: trips in a row that may fail without Redis counting as away: one slow answer, or
            one connection that was closed, says nothing of the next.
    """

    mode: OutagePolicy = OutagePolicy.LOCAL
    workers: int = 1
    max_away: float = 300
    pause: float = 0.25
    refresh: float = 5
    probe: float = 1
    tolerated: int = 1


class Remote(Ledger, Protocol):
    """Answer queries, and tell the revocations (`RedisLedger`)."""

    async def read(self, question: ReadRequest) -> StoredRevocations:
        """Return the revocations as they are stored, and leave the reader's mark.

        Raises:
            UnavailableError: where they cannot be had.
        """
        ...

    async def mark(self, reader: str) -> bytes:
        """Return the mark that a reader has left; empty where there is none."""
        ...

    async def merge(self, merge: MergeRequest) -> int | None:
        """Write revocations that were lost; return how many, None where another was quicker."""
        ...


class ResilientLedger:
    """Ask Redis; while it is away, answer as declared, and come back without help."""

    def __init__(
        self,
        remote: Remote,
        twin: Ledger,
        options: OutageOptions,
        clock: Callable[[], float],
        on_error: Callable[[UnavailableError], None] = lambda _: None,
        *,
        on_lost: Callable[[DataLoss, int], None] = lambda _, __: None,
    ) -> None:
        """Begin as if Redis were there.

        Args:
            remote: Redis.
            twin: counts limits while Redis is away, for this worker.
            options: what to do then.
            clock: monotonic seconds.
            on_error: told every failure of Redis.
            on_lost: told that Redis had lost data, and how many revocations were written to it
                again.
        """
        self._remote = remote
        self._twin = twin
        self._options = options
        self._clock = clock
        self._on_error = on_error
        self._on_lost = on_lost
        self._reader = DataSetTracker()
        # What became of the data set, and how many revocations it lacks; until that is mended.
        self._lost: tuple[DataLoss, int] | None = None
        self._sessions = SessionBindings(_SESSIONS)  # that this worker has admitted requests of
        self._revocations: Mapping[bytes, Revocation] = {}
        self._read_at: float | None = None  # when the revocations were read
        self._away_since: float | None = None  # the first failure since the last charge
        self._fault = ""  # what was wrong at the last failure, while Redis is away
        self._faults = 0  # of all time, and how many there were when the revocations were read
        self._faults_at_reading = 0
        self._failures = 0  # in a row, of trips that followed each other
        self._failed_at = 0.0  # the last of them
        self._ask_at: float | None = None  # None: at once, by everybody; else by one, from then on
        self._probing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def mode(self) -> Mode | None:
        """Return who counts at the moment; None where everything is refused."""
        if self._away_since is None:
            return Mode.REDIS
        return _MODES[self._options.mode] if self._may_answer() else None

    @property
    def fault(self) -> str:
        """Return what is wrong with Redis while it is away, in fixed words; empty where nothing."""
        return "" if self._away_since is None else self._fault

    @property
    def is_failing(self) -> bool:
        """Tell whether the last trip failed, or Redis is away."""
        return self._failures > 0 or self._away_since is not None

    @property
    def lost(self) -> DataLoss | None:
        """Return how Redis lost data that is not written to it again yet; None where it has all."""
        return None if self._lost is None else self._lost[0]

    @property
    def has_read(self) -> bool:
        """Tell whether the revocations were ever read."""
        return self._read_at is not None

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query.

        Raises:
            UnavailableError: where Redis is away and the declared mode, or the time it has been
                away, gives no answer.
        """
        if not self._may_ask():
            return await self._answer(query)
        probe = self._probing = self._ask_at is not None
        began = self._clock()
        answer: LedgerAnswer | None = None
        try:
            answer = await self._remote.take(query)
        except UnavailableError as error:
            self._failed(error, began)
        finally:
            # Also where the caller was cancelled: the next one asks.
            if probe:
                self._probing = False
        if answer is None:
            return await self._answer(query)
        self._ask_at = None
        self._failures = 0
        # Only a charge proves that Redis is whole: a replica answers everything else.
        if isinstance(answer, Taken):
            self._away_since = None
            found = revoked(self._revocations, query) if self._may_lack else None
            if found is not None:
                return found
            if query.session is not None:
                self._sessions.use(query.session, self._clock())
        return answer

    @property
    def _may_lack(self) -> bool:
        """Tell whether Redis may lack revocations that are known here."""
        return self._lost is not None or self._faults != self._faults_at_reading

    def _may_ask(self) -> bool:
        if self._ask_at is None:
            return True
        return not self._probing and self._clock() >= self._ask_at

    def _failed(self, error: UnavailableError, began: float) -> None:
        """Take notice of a failure of a call that began at a moment."""
        self._on_error(error)
        if isinstance(error, CorruptRecordError):
            return  # one broken record says nothing of the others
        self._faults += 1
        now = self._clock()
        self._fault = error.detail
        if self._failures <= self._options.tolerated:
            # Calls of one trip fail together, and count as one failure.
            if self._failures == 0 or began > self._failed_at:
                self._failures += 1
                self._failed_at = now
            if self._failures <= self._options.tolerated:
                return
        self._ask_at = now + self._options.pause
        if self._away_since is None:
            self._away_since = now

    def _may_answer(self) -> bool:
        """Tell whether what this worker knows is fresh enough to answer by."""
        oldest = self._clock() - self._options.max_away
        away = self._away_since
        return (
            self._read_at is not None
            and self._read_at >= oldest
            and (away is None or away >= oldest)
        )

    async def _answer(self, query: Query) -> LedgerAnswer:
        """Answer without Redis."""
        if self._options.mode is OutagePolicy.DENY or not self._may_answer():
            raise UnavailableError("redis", "away")
        found = revoked(self._revocations, query)
        if found is not None:
            return found
        session, now = query.session, self._clock()
        if session is not None and self._sessions.is_of_another(session, now):
            return SessionOfAnother()
        if query.step_up is not None:
            raise UnavailableError("redis", "step-ups cannot be read")
        if self._options.mode is OutagePolicy.ALLOW:
            untouched = (Quota(each.limit, each.limit.quota, 0) for each in query.takes)
            answer: LedgerAnswer = Taken(tuple(untouched), Mode.UNLIMITED)
        else:
            answer = await self._share(replace(query, session=None))
        if session is not None and isinstance(answer, Taken):
            self._sessions.use(session, now)
        return answer

    async def _share(self, query: Query) -> LedgerAnswer:
        """Let the twin count this worker's share of every quota."""
        shares = {
            each.bucket: min(
                each.limit.quota, max(each.cost, each.limit.quota // self._options.workers)
            )
            for each in charges(query.takes)
        }
        takes = tuple(
            Take(each.bucket, replace(each.limit, quota=shares[each.bucket]))
            for each in query.takes
        )
        answer = await self._twin.take(replace(query, takes=takes))
        if not isinstance(answer, Taken | OverLimit):
            return answer
        # The policy that is told to clients does not change, only what is left of it.
        quotas = (
            replace(quota, limit=each.limit)
            for quota, each in zip(answer.quotas, query.takes, strict=True)
        )
        return replace(answer, quotas=tuple(quotas))

    async def refresh(self) -> None:
        """Read the revocations; where Redis is away, also try whether it is back."""
        if self._away_since is not None:
            await self.probe()
        try:
            await self._read()
        except UnavailableError as error:
            self._on_error(error)

    async def _read(self) -> None:
        """Read the revocations; where Redis has lost data, write those that are known again.

        What was lifted stays so: it is known of no data set that holds the reader's mark.
        """
        faults = self._faults
        reading = await self._remote.read(self._reader.question)
        if self._reader.is_repeated(reading):
            reading = await self._remote.read(self._reader.question)
        found = {target: read_revocation(value) for target, value in reading.values.items()}
        if self._reader.follow(reading):
            self._keep(found, faults)
            self._tell_loss()
            return
        revocations, changes = merge_revocations(self._revocations, found, reading.values)
        merge = self._reader.merge(reading, changes)
        # Here they hold, whether or not Redis takes them.
        self._lost = merge.loss, sum(each.found != each.wanted for each in changes)
        self._keep(revocations, faults)
        written = await self._remote.merge(merge)
        if written is not None:
            self._reader.confirm(merge)
            self._lost = merge.loss, written
            self._tell_loss()

    def _keep(self, revocations: Mapping[bytes, Revocation], faults: int) -> None:
        """Keep what was read, or merged, when there had been so many faults."""
        self._revocations = revocations
        self._read_at = self._clock()
        self._faults_at_reading = faults

    def _tell_loss(self) -> None:
        """Say what Redis had lost, where it has all again."""
        lost, self._lost = self._lost, None
        if lost is not None:
            self._on_lost(*lost)

    async def _is_to_be_read(self) -> bool:
        """Tell whether Redis may not hold all that was read from it."""
        if self._may_lack:
            return True
        try:
            return await self._remote.mark(self._reader.name) not in self._reader.accepted
        except UnavailableError:
            return False  # the probe tells

    async def probe(self) -> None:
        """Try a charge of our own: only that tells whether Redis is whole."""
        with suppress(UnavailableError):
            await self.take(PROBE)

    async def start(self) -> None:
        """Read the revocations once, then keep reading them in the background."""
        await self.refresh()
        self._task = asyncio.create_task(self._keep_reading(), name="revocations")

    async def aclose(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _keep_reading(self) -> None:
        left = self._options.refresh
        while True:
            await asyncio.sleep(self._options.probe)
            await self.probe()
            left -= self._options.probe
            if left <= 0 or (self._away_since is None and await self._is_to_be_read()):
                left = self._options.refresh
                await self.refresh()

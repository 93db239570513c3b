"""The ledger that goes on in degraded mode while Redis is down, as the operator declared.

Invariant: nothing but UnavailableError is raised, and no caller waits longer for a broken Redis
than for a slow one. In degraded mode the revocations read last still hold, and so do the sessions
that this worker has seen; what needs a step-up or an approval is refused, and after `max_away`
everything is. A worker that never read the revocations answers nothing by itself
(tests/ledger/test_resilient.py).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

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
from authz.core.limits import MAX_UNITS, Limit, OutagePolicy, Per, Quota, Take, charges
from authz.core.principal import Client
from authz.ledger.data_loss import DataLoss, DataSetTracker, RevocationSource, merge_revocations
from authz.ledger.late_charges import LateCharger, LateCharges
from authz.ledger.records import CorruptRecordError, Revocation, read_revocation, revoked
from authz.ledger.sessions import SessionBindings
from authz.process.ticks import next_tick

_MODES: Final[Mapping[OutagePolicy, Mode | None]] = {
    OutagePolicy.LOCAL: Mode.LOCAL,
    OutagePolicy.DENY: None,
    OutagePolicy.ALLOW: Mode.UNLIMITED,
}

_SESSIONS: Final = 16_384

# A charge that concerns nobody: a replica or a full Redis answers reads, but not this.
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
    """What to do while Redis is down.

    Attributes:
        policy: what happens to limits that do not say it themselves.
        workers: how many processes share a quota while each counts for itself, of all replicas.
        max_away: seconds after which everything is refused.
        pause: seconds after a failure before one caller asks Redis again.
        refresh: seconds between two readings of the revocations.
        probe: seconds between two probes, which show without traffic whether Redis takes charges.
        tolerated: calls in a row that may fail before degraded mode begins: one slow answer, or
            one closed connection, says nothing of the next.
    """

    policy: OutagePolicy = OutagePolicy.LOCAL
    workers: int = 1
    max_away: float = 300
    pause: float = 0.25
    refresh: float = 5
    probe: float = 1
    tolerated: int = 1


class ResilientLedger:
    """Ask Redis; while it is down, answer by the outage policy, and recover without help."""

    def __init__(
        self,
        remote: Ledger,
        source: RevocationSource,
        in_memory: Ledger,
        options: OutageOptions,
        clock: Callable[[], float],
        *,
        on_error: Callable[[UnavailableError], None] = lambda _: None,
        on_lost: Callable[[DataLoss, int], None] = lambda _, __: None,
        on_probe: Callable[[float], None] = lambda _: None,
        on_revoked: Callable[[Mapping[bytes, Revocation]], None] = lambda _: None,
        on_outage: Callable[[str, float], None] = lambda _, __: None,
        late: LateCharger | None = None,
        on_late: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Begin as if Redis were up.

        Args:
            remote: answers queries by Redis.
            source: the revocations in Redis.
            in_memory: counts limits in degraded mode, for this worker.
            options: what to do then.
            clock: monotonic seconds.
            on_error: called with every failure of Redis.
            on_lost: called once a data loss is repaired, with the number of revocations that were
                written to Redis again.
            on_probe: called with the seconds of each probe that Redis answered.
            on_revoked: called with the revocations that are new since the last reading.
            on_outage: called as degraded mode begins, with the fault, and as it ends, with an
                empty text and the seconds that it took.
            late: charges afterwards what was admitted in degraded mode; None for nobody.
            on_late: called with the number of units that were.
        """
        self._remote = remote
        self._source = source
        self._in_memory = in_memory
        self._options = options
        self._clock = clock
        self._on_error = on_error
        self._on_lost = on_lost
        self._on_probe = on_probe
        self._on_revoked = on_revoked
        self._on_outage = on_outage
        self._late = late
        self._on_late = on_late
        self._owed = LateCharges()  # what was admitted here, and never sent to Redis
        self._tracker = DataSetTracker()
        # How Redis lost data, and how many revocations it lacks; None once that is repaired.
        self._lost: tuple[DataLoss, int] | None = None
        self._sessions = SessionBindings(_SESSIONS)  # of requests that this worker admitted
        self._revocations: Mapping[bytes, Revocation] = {}
        self._read_at: float | None = None  # when the revocations were read
        self._degraded_since: float | None = None  # the first failure since the last charge
        self._fault = ""  # what was wrong at the last failure, in degraded mode
        self._faults = 0  # of all time, and how many there were when the revocations were read
        self._faults_at_reading = 0
        self._failures = 0  # in a row, of calls that followed each other
        self._failed_at = 0.0  # the last of them
        self._retry_at: float | None = None  # when one caller may ask again; None: everybody may
        self._probing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def mode(self) -> Mode | None:
        """Return who counts at the moment; None where everything is refused."""
        if self._degraded_since is None:
            return Mode.REDIS
        return _MODES[self._options.policy] if self._is_fresh() else None

    @property
    def fault(self) -> str:
        """Return what is wrong with Redis in degraded mode, in fixed words; else an empty text."""
        return "" if self._degraded_since is None else self._fault

    @property
    def is_failing(self) -> bool:
        """Tell whether the last call failed, or degraded mode is on."""
        return self._failures > 0 or self._degraded_since is not None

    @property
    def lost(self) -> DataLoss | None:
        """Return how Redis lost data that is not restored yet; None where it has all."""
        return None if self._lost is None else self._lost[0]

    @property
    def has_read(self) -> bool:
        """Tell whether the revocations were ever read."""
        return self._read_at is not None

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query.

        Raises:
            UnavailableError: where Redis is down and the policy, or `max_away`, gives no answer.
        """
        if not self._may_ask():
            return await self._answer(query, sent=False)
        probe = self._probing = self._retry_at is not None
        began = self._clock()
        answer: LedgerAnswer | None = None
        try:
            answer = await self._remote.take(query)
        except UnavailableError as error:
            self._record_failure(error, began)
        finally:
            # Also where the caller was cancelled: the next one asks.
            if probe:
                self._probing = False
        if answer is None:
            return await self._answer(query, sent=True)
        self._retry_at = None
        self._failures = 0
        if isinstance(answer, Taken):
            # Only a charge proves that Redis is whole: a replica answers everything else, and so
            # a query that charges nothing.
            if query.takes:
                self._end_outage()
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
        if self._retry_at is None:
            return True
        return not self._probing and self._clock() >= self._retry_at

    def _record_failure(self, error: UnavailableError, began: float) -> None:
        """Count the failure of a call that began at a moment."""
        self._on_error(error)
        if isinstance(error, CorruptRecordError):
            return  # one broken record says nothing of the others
        self._faults += 1
        now = self._clock()
        self._fault = error.detail
        if self._failures <= self._options.tolerated:
            # Calls of one batch fail together, and count as one failure.
            if self._failures == 0 or began > self._failed_at:
                self._failures += 1
                self._failed_at = now
            if self._failures <= self._options.tolerated:
                return
        self._retry_at = now + self._options.pause
        if self._degraded_since is None:
            self._degraded_since = now
            self._on_outage(error.detail, 0.0)

    def _end_outage(self) -> None:
        since, self._degraded_since = self._degraded_since, None
        if since is not None:
            self._on_outage("", self._clock() - since)

    def _is_fresh(self) -> bool:
        """Tell whether what this worker knows is recent enough to answer by."""
        oldest = self._clock() - self._options.max_away
        since = self._degraded_since
        return (
            self._read_at is not None
            and self._read_at >= oldest
            and (since is None or since >= oldest)
        )

    async def _answer(self, query: Query, *, sent: bool) -> LedgerAnswer:
        """Answer without Redis; what was sent may have been charged there."""
        policies = [self._policy_of(each.limit) for each in query.takes]
        enforced = [
            policy
            for each, policy in zip(query.takes, policies, strict=True)
            if not each.limit.shadow  # it neither refuses nor lets anything pass
        ]
        if OutagePolicy.DENY in (enforced or [self._options.policy]) or not self._is_fresh():
            raise UnavailableError("redis", "away")
        found = revoked(self._revocations, query)
        if found is not None:
            return found
        session, now = query.session, self._clock()
        if session is not None and self._sessions.is_of_another(session, now):
            return SessionOfAnother()
        if query.step_up is not None:
            raise UnavailableError("redis", "step-ups cannot be read")
        if query.approval is not None:
            raise UnavailableError("redis", "approvals cannot be read")
        answer = await self._count(query, policies)
        if not sent and query is not PROBE and self._late is not None:
            self._owe(query, policies, answer)
        if session is not None and isinstance(answer, Taken):
            self._sessions.use(session, now)
        return answer

    def _policy_of(self, limit: Limit) -> OutagePolicy:
        policy = limit.outage or self._options.policy
        return OutagePolicy.LOCAL if limit.shadow and policy is OutagePolicy.DENY else policy

    def _owe(self, query: Query, policies: Sequence[OutagePolicy], answer: LedgerAnswer) -> None:
        """Keep what was charged here, to be charged in Redis."""
        if isinstance(answer, Taken) and answer.mode is Mode.LOCAL:
            counted = zip(query.takes, policies, answer.quotas, strict=True)
            self._owed.add(
                [
                    take
                    for take, policy, quota in counted
                    if policy is OutagePolicy.LOCAL and not quota.exceeded
                ],
                self._clock(),
            )

    async def charge_late(self) -> None:
        """Charge what was admitted in degraded mode, once Redis takes charges again."""
        charged = 0
        try:
            while self._late is not None and self._degraded_since is None:
                batch = self._owed.next(self._clock())
                if batch is None:
                    break
                charged += await self._late.charge_late(batch)
                self._owed.confirm(batch)
        except UnavailableError as error:
            self._on_error(error)  # the same batch is sent again later
        if charged:
            self._on_late(charged)

    async def _count(self, query: Query, policies: Sequence[OutagePolicy]) -> LedgerAnswer:
        """Charge the limits that are counted here; those of policy ALLOW stay untouched."""
        takes = zip(query.takes, policies, strict=True)
        counted = tuple(take for take, policy in takes if policy is OutagePolicy.LOCAL)
        default = self._options.policy
        if not counted and (default is OutagePolicy.ALLOW or OutagePolicy.ALLOW in policies):
            untouched = (_untouched(each) for each in query.takes)
            return Taken(tuple(untouched), Mode.UNLIMITED)
        answer = await self._take_share(replace(query, session=None, takes=counted))
        if not isinstance(answer, Taken | OverLimit) or len(counted) == len(query.takes):
            return answer
        told = iter(answer.quotas)
        quotas = [
            next(told) if policy is OutagePolicy.LOCAL else _untouched(each)
            for each, policy in zip(query.takes, policies, strict=True)
        ]
        return replace(answer, quotas=tuple(quotas))

    async def _take_share(self, query: Query) -> LedgerAnswer:
        """Charge this worker's share of every quota, in memory."""
        workers = self._options.workers
        shares = {
            each.bucket: min(each.limit.quota, max(each.cost, each.limit.quota // workers))
            for each in charges(query.takes)
        }
        takes = tuple(
            replace(each, limit=replace(each.limit, quota=shares[each.bucket]))
            for each in query.takes
        )
        answer = await self._in_memory.take(replace(query, takes=takes))
        if not isinstance(answer, Taken | OverLimit):
            return answer
        # Clients are shown the limit of the policy, not the share; only what remains differs.
        quotas = (
            replace(quota, limit=each.limit)
            for quota, each in zip(answer.quotas, query.takes, strict=True)
        )
        return replace(answer, quotas=tuple(quotas))

    async def refresh(self) -> None:
        """Read the revocations; in degraded mode, also try whether Redis is back."""
        if self._degraded_since is not None:
            await self.probe()
        try:
            await self._read()
        except UnavailableError as error:
            self._on_error(error)

    async def _read(self) -> None:
        """Read the revocations; where Redis has lost data, restore those that are known.

        What was lifted stays lifted: no data set with this reader's mark still has it.
        """
        faults = self._faults
        reading = await self._source.read(self._tracker.read_request)
        if self._tracker.is_repeated(reading):
            reading = await self._source.read(self._tracker.read_request)
        found = {target: read_revocation(value) for target, value in reading.values.items()}
        if self._tracker.follow(reading):
            self._store(found, faults)
            self._report_loss()
            return
        revocations, changes = merge_revocations(self._revocations, found, reading.values)
        merge = self._tracker.merge_request(reading, changes)
        # Here they hold, whether or not Redis takes them.
        self._lost = merge.loss, sum(each.found != each.wanted for each in changes)
        self._store(revocations, faults)
        written = await self._source.merge(merge)
        if written is not None:
            self._tracker.confirm(merge)
            self._lost = merge.loss, written
            self._report_loss()

    def _store(self, revocations: Mapping[bytes, Revocation], faults: int) -> None:
        """Store what was read or merged; `faults` is the count when the reading began."""
        known, first = self._revocations, self._read_at is None
        self._revocations = revocations
        self._read_at = self._clock()
        self._faults_at_reading = faults
        if not first:
            new = {
                target: each for target, each in revocations.items() if known.get(target) != each
            }
            if new:
                self._on_revoked(new)

    def _report_loss(self) -> None:
        """Report a data loss that is repaired now."""
        lost, self._lost = self._lost, None
        if lost is not None:
            self._on_lost(*lost)

    async def _must_read(self) -> bool:
        """Tell whether Redis may not hold all that was read from it."""
        if self._may_lack:
            return True
        try:
            return await self._source.mark(self._tracker.name) not in self._tracker.accepted
        except UnavailableError:
            return False  # the probe reports it

    async def probe(self) -> None:
        """Try a charge: only that tells whether Redis is whole."""
        began, faults = self._clock(), self._faults
        with suppress(UnavailableError):
            await self.take(PROBE)
            if self._degraded_since is None and self._faults == faults:
                self._on_probe(self._clock() - began)

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
            await next_tick(self._options.probe)
            await self.probe()
            if self._owed:
                await self.charge_late()
            left -= self._options.probe
            if left <= 0 or (self._degraded_since is None and await self._must_read()):
                left = self._options.refresh
                await self.refresh()


def _untouched(take: Take) -> Quota:
    return Quota(take.limit, take.limit.quota, 0)

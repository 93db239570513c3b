"""The in-memory ledger and limiter: answers as Redis does, for one process.

Invariant: memory is bounded, and a bucket is evicted only after `capacity` other buckets were
charged since it was (tests/ledger/test_memory.py). Only admitted requests charge, so whoever wants
its own bucket evicted must be admitted `capacity` times elsewhere for every quota that it gains.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from authz.core.approval import ApprovalKey
from authz.core.ledger import (
    LedgerAnswer,
    Mode,
    OverLimit,
    Query,
    SessionOfAnother,
    StepUpKey,
    Taken,
)
from authz.core.limits import Take, TakeOutcome, WindowState, take
from authz.core.second_factor import Method
from authz.ledger.records import (
    Revocation,
    encode_approval,
    encode_step_up,
    not_approved,
    read_revocation,
    revoked,
    step_up_missing,
    step_ups_void_until,
)
from authz.ledger.sessions import SessionBindings

_CAPACITY: Final = 50_000  # about half a kilobyte each


class Buckets:
    """Buckets of limits, at most `capacity`; those charged longest ago are evicted."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._states: OrderedDict[str, WindowState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def take(self, takes: Sequence[Take], now: int) -> TakeOutcome:
        """Charge all the takes or none (`authz.core.limits.take`).

        Args:
            takes: what to charge.
            now: milliseconds since the epoch.
        """
        changed, outcome = take(self._states, takes, now)
        self._states.update(changed)
        if not outcome.retry_after:
            # Not for a refusal: a caller could then get its own bucket evicted for nothing.
            for bucket in changed:
                self._states.move_to_end(bucket)
        while len(self._states) > self._capacity:
            self._states.popitem(last=False)
        return outcome

    def wait(self, one: Take, now: int) -> int:
        """Return the seconds until a take would pass, 0 where it would now; nothing is charged."""
        if one.bucket not in self._states:
            return 0
        return take(self._states, (one,), now)[1].retry_after


class MemoryLedger:
    """Answer queries from the memory of this process."""

    def __init__(
        self, clock: Callable[[], float], capacity: int = _CAPACITY, mode: Mode = Mode.LOCAL
    ) -> None:
        """Begin empty.

        Args:
            clock: seconds since the epoch.
            capacity: the most buckets, step-ups, approvals and sessions, each.
            mode: the mode that answers name.
        """
        self._clock = clock
        self._capacity = capacity
        self._mode = mode
        self._buckets = Buckets(capacity)
        self._revocations: dict[bytes, Revocation] = {}
        self._step_ups: OrderedDict[StepUpKey, tuple[bytes, float]] = OrderedDict()
        self._approvals: OrderedDict[ApprovalKey, tuple[bytes, float]] = OrderedDict()
        self._sessions = SessionBindings(capacity)

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query, atomically: nothing is awaited."""
        now = int(self._clock() * 1000)
        refused = (
            revoked(self._revocations, query)
            or self._check_session(query, now)
            or self._check_step_up(query, now)
            or self._check_approval(query, now)
        )
        if refused is not None:
            return refused
        outcome = self._buckets.take(query.takes, now)
        if outcome.retry_after:
            return OverLimit(outcome.quotas, outcome.retry_after)
        if query.session is not None:
            self._sessions.use(query.session, now / 1000)
        if query.approval_key is not None and query.approval_key.call is not None:
            self._approvals.pop(query.approval_key, None)
        return Taken(outcome.quotas, self._mode)

    def _check_session(self, query: Query, now: int) -> LedgerAnswer | None:
        session = query.session
        if session is None or not self._sessions.is_of_another(session, now / 1000):
            return None
        return SessionOfAnother()

    def _check_step_up(self, query: Query, now: int) -> LedgerAnswer | None:
        if query.step_up is None or query.step_up_key is None:
            return None
        record, expires = self._step_ups.get(query.step_up_key, (None, 0))
        alive = record if now < expires * 1000 else None
        void_until = step_ups_void_until(self._revocations, query)
        return step_up_missing(alive, query.step_up, now, void_until)

    def _check_approval(self, query: Query, now: int) -> LedgerAnswer | None:
        key = query.approval_key
        if key is None:
            return None
        record, expires = self._approvals.get(key, (None, 0))
        alive = record if now < expires * 1000 else None
        void_until = step_ups_void_until(self._revocations, query)
        return not_approved(alive, key.approval, now, void_until)

    async def revoke(self, target: bytes, revocation: Revocation) -> None:
        """Write a revocation, as `RedisLedger.revoke` does."""
        self._revocations[target] = read_revocation(revocation.encode())

    async def update(
        self, target: bytes, change: Callable[[Revocation | None], Revocation]
    ) -> Revocation:
        """Write what `change` makes of a revocation, as `RedisLedger.update` does."""
        after = change(self._revocations.get(target))
        await self.revoke(target, after)
        return after

    async def lift(self, target: bytes, found: Revocation | None = None) -> bool:
        """Remove a revocation, as `RedisLedger.lift` does; return whether it was removed."""
        before = self._revocations.get(target)
        if before is None or (found is not None and before != found):
            return False
        del self._revocations[target]
        return True

    async def discard(self, found: Mapping[bytes, Revocation]) -> None:
        """Remove revocations that still are as they were found."""
        for target, one in found.items():
            if self._revocations.get(target) == one:
                del self._revocations[target]

    async def revocations(self) -> Mapping[bytes, Revocation]:
        """Return all revocations by their target."""
        return dict(self._revocations)

    async def record_step_up(
        self, key: StepUpKey, method: Method, auth_time: int, ttl: int
    ) -> None:
        """Record a step-up, as `RedisLedger.record_step_up` does; the oldest is evicted."""
        self._step_ups[key] = (encode_step_up(method, auth_time), self._clock() + ttl)
        self._step_ups.move_to_end(key)
        while len(self._step_ups) > self._capacity:
            self._step_ups.popitem(last=False)

    async def record_approval(self, key: ApprovalKey, at: int, ttl: int, *, approved: bool) -> None:
        """Record an approval, as `RedisLedger.record_approval` does; the oldest is evicted."""
        self._approvals[key] = (encode_approval(at, approved=approved), self._clock() + ttl)
        self._approvals.move_to_end(key)
        while len(self._approvals) > self._capacity:
            self._approvals.popitem(last=False)

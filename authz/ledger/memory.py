"""The ledger in one process: the twin that answers as Redis does, in bounded memory.

Law: it forgets nothing early. A bucket that makes room for others leaves its counts to the bin
that its name falls into, and whoever has no bucket begins with the counts of the bin. So no flood
of other names resets a bucket; what a flood of more than `capacity` names costs is that a few
newcomers begin with somebody else's counts.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from authz.core.ledger import LedgerAnswer, Mode, OverLimit, Query, StepUpKey, Taken
from authz.core.limits import Limit, Outcome, State, Take, advance, take
from authz.core.second_factor import Method
from authz.ledger.records import (
    Revocation,
    encode_step_up,
    read_revocation,
    revoked,
    step_up_missing,
)

_CAPACITY: Final = 50_000  # about half a kilobyte each
_BINS: Final = 4096  # for every quota and window of the policy


class Buckets:
    """Charge buckets, at most so many at a time."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        """Remember the last `capacity` buckets apart, and all others in bins."""
        self._capacity = capacity
        self._states: OrderedDict[str, tuple[Limit, State]] = OrderedDict()
        self._bins: dict[tuple[int, int, int], State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def take(self, takes: Sequence[Take], now: int) -> Outcome:
        """Charge all the takes or none (`authz.core.limits.take`).

        Args:
            takes: what to charge.
            now: milliseconds since the epoch.
        """
        changed, outcome = take(self._known(takes), takes, now)
        limits = {each.bucket: each.limit for each in takes}
        for bucket, state in changed.items():
            self._states[bucket] = (limits[bucket], state)
        for bucket in limits:
            if bucket in self._states:
                self._states.move_to_end(bucket)
        while len(self._states) > self._capacity:
            self._put_away(now)
        return outcome

    def _known(self, takes: Sequence[Take]) -> Mapping[str, State]:
        known = {}
        for each in takes:
            kept = self._states.get(each.bucket)
            state = self._bins.get(_bin(each.bucket, each.limit)) if kept is None else kept[1]
            if state is not None:
                known[each.bucket] = state
        return known

    def _put_away(self, now: int) -> None:
        """Merge the bucket that was asked for least lately into its bin, slot by slot."""
        bucket, (limit, state) = self._states.popitem(last=False)
        name = _bin(bucket, limit)
        one, other = advance(state, limit, now), advance(self._bins.get(name), limit, now)
        merged = tuple(max(pair) for pair in zip(one.counts, other.counts, strict=True))
        if any(merged):
            self._bins[name] = State(one.slot, merged)


def _bin(bucket: str, limit: Limit) -> tuple[int, int, int]:
    # hash() of a str is keyed with a secret of the process: nobody can aim at a bin.
    return hash(bucket) % _BINS, limit.quota, limit.window


class MemoryLedger:
    """Answer queries from this process's memory alone."""

    def __init__(
        self, clock: Callable[[], float], capacity: int = _CAPACITY, mode: Mode = Mode.LOCAL
    ) -> None:
        """Begin empty.

        Args:
            clock: seconds since the epoch.
            capacity: how many buckets, and how many step-ups, are remembered apart.
            mode: what answers say about who counted.
        """
        self._clock = clock
        self._capacity = capacity
        self._mode = mode
        self._buckets = Buckets(capacity)
        self._revocations: dict[bytes, Revocation] = {}
        self._step_ups: OrderedDict[StepUpKey, tuple[bytes, float]] = OrderedDict()

    async def take(self, query: Query) -> LedgerAnswer:
        """Answer one query; nothing is awaited, so nothing comes between."""
        now = int(self._clock() * 1000)
        refused = revoked(self._revocations, query) or self._lacking(query, now)
        if refused is not None:
            return refused
        outcome = self._buckets.take(query.takes, now)
        if outcome.retry_after:
            return OverLimit(outcome.quotas, outcome.retry_after)
        return Taken(outcome.quotas, self._mode)

    def _lacking(self, query: Query, now: int) -> LedgerAnswer | None:
        if query.step_up is None or query.step_up_key is None:
            return None
        record, expires = self._step_ups.get(query.step_up_key, (None, 0))
        return step_up_missing(record if now < expires * 1000 else None, query.step_up, now)

    async def revoke(self, target: bytes, revocation: Revocation) -> None:
        """Record a revocation, as `RedisLedger.revoke` does."""
        self._revocations[target] = read_revocation(revocation.encode())

    async def lift(self, *targets: bytes) -> None:
        """Remove revocations, where there are such."""
        for target in targets:
            self._revocations.pop(target, None)

    async def revocations(self) -> Mapping[bytes, Revocation]:
        """Return all revocations by their target."""
        return dict(self._revocations)

    async def record_step_up(
        self, key: StepUpKey, method: Method, auth_time: int, ttl: int
    ) -> None:
        """Record a step-up, as `RedisLedger.record_step_up` does; the oldest make room."""
        self._step_ups[key] = (encode_step_up(method, auth_time), self._clock() + ttl)
        self._step_ups.move_to_end(key)
        while len(self._step_ups) > self._capacity:
            self._step_ups.popitem(last=False)

"""What was admitted while Redis was away, to be charged once it is back.

Only what was never sent is kept: a call whose answer was lost may have been charged. So no more is
charged than was admitted, and less where memory is short or the window has passed.

Invariant: each unit is charged once at most, whichever answers are lost
(tests/ledger/test_late_charges.py).
"""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from authz.core.ledger import UnavailableError
from authz.core.limits import Limit, Take

# How long Redis remembers a batch, and how long it is sent again: much shorter.
BATCH_LIFETIME_MS: Final = 3_600_000
_GIVE_UP: Final = 1800.0
_CAPACITY: Final = 16_384  # buckets, about half a kilobyte each
_BATCH: Final = 128  # buckets of one call


class LateCharge(NamedTuple):
    """The units of one bucket: for each slot how many, and their age in ms; the newest first."""

    bucket: str
    limit: Limit
    units: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class LateBatch:
    """Some buckets that are charged by one call.

    Attributes:
        id: names it, so that it is charged once.
        charges: of the buckets, with their ages at the time of this call.
    """

    id: str
    charges: tuple[LateCharge, ...]


def parse_charged(reply: object) -> int:
    """Return how many units charge_late.lua charged.

    Raises:
        UnavailableError: where the script cannot have given the reply.
    """
    if type(reply) is int and reply >= 0:
        return reply
    raise UnavailableError("redis", "an answer that the script does not give")


class LateCharger(Protocol):
    """Charge afterwards (`RedisLedger`); may raise UnavailableError."""

    async def charge_late(self, batch: LateBatch) -> int:
        """Return how many units were charged; 0 where the batch had been before."""
        ...


@dataclass(slots=True)
class _Bucket:
    limit: Limit
    slots: dict[int, int] = field(default_factory=dict)  # units, by slot of the worker's clock

    def charge(self, name: str, now: int) -> LateCharge:
        """Return what is charged: each unit as if it had come at the last moment of its slot."""
        length = self.limit.slot
        units = ((self.slots[n], max(0, now - (n + 1) * length)) for n in sorted(self.slots)[::-1])
        return LateCharge(name, self.limit, tuple(units))

    def prune(self, now: int) -> None:
        oldest = (now - self.limit.window * 1000) // self.limit.slot - 1
        for slot in [each for each in self.slots if each < oldest]:
            del self.slots[slot]


class LateCharges:
    """Keep what was admitted, by bucket; those that were charged longest ago are forgotten."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        """Begin empty."""
        self._capacity = capacity
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._id = ""
        self._began = 0.0
        self._sending: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        """Return how many buckets are kept."""
        return len(self._buckets) + len(self._sending)

    def add(self, takes: Sequence[Take], now: float) -> None:
        """Keep takes that were admitted.

        Args:
            takes: that were charged here.
            now: monotonic seconds.
        """
        for each in takes:
            bucket = self._buckets.get(each.bucket)
            if bucket is None:
                bucket = self._buckets[each.bucket] = _Bucket(each.limit)
            slot = int(now * 1000) // each.limit.slot
            if slot not in bucket.slots:
                bucket.prune(int(now * 1000))
            bucket.slots[slot] = bucket.slots.get(slot, 0) + each.limit.cost
            self._buckets.move_to_end(each.bucket)
        while len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)

    def next(self, now: float) -> LateBatch | None:
        """Return the batch to send: the last one, until it is confirmed; None where there is none.

        Args:
            now: monotonic seconds.
        """
        if self._sending and now - self._began > _GIVE_UP:
            self._sending.clear()
        if not self._sending:
            self._id, self._began = secrets.token_hex(16), now
            while self._buckets and len(self._sending) < _BATCH:
                name, bucket = self._buckets.popitem(last=False)
                bucket.prune(int(now * 1000))
                if bucket.slots:
                    self._sending[name] = bucket
        if not self._sending:
            return None
        moment = int(now * 1000)
        charges = (bucket.charge(name, moment) for name, bucket in self._sending.items())
        return LateBatch(self._id, tuple(charges))

    def confirm(self, batch: LateBatch) -> None:
        """Forget a batch that was charged."""
        if batch.id == self._id:
            self._sending.clear()

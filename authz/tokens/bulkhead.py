"""Bulkhead, rate limit and circuit breaker for calls to one dependency.

Invariant: never more calls at once than the width, nor of one source than its share; never more
strangers a second than the token bucket gives, never more waiting than a queue holds; after a
failure one probe at a time, each after a longer pause. Known callers go before strangers, and in
one queue the source with the fewest calls goes first.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Self

_LINE: Final = 16  # in each of the two lines, for each call at once
# Strangers a second, for each call at once: a call costs us as much as ten decisions, and the
# issuer more, so a flood must not have all that both can give.
_PACE: Final = 8.0
_FIRST_PAUSE: Final = 0.5  # seconds
_LONGEST_PAUSE: Final = 10.0
_MAX_DOUBLINGS: Final = 5


class NoSlotError(Exception):
    """Say that a call cannot be made now: the queue is full, or the dependency fails."""


class TokenBucket:
    """Allow a rate per second, with a burst after a pause."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        """Take how many a second and how many at once (each at least 1), and a clock.

        The clock gives seconds that never go back.
        """
        if rate < 1 or burst < 1:
            raise ValueError("a pace lets somebody through")
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._credit = burst
        self._counted_at = clock()

    def take(self) -> bool:
        """Take one token, if there is one now."""
        now = self._clock()
        self._credit = min(self._burst, self._credit + (now - self._counted_at) * self._rate)
        self._counted_at = now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def wait(self) -> float:
        """Return the seconds until there is a token, as of the last call of `take`."""
        return max(0.0, 1 - self._credit) / self._rate


class Bulkhead:
    """Admit calls to one dependency. One per worker, used from one event loop."""

    def __init__(
        self,
        width: int,
        pace: TokenBucket | None = None,
        *,
        share: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take how many calls there may be at once, at least 1.

        Args:
            width: calls at once.
            pace: of those who are not known; None for eight a second for each call at once.
            share: calls at once of one source; None for the width.
            clock: seconds that never go back.
            chance: a number from 0 to 1, so that workers do not probe all at once.
        """
        if width < 1:
            raise ValueError("a bulkhead lets at least one call through")
        self._pace = TokenBucket(width * _PACE, width, clock) if pace is None else pace
        self._timer: asyncio.TimerHandle | None = None
        self._width = width
        self._share = width if share is None else share
        self._clock = clock
        self._chance = chance
        self._running = 0
        self._running_of = Counter[str]()
        self._known = _WaitQueue()
        self._strangers = _WaitQueue()
        self._failures = 0
        self._closed_until = 0.0
        self._probe: Slot | None = None

    @property
    def failing(self) -> bool:
        """Tell whether the last call failed, or takes too long."""
        return self._failures > 0

    def join(self, *, known: bool, source: str = "") -> "Slot":
        """Return a slot, begun or in the queue; enter it with `async with`.

        Args:
            known: whether the caller goes before strangers.
            source: who asks, for the share of each.

        Raises:
            NoSlotError: where there is none.
        """
        slot = Slot(self, source)
        if self.failing:
            self._join_as_probe(slot)
            return slot
        place = slot.place = asyncio.get_running_loop().create_future()
        line = self._known if known else self._strangers
        line.append(slot)
        self._admit()
        if place.done():
            slot.place = None
        elif len(line) > self._width * _LINE and line.turn_away() is slot:
            raise NoSlotError("the line is full")
        return slot

    def _join_as_probe(self, slot: "Slot") -> None:
        free = self._running < self._width and self._probe is None
        if not free or self._clock() < self._closed_until:
            raise NoSlotError("it fails, and the next try is later")
        self._begin(slot)
        self._probe = slot

    def _begin(self, slot: "Slot") -> None:
        self._running += 1
        self._running_of[slot.source] += 1

    def leave(self, slot: "Slot") -> None:
        """End a slot; the next in the queue begins."""
        self._running -= 1
        self._running_of[slot.source] -= 1
        if not self._running_of[slot.source]:
            del self._running_of[slot.source]
        if slot is self._probe:
            self._probe = None
        self._admit()

    def _admit(self) -> None:
        """Begin the slots of waiters for which there is room."""
        while self._running < self._width:
            slot = self._known.next(self._running_of, self._share)
            if slot is None:
                slot = self._strangers.next(self._running_of, self._share)
                if slot is None:
                    return
                if not self._pace.take():
                    self._wake_up()
                    return
                self._strangers.remove(slot)
            else:
                self._known.remove(slot)
            self._begin(slot)
            assert slot.place is not None
            slot.place.set_result(True)

    def _wake_up(self) -> None:
        """Look at the queue again as soon as the token bucket admits a stranger."""
        if self._timer is None and self._running < self._width:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._pace.wait(), self._awake)

    def _awake(self) -> None:
        self._timer = None
        self._admit()

    def succeeded(self) -> None:
        """Record that a call was answered: the failure, if any, is over."""
        self._failures = 0

    def failed(self, slot: "Slot") -> None:
        """Record that a call failed; only the probe of a pause doubles it."""
        if self.failing and slot is not self._probe:
            return
        if slot is self._probe:
            self._probe = None
        pause = _FIRST_PAUSE * 2.0 ** min(self._failures, _MAX_DOUBLINGS)
        self._failures += 1
        jitter = 0.9 + 0.2 * self._chance()
        self._closed_until = self._clock() + min(pause, _LONGEST_PAUSE) * jitter
        for line in (self._known, self._strangers):
            for waiting in line.clear():
                waiting.turn_away()


class _WaitQueue:
    """Queue of waiters, for each source in the order in which they came.

    A place whose owner has gone (its future is done) is forgotten when it is met.
    """

    def __init__(self) -> None:
        # The source that was served last is the last.
        self._of: dict[str, deque[Slot]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def append(self, slot: "Slot") -> None:
        """Add one, behind the others of its source."""
        self._of.setdefault(slot.source, deque()).append(slot)

    def next(self, running: Counter[str], share: int) -> "Slot | None":
        """Return who is next: of the sources below their share the one with the fewest calls.

        Args:
            running: the calls of each source.
            share: the most calls of one.
        """
        self._forget_the_gone()
        waiting = [source for source in self._of if running[source] < share]
        if not waiting:
            return None
        return self._of[min(waiting, key=running.__getitem__)][0]

    def remove(self, slot: "Slot") -> None:
        """Remove the next one; its source becomes the last."""
        slots = self._of.pop(slot.source)
        slots.popleft()
        if slots:
            self._of[slot.source] = slots

    def turn_away(self) -> "Slot | None":
        """Evict the last waiter of the source that has the most waiting, and return it.

        None where room came from a waiter that has gone.
        """
        before = len(self)
        self._of = {source: deque(t for t in ts if not t.gone) for source, ts in self._of.items()}
        self._forget_the_gone()
        if len(self) < before:
            return None
        source, slots = max(self._of.items(), key=lambda each: len(each[1]))
        slot = slots.pop()
        if not slots:
            del self._of[source]
        slot.turn_away()
        return slot

    def clear(self) -> "list[Slot]":
        """Return all, and keep none."""
        slots = [slot for each in self._of.values() for slot in each]
        self._of.clear()
        return slots

    def _forget_the_gone(self) -> None:
        for source, slots in list(self._of.items()):
            while slots and slots[0].gone:
                slots.popleft()
            if not slots:
                del self._of[source]


class Slot:
    """Hold one call's place; a context manager around the call.

    Attributes:
        source: who asks.
        place: resolved with whether to go on; None where it did not have to wait.
    """

    def __init__(self, bulkhead: Bulkhead, source: str = "") -> None:
        """Belong to a bulkhead; `source` is who asks."""
        self._bulkhead = bulkhead
        self._entered = False
        self.source = source
        self.place: asyncio.Future[bool] | None = None

    @property
    def begun(self) -> bool:
        """Tell whether it counts as a call under way."""
        place = self.place
        return place is None or (place.done() and not place.cancelled() and place.result())

    @property
    def gone(self) -> bool:
        """Tell whether nobody waits for it any more."""
        return self.place is not None and self.place.done()

    def turn_away(self) -> None:
        """End the wait, if anybody waits."""
        if self.place is not None and not self.place.done():
            self.place.set_result(False)

    def abandon(self) -> None:
        """Give the place up, where the call was not begun with `async with`."""
        if self._entered:
            return
        self._entered = True
        if self.begun:
            self._bulkhead.leave(self)
        elif self.place is not None:
            self.place.cancel()

    async def __aenter__(self) -> Self:
        try:
            goes_on = self.place is None or await self.place
        except asyncio.CancelledError:
            self.abandon()  # perhaps it has begun in the same moment
            raise
        self._entered = True
        if not goes_on:
            raise NoSlotError("it has begun to fail, or the line is full")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bulkhead.leave(self)

    def failed(self) -> None:
        """Record that the call failed, or is late."""
        self._bulkhead.failed(self)

    def succeeded(self) -> None:
        """Record that the call was answered."""
        self._bulkhead.succeeded()

"""How many calls to a dependency there may be, and none while it fails.

Law: never more calls at once than the width, never more strangers a second than the pace, never
more in line than a line holds; and after a failure one probe at a time, each after a longer pause.
Who is known waits for no stranger.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Self

_LINE: Final = 16  # in each of the two lines, for each call at once
# Strangers a second, for each call at once: a call costs us as much as ten decisions, and the
# issuer more, so a flood must not have all that both can give.
_PACE: Final = 8.0
_FIRST_PAUSE: Final = 0.5  # seconds
_LONGEST_PAUSE: Final = 10.0
_MAX_DOUBLINGS: Final = 5


class TurnedAwayError(Exception):
    """Say that there is no call now: the line is full, or the dependency fails."""


class Pace:
    """Let so many through a second; after a rest, so many at once."""

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
        """Let one through, if the pace allows it now."""
        now = self._clock()
        self._credit = min(self._burst, self._credit + (now - self._counted_at) * self._rate)
        self._counted_at = now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def wait(self) -> float:
        """Return the seconds until one gets through, as of the last time it was asked."""
        return max(0.0, 1 - self._credit) / self._rate


class Gate:
    """Let calls through. One per worker, used from one event loop."""

    def __init__(
        self,
        width: int,
        pace: Pace | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take how many calls there may be at once, at least 1.

        Args:
            width: calls at once.
            pace: of those who are not known; None for eight a second for each call at once.
            clock: seconds that never go back.
            chance: a number from 0 to 1, so that workers do not probe all at once.
        """
        if width < 1:
            raise ValueError("a gate lets at least one call through")
        self._pace = Pace(width * _PACE, width, clock) if pace is None else pace
        self._timer: asyncio.TimerHandle | None = None
        self._width = width
        self._clock = clock
        self._chance = chance
        self._running = 0
        self._known: deque[asyncio.Future[bool]] = deque()
        self._strangers: deque[asyncio.Future[bool]] = deque()
        self._failures = 0
        self._closed_until = 0.0
        self._probe: Turn | None = None

    @property
    def failing(self) -> bool:
        """Tell whether the last call failed, or takes too long."""
        return self._failures > 0

    def join(self, *, known: bool) -> "Turn":
        """Return a turn: at once, or in line; begin it with `async with`.

        Args:
            known: whether to go before those who are not.

        Raises:
            TurnedAwayError: where there is none to be had.
        """
        turn = Turn(self)
        line = self._known if known else self._strangers
        if self.failing:
            self._join_as_probe(turn)
        elif self._running < self._width and (known or (not line and self._pace.take())):
            self._running += 1
        elif len(line) < self._width * _LINE:
            turn.place = asyncio.get_running_loop().create_future()
            line.append(turn.place)
            self._wake_up()
        else:
            raise TurnedAwayError("the line is full")
        return turn

    def _join_as_probe(self, turn: "Turn") -> None:
        free = self._running < self._width and self._probe is None
        if not free or self._clock() < self._closed_until:
            raise TurnedAwayError("it fails, and the next try is later")
        self._running += 1
        self._probe = turn

    def leave(self, turn: "Turn") -> None:
        """End a turn; the next in line begins."""
        self._running -= 1
        if turn is self._probe:
            self._probe = None
        self._admit()

    def _admit(self) -> None:
        """Begin the turns of those in line for whom there is room."""
        while self._running < self._width and (self._known or self._strangers):
            if not self._known and not self._pace.take():
                self._wake_up()
                return
            place = (self._known or self._strangers).popleft()
            if not place.done():
                self._running += 1
                place.set_result(True)

    def _wake_up(self) -> None:
        """Look at the line again as soon as the pace lets a stranger through."""
        if self._timer is None and self._running < self._width:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._pace.wait(), self._awake)

    def _awake(self) -> None:
        self._timer = None
        self._admit()

    def succeeded(self) -> None:
        """Take note that a call was answered: whatever was wrong is over."""
        self._failures = 0

    def failed(self, turn: "Turn") -> None:
        """Take note that a call failed; a pause is doubled by its probe only."""
        if self.failing and turn is not self._probe:
            return
        if turn is self._probe:
            self._probe = None
        pause = _FIRST_PAUSE * 2.0 ** min(self._failures, _MAX_DOUBLINGS)
        self._failures += 1
        jitter = 0.9 + 0.2 * self._chance()
        self._closed_until = self._clock() + min(pause, _LONGEST_PAUSE) * jitter
        for line in (self._known, self._strangers):
            while line:
                place = line.popleft()
                if not place.done():
                    place.set_result(False)


class Turn:
    """Hold one call's place; a context manager around the call.

    Attributes:
        place: resolved with whether to go on; None where there was no line.
    """

    def __init__(self, gate: Gate) -> None:
        """Belong to a gate."""
        self._gate = gate
        self.place: asyncio.Future[bool] | None = None

    async def __aenter__(self) -> Self:
        if self.place is not None and not await self.place:
            raise TurnedAwayError("it has begun to fail")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gate.leave(self)

    def failed(self) -> None:
        """Take note that the call failed, or is late."""
        self._gate.failed(self)

    def succeeded(self) -> None:
        """Take note that the call was answered."""
        self._gate.succeeded()

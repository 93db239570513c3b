"""Deadlines with one timer for all, which this process's own slowness need not bring forward.

Law: who finds an answer in the turn of the event loop in which the time is over has it in time;
and where a deadline is patient, a turn uses up no more than a tick, however long it takes.
"""

import asyncio
import time
from types import TracebackType
from typing import Final, Self

# A deadline has ten ticks. One that counts what turns take has more, where each would be longer
# than this (seconds): a block may be ended by a tick later than declared. One that is patient has
# not: any turn that is longer than a tick would stretch it.
_TICKS: Final = 10
_LONGEST: Final = 0.005
_SHORTEST: Final = 0.0001


class Deadline:
    """Say how long a block may take, and end all those that take longer.

    It is `asyncio.timeout` without a timer for every block: each check and each trip to Redis
    would pay for one.

    Attributes:
        seconds: how long.
    """

    __slots__ = (
        *("_length", "_loop", "_patient", "_running", "_tick", "_timer", "_turns"),
        "seconds",
    )

    def __init__(self, seconds: float, *, patient: bool = False) -> None:
        """Say how long.

        Args:
            seconds: that a block may last.
            patient: whether a long turn counts as a tick. In a burst of requests a turn may last
                longer than Redis is given, and callers whose answers have long arrived would be
                cancelled: charges without a verdict.
        """
        self.seconds: Final = seconds
        self._patient = patient
        tick = seconds / _TICKS
        self._tick = max(_SHORTEST, tick if patient else min(tick, _LONGEST))
        self._length = round(seconds / self._tick)
        self._turns = 0  # of the timer, while a block is running
        self._running: dict[
            DeadlineScope, int
        ] = {}  # and the tick that ends it; the first one first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None

    def block(self) -> "DeadlineScope":
        """Return a context; what takes too long in it is cancelled and raises TimeoutError."""
        return DeadlineScope(self)

    def begin(self, block: "DeadlineScope") -> asyncio.AbstractEventLoop:
        """Watch a block from now on, and return the loop that does."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A loop that has ended took its tasks along.
            self._loop, self._timer = loop, None
            self._running.clear()
        if self._timer is None:
            self._timer = loop.call_later(self._tick, self._turn, loop)
        # One more, since the tick that is under way has begun before it.
        self._running[block] = self._now() + self._length + 1
        return loop

    def end(self, block: "DeadlineScope") -> None:
        """Watch a block no more."""
        self._running.pop(block, None)

    def _now(self) -> int:
        """Return the tick that is under way."""
        return self._turns if self._patient else int(time.monotonic() / self._tick)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns += 1
        now = self._now()
        over = list[DeadlineScope]()
        for block, last in self._running.items():
            if last > now:
                break
            over.append(block)
        for block in over:
            block.expire()
            del self._running[block]
        self._timer = loop.call_later(self._tick, self._turn, loop) if self._running else None


class DeadlineScope:
    """Raise TimeoutError in what is watched once its time is over."""

    __slots__ = ("_cancelling", "_deadline", "_end", "_loop", "_over", "_task")

    def __init__(self, deadline: Deadline) -> None:
        """Take what watches it."""
        self._deadline = deadline
        self._end: asyncio.Handle | None = None
        self._over = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline ends a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = self._deadline.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadline.end(self)
        if self._end is not None:
            self._end.cancel()
        if (
            self._over
            # Whoever else cancels the task meanwhile is the one whose word counts.
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def expire(self) -> None:
        """End the block, behind what an answer that came in this turn wakes."""
        self._end = self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        self._over = True
        self._task.cancel()

"""Deadlines that share one timer, and that a slow event loop does not bring forward.

Invariant: a reply found in the turn of the event loop in which the time ends is in time; and for a
patient deadline a turn uses up no more than one tick, however long it takes
(tests/ledger/test_deadline.py).
"""

import asyncio
import time
from types import TracebackType
from typing import Final, Self

# A deadline has ten ticks, or more where a tick would be longer than _LONGEST (seconds), since a
# scope may end a tick late. A patient one always has ten: any turn longer than a tick stretches it.
_TICKS: Final = 10
_LONGEST: Final = 0.005
_SHORTEST: Final = 0.0001


class Deadline:
    """A time limit for scopes: `asyncio.timeout` with one timer for all checks and Redis calls.

    Attributes:
        seconds: how long a scope may last.
    """

    __slots__ = ("_length", "_loop", "_patient", "_scopes", "_tick", "_ticks", "_timer", "seconds")

    def __init__(self, seconds: float, *, patient: bool = False) -> None:
        """Set the limit.

        Args:
            seconds: that a scope may last.
            patient: whether a long turn counts as one tick. In a burst of requests a turn may last
                longer than Redis is given, and callers whose replies have long arrived would be
                cancelled: charges without a verdict.
        """
        self.seconds: Final = seconds
        self._patient = patient
        tick = seconds / _TICKS
        self._tick = max(_SHORTEST, tick if patient else min(tick, _LONGEST))
        self._length = round(seconds / self._tick)
        self._ticks = 0  # of the timer, while there are scopes
        self._scopes: dict[DeadlineScope, int] = {}  # and their last tick; the first to end first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None

    def block(self) -> "DeadlineScope":
        """Return a context; what takes too long in it is cancelled and raises TimeoutError."""
        return DeadlineScope(self)

    def begin(self, scope: "DeadlineScope") -> asyncio.AbstractEventLoop:
        """Watch a scope from now on, and return the loop that does."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A loop that has ended took its tasks along.
            self._loop, self._timer = loop, None
            self._scopes.clear()
        if self._timer is None:
            self._timer = loop.call_later(self._tick, self._on_tick, loop)
        # One more, since the current tick began before the scope.
        self._scopes[scope] = self._now() + self._length + 1
        return loop

    def end(self, scope: "DeadlineScope") -> None:
        """Stop watching a scope."""
        self._scopes.pop(scope, None)

    def _now(self) -> int:
        """Return the current tick."""
        return self._ticks if self._patient else int(time.monotonic() / self._tick)

    def _on_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticks += 1
        now = self._now()
        over = list[DeadlineScope]()
        for scope, last in self._scopes.items():
            if last > now:
                break
            over.append(scope)
        for scope in over:
            scope.expire()
            del self._scopes[scope]
        self._timer = loop.call_later(self._tick, self._on_tick, loop) if self._scopes else None


class DeadlineScope:
    """Raises TimeoutError in the task that entered it, once its time is over."""

    __slots__ = ("_cancel_handle", "_cancelling", "_deadline", "_loop", "_over", "_task")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._cancel_handle: asyncio.Handle | None = None
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
        if self._cancel_handle is not None:
            self._cancel_handle.cancel()
        if (
            self._over
            # Where somebody else cancels the task too, that cancellation counts.
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def expire(self) -> None:
        """End the scope, after the callbacks of replies that came in this turn."""
        self._cancel_handle = self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        self._over = True
        self._task.cancel()

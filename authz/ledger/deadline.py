"""A deadline that this process's own slowness does not bring forward.

Law: however long one turn of the event loop takes, it uses up no more than a tick. In a burst of
requests a turn may last longer than Redis is given, and `asyncio.timeout` would then cancel
callers whose answers have long arrived: charges without a verdict.
"""

import asyncio
from types import TracebackType
from typing import Final

_TICKS: Final = 10


class Deadline:
    """Raise TimeoutError in what takes longer than so many seconds of a loop that turns.

    It is `asyncio.timeout` with another clock, at half its price: every trip to Redis pays it.
    """

    __slots__ = ("_cancelling", "_loop", "_over", "_task", "_tick", "_timer")

    def __init__(self, seconds: float) -> None:
        """Take the seconds that the block may last."""
        self._tick = seconds / _TICKS
        self._over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline ends a task")
        self._loop = asyncio.get_running_loop()
        self._task = task
        self._cancelling = task.cancelling()
        self._timer: asyncio.Handle = self._loop.call_later(self._tick, self._wait, _TICKS - 1)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if (
            self._over
            # Whoever else cancels the task meanwhile is the one whose word counts.
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def _wait(self, ticks: int) -> None:
        if ticks:
            self._timer = self._loop.call_later(self._tick, self._wait, ticks - 1)
        else:
            # Behind what an answer that came in this turn wakes.
            self._timer = self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._over = True
        self._task.cancel()

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
    """Raise TimeoutError in what takes longer than so many seconds of a loop that turns."""

    def __init__(self, seconds: float) -> None:
        """Take the seconds that the block may last."""
        self._tick = seconds / _TICKS
        self._limit = asyncio.timeout(None)
        self._timer: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._wait(_TICKS)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def _wait(self, ticks: int) -> None:
        loop = asyncio.get_running_loop()
        if ticks:
            self._timer = loop.call_later(self._tick, self._wait, ticks - 1)
        else:
            self._limit.reschedule(loop.time())

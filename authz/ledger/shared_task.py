"""One piece of work at a time, for all who want what comes of it, whoever goes away meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedTask(Generic[T]):
    """Run a piece of work in a task that outlives who waits for it."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Take the work; nothing is begun yet."""
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> asyncio.Task[T]:
        """Return the task under way, or a new one; wait for it so that it is not cancelled."""
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.create_task(self._work())
            # Perhaps nobody is left to hear of its failure.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    def cease(self) -> set[asyncio.Task[T]]:
        """Cancel what is under way; return what is to be awaited for it."""
        task = self._task
        if task is None or task.done():
            return set()
        task.cancel()
        return {task}

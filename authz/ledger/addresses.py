"""Look up the addresses of a Redis host; while a look-up hangs, the last addresses are used.

When a server is gone its name may be too: a resolver then asks others for ten seconds and more, in
a thread that cannot be interrupted. So one look-up runs at a time, callers hardly wait for it where
an address is known, and a failed look-up keeps the known addresses (as RFC 8767 does for DNS). A
name that does not exist has none.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
# Seconds that a look-up is waited for where an address is known. Redis' reply is waited for twice
# as long, so that the address is tried within the same call.
_MAX_WAIT: Final = 0.02
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]


class SharedTask(Generic[T]):
    """Single flight: one task at a time for all callers, which outlives those who are cancelled."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> asyncio.Task[T]:
        """Return the task under way, or a new one; callers wait for it and do not cancel it."""
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.create_task(self._work())
            # Perhaps nobody is left to receive its exception.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    def cancel(self) -> set[asyncio.Task[T]]:
        """Cancel the task under way; return what is to be awaited for it."""
        task = self._task
        if task is None or task.done():
            return set()
        task.cancel()
        return {task}


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host by the system's resolver.

    Raises:
        OSError: where it has none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class HostAddresses:
    """The addresses of one host."""

    def __init__(self, host: str, port: int, look_up: LookUp = look_up) -> None:
        self._host = host
        self._port = port
        self._look_up = look_up
        self._known: Sequence[str] = ()
        self._refreshing = SharedTask(self._refresh)

    async def find(self) -> Sequence[str]:
        """Return the addresses, the newest that can be had now.

        Raises:
            OSError: where there is none.
        """
        task = self._refreshing.begin()
        done, _ = await asyncio.wait({task}, timeout=_MAX_WAIT if self._known else None)
        if done:
            task.result()
        return self._known

    async def _refresh(self) -> None:
        try:
            self._known = await self._look_up(self._host, self._port)
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME or not self._known:
                self._known = ()
                raise

    def cancel(self) -> set[asyncio.Task[None]]:
        """Cancel the look-up under way; return what is to be awaited for it."""
        return self._refreshing.cancel()

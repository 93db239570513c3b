"""The addresses of a name, also while its look-up does not come to an end.

Where a server is gone, so may its name be: a resolver then asks others, for ten seconds and more,
and the thread in which it does so cannot be interrupted. So one look-up runs at a time, nobody
waits long for it where an address is known, and a name that cannot be looked up keeps the address
that it had (as RFC 8767 has resolvers do). A name that is said not to exist has none.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from authz.ledger.shared_task import SharedTask

# Seconds that a look-up is waited for where an address is known. Redis' answer is waited for twice
# as long, so that the address is tried within the same call.
_FRESH: Final = 0.02
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

LookUpEvent = Callable[[str, int], Awaitable[Sequence[str]]]


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, as the system has them.

    Raises:
        OSError: where it has none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class HostAddresses:
    """Remember the addresses of one host, and look for newer ones."""

    def __init__(self, host: str, port: int, look_up: LookUpEvent = look_up) -> None:
        """Take the host; nothing is looked up yet."""
        self._host = host
        self._port = port
        self._look_up = look_up
        self._known: Sequence[str] = ()
        self._looking = SharedTask(self._look)

    async def find(self) -> Sequence[str]:
        """Return the addresses, the newest that can be had now.

        Raises:
            OSError: where there is none.
        """
        task = self._looking.begin()
        done, _ = await asyncio.wait({task}, timeout=_FRESH if self._known else None)
        if done:
            task.result()
        return self._known

    async def _look(self) -> None:
        try:
            self._known = await self._look_up(self._host, self._port)
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME or not self._known:
                self._known = ()
                raise

    def cease(self) -> set[asyncio.Task[None]]:
        """Stop looking; return what is to be awaited for it."""
        return self._looking.cease()

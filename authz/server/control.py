"""What a service in a process of its own is told, and how it answers: the starter's side.

Law: the process is given the time that it was promised to answer what is in flight, and then it
is ended: nothing is left over of it.
"""

import asyncio
import signal
import socket
from asyncio.subprocess import Process
from contextlib import suppress
from typing import Final, Self

from authz.server.orders import FAILED, RELOAD, STARTED, STOP

_ORDERS: Final = {signal.SIGTERM: STOP, signal.SIGINT: STOP, signal.SIGHUP: RELOAD}
# Seconds until a service has to have started, and its process to be gone after its end.
PATIENCE: Final = 20.0
# Seconds on top of the grace: `service.drain_notice`, which a reload may have changed, is 60 at
# most, and an Envoy's own drain (`inside.DRAIN`) comes after it.
_FAREWELL: Final = 61.0 + PATIENCE


class NotStarted(Exception):  # noqa: N818 - what happened, and the caller may go on without
    """Say why a service could not be started."""


class Control:
    """Hold the socket to a service in another process: orders one way, two words the other.

    Attributes:
        theirs: its end, to be inherited by the process.
        stopping: set once it was ordered to stop.
    """

    def __init__(self) -> None:
        """Make the socket."""
        self.stopping = asyncio.Event()
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket: a process that still runs takes it for our end, and ends."""
        self._ours.close()
        self.theirs.close()

    async def started(self, process: Process, patience: float = PATIENCE) -> None:
        """Return when Check is answered.

        Raises:
            NotStarted: where it will not be.
        """
        ended = asyncio.create_task(process.wait())
        word = asyncio.create_task(self._word())
        await asyncio.wait({ended, word}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        said = word.result() if word.done() else b""
        for task in (ended, word):
            task.cancel()
        await asyncio.gather(ended, word, return_exceptions=True)
        if said != STARTED:
            raise NotStarted(said.removeprefix(FAILED).decode("utf-8", "replace") or "no answer")

    async def failed(self, grace: float) -> bool:
        """Return at the end whether it said that it failed, or had to be given up.

        Args:
            grace: seconds that it has once it is told to stop.
        """
        word = asyncio.create_task(self._word())
        stopping = asyncio.create_task(self.stopping.wait())
        await asyncio.wait({word, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({word}, timeout=grace + _FAREWELL)
        said = word.result() if word.done() else FAILED
        for task in (word, stopping):
            task.cancel()
        await asyncio.gather(word, stopping, return_exceptions=True)
        return said.startswith(FAILED)

    def follow_signals(self) -> None:
        """Turn signals into orders from now on."""
        loop = asyncio.get_running_loop()
        for number, order in _ORDERS.items():
            loop.add_signal_handler(number, self.order, order)

    def order(self, order: bytes) -> None:
        """Give an order; who is gone gets none."""
        if order == STOP:
            self.stopping.set()
        with suppress(OSError):  # it is gone, which whoever waits is about to see
            self._ours.send(order)

    async def _word(self) -> bytes:
        # Its end closes with the process; ours must not be the one that keeps it open.
        self.theirs.close()
        try:
            return await asyncio.get_running_loop().sock_recv(self._ours, 4096)
        except OSError:
            return b""


async def end(process: Process, patience: float = 0) -> int:
    """Return the exit code of what ends within so many seconds, or is killed then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    return await process.wait()

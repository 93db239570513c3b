"""What a service in a process of its own is told, and how it answers: the starter's side.

Law: the process is given the time that it was promised to answer what is in flight, and then it
is ended: nothing is left over of it. One that runs and does not turn its loop any more is told
from one that is slow, and from one that is starting or ending.
"""

import asyncio
import signal
import socket
from asyncio.subprocess import Process
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from authz.server.worker_ipc import ALIVE, ASK, FAILED, RELOAD, STARTED, STOP

_ORDERS: Final = {signal.SIGTERM: STOP, signal.SIGINT: STOP, signal.SIGHUP: RELOAD}
# Seconds until a service has to have started. Where a machine starts all at once, what takes two
# seconds takes half a minute.
_START: Final = 60.0
PATIENCE: Final = 20.0  # seconds until its process has to be gone after its end
# Seconds on top of the grace: `service.drain_notice`, which a reload may have changed, is 60 at
# most, and an Envoy's own drain (`inside.DRAIN`) comes after it.
_FAREWELL: Final = 61.0 + PATIENCE


class WorkerStartError(Exception):
    """Say why a service could not be started."""


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Say when a service that runs is given up.

    Ten looks of a second: Envoy's health checks have turned from it after two, so that late costs
    nothing but its share of the work, and early would cost what it holds. One turn of the loop has
    taken in all that came since the last: thousands of checks at half a millisecond each are a
    few seconds, and one answer in ten is enough.

    Attributes:
        every: seconds from one question to the next, and for the answer to it.
        most: questions in turn without an answer. They are counted, not timed: a machine that was
            suspended has missed one.
    """

    every: float = 1.0
    most: int = 10


WATCHDOG: Final = Watchdog()


class WorkerControl:
    """Hold the socket to a service in another process: orders one way, a few words the other.

    Attributes:
        theirs: its end, to be inherited by the process.
        stopping: set once it was ordered to stop.
    """

    def __init__(self) -> None:
        """Make the socket."""
        self.stopping = asyncio.Event()
        self._ending = asyncio.Event()
        self._over = asyncio.Event()
        self._answered = False
        self._last = b""
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket: a process that still runs takes it for our end, and ends."""
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ours.close()
        self.theirs.close()

    async def started(self, process: Process, patience: float = _START) -> None:
        """Return when Check is answered.

        Raises:
            WorkerStartError: where it will not be.
        """
        ended = asyncio.create_task(process.wait())
        word = asyncio.create_task(self._word())
        await asyncio.wait({ended, word}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        said = word.result() if word.done() else b""
        for task in (ended, word):
            task.cancel()
        await asyncio.gather(ended, word, return_exceptions=True)
        if said != STARTED:
            raise WorkerStartError(
                said.removeprefix(FAILED).decode("utf-8", "replace") or "no answer"
            )
        asyncio.get_running_loop().add_reader(self._ours, self._hear)

    async def hung(self, watchdog: Watchdog = WATCHDOG) -> bool:
        """Return True once it has left too many questions in turn unanswered.

        False as soon as it was told to stop or has said its last: its end has a time of its own.
        """
        loop, missed = asyncio.get_running_loop(), 0
        while missed < watchdog.most:
            self._answered, asked = False, loop.time()
            self.order(ASK)
            with suppress(TimeoutError):
                async with asyncio.timeout(watchdog.every):
                    await self._ending.wait()
            if self._ending.is_set():
                return False
            if self._answered:
                missed = 0
            # Who comes late to his own look was held up himself, and judges nobody.
            elif loop.time() - asked < 2 * watchdog.every:
                missed += 1
        return True

    async def failed(self, grace: float) -> bool:
        """Return at the end whether it said that it failed, or had to be given up.

        Args:
            grace: seconds that it has once it is told to stop.
        """
        await self._ending.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace + _FAREWELL):
                await self._over.wait()
        return not self._over.is_set() or self._last.startswith(FAILED)

    def follow_signals(self) -> None:
        """Turn signals into orders from now on."""
        loop = asyncio.get_running_loop()
        for number, order in _ORDERS.items():
            loop.add_signal_handler(number, self.order, order)

    def order(self, order: bytes) -> None:
        """Give an order; who is gone gets none."""
        if order == STOP:
            self.stopping.set()
            self._ending.set()
        with suppress(OSError):  # it is gone, which whoever waits is about to see
            self._ours.send(order)

    async def _word(self) -> bytes:
        # Its end closes with the process; ours must not be the one that keeps it open.
        self.theirs.close()
        try:
            return await asyncio.get_running_loop().sock_recv(self._ours, 4096)
        except OSError:
            return b""

    def _hear(self) -> None:
        try:
            said = self._ours.recv(4096)
        except (BlockingIOError, ConnectionResetError):
            # A process that ended with our question unread: the kernel tells that first, once, and
            # then what was said before it.
            return
        except OSError:
            said = b""
        if said == ALIVE:
            self._answered = True
            return
        asyncio.get_running_loop().remove_reader(self._ours)
        self._last = said
        self._over.set()
        self._ending.set()


async def end(process: Process, patience: float = 0) -> int:
    """Return the exit code of what ends within so many seconds, or is killed then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    return await process.wait()

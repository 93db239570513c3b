"""Keep one program running: start it, wait until it is ready, watch it, stop it, start it again.

Invariant: a program that dies is started again for as long as it is supervised, later and later;
one that hangs is killed and has then died; one that is stopped has the time that it was promised,
and is killed after it.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from authz.process.child import ChildProcess

_DOUBLINGS: Final = 32


class StartError(Exception):
    """Say why a program could not be started, or did not become ready."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Say how long to wait before a program that died is started again; seconds.

    Attributes:
        first: before the first restart; it doubles from restart to restart.
        longest: the most that it doubles to.
        steady: that a program must have run for its earlier deaths to be forgotten.
    """

    first: float = 0.5
    longest: float = 30.0
    steady: float = 30.0

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row."""
        return min(self.first * 2.0 ** min(failures - 1, _DOUBLINGS), self.longest)


DEFAULT_BACKOFF: Final = Backoff()


class Failure(NamedTuple):
    """Describe why a program has to be started again.

    Attributes:
        error: why it did not start; None where it had started.
        status: its exit status; None where it did not start.
        hung: whether it was killed because it hung.
        failures: failures in a row, this one included.
        age: seconds since it was started.
        pause: seconds until it is started again.
    """

    error: StartError | None
    status: int | None
    hung: bool
    failures: int
    age: float
    pause: float


class ProcessSupervisor(ABC):
    """Supervise one program."""

    def __init__(
        self,
        backoff: Backoff,
        stop_timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take what is needed; nothing runs yet.

        Args:
            backoff: when it is started again.
            stop_timeout: seconds that it has to end once it was asked to.
            clock: the time, in seconds from any beginning.
            sleep: waits so many seconds.
        """
        self._backoff = backoff
        self._stop_timeout = stop_timeout
        self._clock = clock
        self._sleep = sleep
        self._process: ChildProcess | None = None
        self._ended = asyncio.Event()
        self._stopping = False
        self._restarting = False

    # --- what differs between programs --------------------------------------------------------

    @abstractmethod
    def _launch(self) -> ChildProcess:
        """Start a process.

        Raises:
            StartError: where that is not possible.
        """

    @abstractmethod
    async def _until_ready(self, process: ChildProcess, /) -> None:
        """Return when it is ready.

        Raises:
            StartError: where it ended before, or takes too long.
        """

    @abstractmethod
    async def _ask_to_stop(self, process: ChildProcess, /) -> None:
        """Ask a process to finish its work and end."""

    async def _until_hung(self, process: ChildProcess, /) -> bool:
        """Return True once it hangs, False once it is about to end by itself."""
        await asyncio.wait({process.exited})
        return False

    def _on_hung(self) -> None:  # noqa: B027 - a hook that not everybody needs
        """Take notice that it hangs, before it is killed."""

    async def _on_end(self) -> None:  # noqa: B027 - as above
        """Take notice that its process has ended."""

    @abstractmethod
    def _on_failure(self, failure: Failure) -> None:
        """Take notice that it failed and is started again; what this raises ends `run`."""

    @property
    def is_stopping(self) -> bool:
        """Tell whether it was told to stop."""
        return self._stopping

    # --- its life -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it once, and return when it is ready.

        Raises:
            StartError: where it does not become ready; nothing is left of it then.
        """
        if self._stopping:
            raise StartError("told to stop")
        self._ended.clear()
        self._process = self._launch()
        try:
            await self._until_ready(self._process)
        except StartError:
            await self._end(self._process)
            raise

    async def wait(self) -> tuple[int, bool]:
        """Return the exit status of what was started, and whether it had hung and was killed."""
        assert self._process is not None
        process = self._process
        watching = asyncio.ensure_future(self._until_hung(process))
        either: set[asyncio.Future[Any]] = {process.exited, watching}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
        hung = not process.exited.done() and watching.result()
        if hung:
            # Before the end: a process that waits for a disk does not even die of SIGKILL.
            self._on_hung()
        return await self._end(process, 0.0 if hung else self._stop_timeout), hung

    async def run(self) -> None:
        """Start it where it does not run, and again whenever it ends or hangs, until `stop`.

        One that was told to stop before this is waited for, too.
        """
        failures = 0
        while self._process is not None or not self._stopping:
            began = self._clock()
            error, status, hung = await self._live()
            if self._stopping:
                return
            if self._restarting:
                self._restarting, failures = False, 0
                continue
            age = self._clock() - began
            failures = 1 if age >= self._backoff.steady else failures + 1
            pause = self._backoff.pause(failures)
            self._on_failure(Failure(error, status, hung, failures, age, pause))
            await self._sleep(pause)

    async def _live(self) -> tuple[StartError | None, int | None, bool]:
        try:
            if self._process is None:
                await self.start()
        except StartError as error:
            return error, None, False
        return None, *(await self.wait())

    async def _end(self, process: ChildProcess, timeout: float = 0.0) -> int:  # noqa: ASYNC109 - as of `end`
        status = await process.end(timeout)
        if self._process is process:
            self._process = None
            await self._on_end()
            self._ended.set()
        return status

    async def stop(self, force_stop: asyncio.Event | None = None) -> bool:
        """End it for good, gracefully; tell whether it ran.

        Args:
            force_stop: where set, it is killed at once.
        """
        self._stopping = True
        return await self._stop_process(force_stop)

    async def restart(self) -> None:
        """Stop it gracefully and return when it has ended: `run` then starts it at once."""
        if self._process is not None:
            self._restarting = True
            await self._stop_process(None)
            await self._ended.wait()

    async def _stop_process(self, force_stop: asyncio.Event | None) -> bool:
        process = self._process
        if process is None or process.exited.done():
            return False

        async def ask() -> None:
            await self._ask_to_stop(process)

        await process.end(self._stop_timeout, ask, force_stop)
        return True

    def kill(self) -> None:
        """End the process at once, where there is one."""
        if self._process is not None:
            self._process.kill()

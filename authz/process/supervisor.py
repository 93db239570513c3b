"""One part, kept running: start, wait until it is ready, watch, start again, end.

Law: a part that dies is started again for as long as we run, later and later; only one that
never came up at the start is given up, with the last lines that it wrote.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from authz.process.child import ChildProcess, ServiceSpec, how_it_ended
from authz.process.output import ServiceLog

Say = Callable[[str], None]
_LATE: Final = "runs, but is not ready yet"


@dataclass(frozen=True, slots=True)
class SupervisorTiming:
    """Say how the supervisor spends time; seconds.

    Attributes:
        look: between two questions whether a part is ready.
        late_look: the same, of a part that was passed over.
        answer: that one such answer may take.
        word: after which a part that is needed and not ready says what it waits for.
        first_wait: before the first restart; it doubles from restart to restart.
        longest_wait: the most that it doubles to.
        steady: that a part must have run for its earlier deaths to be forgotten.
        attempts: starts before a part that was never ready is given up.
        clock: the time, in seconds of any beginning.
        pause: waits.
    """

    look: float = 0.05
    late_look: float = 1.0
    answer: float = 2.0
    word: float = 5.0
    first_wait: float = 0.5
    longest_wait: float = 30.0
    steady: float = 30.0
    attempts: int = 3
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


class ServiceStartError(Exception):
    """Say that a part could not start, and quote the last lines that it wrote."""

    def __init__(self, spec: ServiceSpec, what: str, log: ServiceLog) -> None:
        """Put the words together."""
        lines = "".join(f"\n    {line}" for line in log.tail) or " nothing"
        super().__init__(f"{spec.name} could not start: {what}. It said ({log.path}):{lines}")


class ProcessSupervisor:
    """Keep one part running.

    Attributes:
        part: which one.
        passed: set when the next part may start: this one is ready, or late and known to be.
        ready: set once it was ready.
    """

    def __init__(
        self, spec: ServiceSpec, log: ServiceLog, say: Say, timing: SupervisorTiming
    ) -> None:
        """Take what is needed; nothing runs yet."""
        self.spec = spec
        self.passed = asyncio.Event()
        self.ready = asyncio.Event()
        self._log = log
        self._say = say
        self._timing = timing
        self._process: ChildProcess | None = None
        self._listens = False
        self._reload_owed = False

    async def run(self) -> None:
        """Start the part again and again; cancel this before `stop`.

        Raises:
            ServiceStartError: where it never became ready at the start.
        """
        deaths = 0
        while True:
            started = self._timing.clock()
            how = await self._live()
            age = self._timing.clock() - started
            deaths = 1 if age >= self._timing.steady else deaths + 1
            if not self.passed.is_set() and deaths >= self._timing.attempts:
                raise ServiceStartError(self.spec, f"{how}, {deaths} times in a row", self._log)
            wait = min(
                self._timing.first_wait * 2 ** min(deaths - 1, 32), self._timing.longest_wait
            )
            self._say(f"{how} after {age:.1f} s; starting it again in {wait:g} s")
            await self._timing.pause(wait)

    async def stop(self, force_stop: asyncio.Event) -> None:
        """End the process, if there is one."""
        if self._process is not None and not self._process.exited.done():
            await self._process.end(force_stop)
            self._say("stopped")

    def rolling_restart(self) -> None:
        """Forward SIGUSR2; a part that does not listen to it yet is new as it is."""
        if self._listens and self._process is not None:
            self._process.signal(signal.SIGUSR2)

    def reload(self) -> None:
        """Forward SIGHUP; to a part that does not listen to it yet, as soon as it does.

        A program dies of a SIGHUP that comes before its handler is there.
        """
        if not self._listens:
            self._reload_owed = True
        elif self._process is not None:
            self._process.signal(signal.SIGHUP)

    async def _live(self) -> str:
        """Run the part once and return how it ended."""
        self._listens = self._reload_owed = False
        try:
            process = self._process = ChildProcess(self.spec, self._log)
        except OSError as error:
            return f"no process: {error.strerror}"
        how = await self._become_ready(process)
        if how:
            await process.end(asyncio.Event())
            return how
        return how_it_ended(await asyncio.shield(process.exited))

    async def _become_ready(self, process: ChildProcess) -> str:
        """Wait until the part is ready; otherwise return why that was given up."""
        begun, told = self._timing.clock(), not self.spec.needed
        while not await self._is_ready():
            look = self._timing.late_look if self._listens else self._timing.look
            await asyncio.wait({process.exited}, timeout=look)
            if process.exited.done():
                return how_it_ended(process.exited.result())
            waited = self._timing.clock() - begun
            if self.spec.late is not None and not told and waited >= self._timing.word:
                # Nothing is missing any more where it becomes ready at this very moment.
                missing = await self.spec.late()
                told = bool(missing)
                if told:
                    self._say(f"{_LATE}: {missing}")
            if not self._listens and waited >= self.spec.patience:
                how = f"not ready within {self.spec.patience:g} s"
                if self.spec.late is None:
                    return self._give_up(how)
                if self.spec.needed:
                    return self._give_up(f"{how}: {await self.spec.late()}")
                self._go_on(f"{_LATE}: {await self.spec.late()}")
        if not process.exited.done():
            self._go_on("ready")
            self.ready.set()
        return ""

    def _give_up(self, how: str) -> str:
        if not self.passed.is_set():
            raise ServiceStartError(self.spec, how, self._log)
        return how

    def _go_on(self, words: str) -> None:
        self._say(words)
        self._listens = True
        self.passed.set()
        if self._reload_owed:
            self._reload_owed = False
            self.reload()

    async def _is_ready(self) -> bool:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._timing.answer):
                return await self.spec.ready()
        return False

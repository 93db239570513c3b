"""A service of a group: what it is, and its supervisor, which tells people what happens to it.

Invariant: only a service that never became ready at the start is given up, with the last lines that
it wrote.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from authz.process.child import ChildProcess, describe_exit, killed_with_parent
from authz.process.output import ServiceLog
from authz.process.supervisor import (
    DEFAULT_BACKOFF,
    Backoff,
    Failure,
    ProcessSupervisor,
    StartError,
)

Say = Callable[[str], None]
_NOT_READY: Final = "runs, but is not ready yet"


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """Describe one program that a supervisor keeps running.

    Attributes:
        name: what people read, and the log file's name.
        argv: the program and its arguments; no shell sees them.
        env: its whole environment.
        ready: tells whether it does its work by now; called again and again until it does.
        stop_signal: asks it to end.
        stop_timeout: seconds that it has for that, `drain` included; then SIGKILL.
        ready_timeout: seconds until it must be ready.
        waits_for: where given, tells in words what a service that runs and is not ready waits for.
        required: whether one that tells so in vain is given up all the same; otherwise it is passed
            over, and the others start.
        drain: runs before `stop_signal`, while the service still works.
        reloads: whether it gets SIGHUP and SIGUSR2 when the supervisor does.
        echo: makes of a line what the terminal shows of it; None where it shows nothing.
        beside: whether it starts together with the one before it, which it does not need.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    ready_timeout: float = 60.0
    waits_for: Callable[[], Awaitable[str]] | None = None
    required: bool = False
    drain: Callable[[], Awaitable[None]] | None = None
    reloads: bool = False
    echo: Callable[[str], str] | None = None
    beside: bool = False


@dataclass(frozen=True, slots=True)
class ServiceTiming:
    """Say how a supervisor of services spends time; seconds.

    Attributes:
        poll: between two questions whether a service is ready.
        slow_poll: the same, of a service that was passed over.
        probe_timeout: that one such question may take.
        say_after: after which a required service that is not ready says what it waits for.
        attempts: starts before a service that was never ready is given up.
        backoff: when one that died is started again.
        clock: the time, in seconds from any beginning.
        sleep: waits so many seconds.
    """

    poll: float = 0.05
    slow_poll: float = 1.0
    probe_timeout: float = 2.0
    say_after: float = 5.0
    attempts: int = 3
    backoff: Backoff = DEFAULT_BACKOFF
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class ServiceStartError(Exception):
    """Say that a service could not start, and quote the last lines that it wrote."""

    def __init__(self, spec: ServiceSpec, what: str, log: ServiceLog) -> None:
        """Put the words together."""
        lines = "".join(f"\n    {line}" for line in log.tail) or " nothing"
        super().__init__(f"{spec.name} could not start: {what}. It said ({log.path}):{lines}")


class ServiceSupervisor(ProcessSupervisor):
    """Keep one service running; cancel `run` before `stop`.

    Attributes:
        spec: which one.
        passed: set when the next service may start: this one is ready, or passed over.
        ready: set once it was ready.
    """

    def __init__(self, spec: ServiceSpec, log: ServiceLog, say: Say, timing: ServiceTiming) -> None:
        """Take what is needed; nothing runs yet."""
        super().__init__(timing.backoff, spec.stop_timeout, timing.clock, timing.sleep)
        self.spec = spec
        self.passed = asyncio.Event()
        self.ready = asyncio.Event()
        self._log = log
        self._say = say
        self._timing = timing
        self._handles_signals = False
        self._reload_pending = False

    async def stop(self, force_stop: asyncio.Event | None = None) -> bool:
        """End it for good, and say so where it ran."""
        ran = await super().stop(force_stop)
        if ran:
            self._say("stopped")
        return ran

    def forward_restart(self) -> None:
        """Forward SIGUSR2; a service that does not listen to it yet is new as it is."""
        if self._handles_signals and self._process is not None:
            self._process.signal(signal.SIGUSR2)

    def reload(self) -> None:
        """Forward SIGHUP; to a service that does not listen to it yet, as soon as it does.

        A program dies of a SIGHUP that comes before its handler is there.
        """
        if not self._handles_signals:
            self._reload_pending = True
        elif self._process is not None:
            self._process.signal(signal.SIGHUP)

    def _launch(self) -> ChildProcess:
        self._handles_signals = self._reload_pending = False
        argv, env = killed_with_parent(self.spec.argv), self.spec.env
        try:
            return ChildProcess(argv, env, output=self._log, umask=0o077)
        except OSError as error:
            raise StartError(f"no process: {error.strerror}") from error

    async def _ask_to_stop(self, process: ChildProcess, /) -> None:
        if self.spec.drain is not None:
            await self.spec.drain()
        process.signal(self.spec.stop_signal)

    def _on_failure(self, failure: Failure) -> None:
        how = str(failure.error) if failure.status is None else describe_exit(failure.status)
        if not self.passed.is_set() and failure.failures >= self._timing.attempts:
            what = f"{how}, {failure.failures} times in a row"
            raise ServiceStartError(self.spec, what, self._log)
        again = f"starting it again in {failure.pause:g} s"
        self._say(f"{how} after {failure.age:.1f} s; {again}")

    async def _until_ready(self, process: ChildProcess, /) -> None:
        began, spec = self._timing.clock(), self.spec
        told = not spec.required
        while not await self._is_ready():
            poll = self._timing.slow_poll if self._handles_signals else self._timing.poll
            await asyncio.wait({process.exited}, timeout=poll)
            if process.exited.done():
                raise StartError(describe_exit(process.exited.result()))
            waited = self._timing.clock() - began
            if spec.waits_for is not None and not told and waited >= self._timing.say_after:
                # Nothing is missing any more where it becomes ready at this very moment.
                missing = await spec.waits_for()
                told = bool(missing)
                if told:
                    self._say(f"{_NOT_READY}: {missing}")
            if not self._handles_signals and waited >= spec.ready_timeout:
                await self._on_timeout()
        if process.exited.done():
            raise StartError(describe_exit(process.exited.result()))
        self._go_on("ready")
        self.ready.set()

    async def _on_timeout(self) -> None:
        """Pass a service over that is not ready in time, or give it up.

        Raises:
            StartError: where it is to be started again.
            ServiceStartError: where it never was ready.
        """
        how = f"not ready within {self.spec.ready_timeout:g} s"
        missing = "" if self.spec.waits_for is None else await self.spec.waits_for()
        if self.spec.waits_for is not None and not self.spec.required:
            self._go_on(f"{_NOT_READY}: {missing}")
            return
        how = how if self.spec.waits_for is None else f"{how}: {missing}"
        if not self.passed.is_set():
            raise ServiceStartError(self.spec, how, self._log)
        await self._stop_process(None)
        raise StartError(how)

    def _go_on(self, words: str) -> None:
        self._say(words)
        self._handles_signals = True
        self.passed.set()
        if self._reload_pending:
            self._reload_pending = False
            self.reload()

    async def _is_ready(self) -> bool:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._timing.probe_timeout):
                return await self.spec.ready()
        return False

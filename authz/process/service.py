"""A service of a group: what it is, and its supervisor, which tells people what happens to it.

Invariant: only a service that never became ready at the start is given up, with the last lines that
it wrote.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

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
# Seconds that a process which has failed has to end by itself, for its exit status.
_LAST_MOMENT: Final = 1.0
_HUNG: Final = "hung, and was killed"


class ServiceControl(Protocol):
    """Hold the channel to one process that takes messages in place of signals.

    Attributes:
        argv: the program and its arguments.
        env: its whole environment.
        inherited: the descriptors that it inherits.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    inherited: Sequence[int]

    async def watch(self, exited: "asyncio.Future[int]", /) -> bool:
        """Return True once the process hangs, False once it is about to end by itself.

        Raises:
            StartError: where it does not start.
        """
        ...

    def describe_hang(self) -> bytes:
        """Return the line for the service's log that says that it hung."""
        ...

    def ask_to_stop(self) -> None:
        """Ask the process to finish its work and end."""
        ...

    def reload(self) -> None:
        """Have the process read its configuration."""
        ...

    def close(self) -> None:
        """Close the channel; the process has ended, or is about to be killed."""
        ...


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
        control: opens the channel to a process that takes no signals; where it gives None, `argv`
            is run.
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
    control: Callable[[], ServiceControl | None] | None = None


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
        self._control: ServiceControl | None = None
        self._watching: asyncio.Future[bool] | None = None

    async def stop(self, force_stop: asyncio.Event | None = None) -> bool:
        """End it for good, and say so where it ran."""
        ran = await super().stop(force_stop)
        self._release()
        if ran:
            self._say("stopped")
        return ran

    def forward_restart(self) -> None:
        """Forward SIGUSR2; a service that does not listen to it yet is new as it is.

        One with a channel is a single process, which has nobody to take its place meanwhile.
        """
        if self._handles_signals and self._process is not None and self._control is None:
            self._process.signal(signal.SIGUSR2)

    def reload(self) -> None:
        """Forward SIGHUP; to a service that does not listen to it yet, as soon as it does.

        A program dies of a SIGHUP that comes before its handler is there.
        """
        if not self._handles_signals:
            self._reload_pending = True
        elif self._control is not None:
            self._control.reload()
        elif self._process is not None:
            self._process.signal(signal.SIGHUP)

    def _launch(self) -> ChildProcess:
        self._handles_signals = self._reload_pending = False
        control = None if self.spec.control is None else self.spec.control()
        argv, env, inherited = (
            (self.spec.argv, self.spec.env, ())
            if control is None
            else (control.argv, control.env, control.inherited)
        )
        command = killed_with_parent(argv)
        try:
            process = ChildProcess(command, env, output=self._log, pass_fds=inherited, umask=0o077)
        except OSError as error:
            if control is not None:
                control.close()
            raise StartError(f"no process: {error.strerror}") from error
        self._control = control
        if control is not None:
            self._watching = asyncio.ensure_future(control.watch(process.exited))
        return process

    async def _ask_to_stop(self, process: ChildProcess, /) -> None:
        if self.spec.drain is not None:
            await self.spec.drain()
        if self._control is not None:
            self._control.ask_to_stop()
        else:
            process.signal(self.spec.stop_signal)

    async def _until_hung(self, process: ChildProcess, /) -> bool:
        if self._watching is None:
            return await super()._until_hung(process)
        hung = await asyncio.shield(self._watching)
        if not hung:
            await asyncio.wait({process.exited})
        return hung

    def _on_hung(self) -> None:
        assert self._control is not None
        self._log.feed(self._control.describe_hang())
        self._say(_HUNG)

    async def _on_end(self) -> None:
        self._release()

    def _release(self) -> None:
        """Close the channel to a process that has ended."""
        if self._watching is not None and not self._watching.cancel():
            self._watching.exception()  # taken notice of: a failed start was told
        if self._control is not None:
            self._control.close()
        self._control = self._watching = None

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
            await self._check_running(process, poll)
            waited = self._timing.clock() - began
            if spec.waits_for is not None and not told and waited >= self._timing.say_after:
                # Nothing is missing any more where it becomes ready at this very moment.
                missing = await spec.waits_for()
                told = bool(missing)
                if told:
                    self._say(f"{_NOT_READY}: {missing}")
            if not self._handles_signals and waited >= spec.ready_timeout:
                await self._on_timeout()
        await self._check_running(process, 0.0)
        self._go_on("ready")
        self.ready.set()

    async def _check_running(self, process: ChildProcess, seconds: float) -> None:
        """Return after so many seconds, in which the process has neither ended nor hung.

        Raises:
            StartError: where it has, with what it said of itself where it did.
        """
        watching = self._watching
        either: set[asyncio.Future[Any]] = {process.exited}
        if watching is not None:
            # One that is about to end by itself is waited for.
            either = {process.exited} if _is_ending(watching) else {process.exited, watching}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if watching is not None and (watching.done() or process.exited.done()):
            try:
                hung = await watching
            except StartError as error:
                # One that fails closes the channel, or says so, a moment before it has ended.
                await asyncio.wait({process.exited}, timeout=_LAST_MOMENT)
                if process.exited.done():
                    how = describe_exit(process.exited.result())
                    raise StartError(f"{error}, {how}") from error
                raise
            if hung:
                self._on_hung()
                raise StartError(_HUNG)
        if process.exited.done():
            raise StartError(describe_exit(process.exited.result()))

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


def _is_ending(watching: "asyncio.Future[bool]") -> bool:
    """Tell whether a process has said its last, and has not failed to start."""
    return watching.done() and watching.exception() is None and not watching.result()

"""A part and its running process.

Law: a process is never signalled after it was waited for, and its whole group is ended before:
until then neither its id nor its group's can belong to anybody else.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.process.output import ServiceLog

_PARENT_DEATH: Final = Path(__file__).with_name("parent_death.py")
_CHUNK: Final = 1 << 16
_PIPE: Final = 1 << 20  # /proc/sys/fs/pipe-max-size, as it is set nearly everywhere


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """Describe one program that the supervisor keeps running.

    Attributes:
        name: what people read, and the log file's name.
        argv: the program and its arguments; no shell sees them.
        env: its whole environment.
        ready: tells whether it does its work by now; called again and again until it does.
        stop_signal: asks it to end.
        grace: seconds that it has for that, `drain` included; then SIGKILL.
        patience: seconds until it must be ready.
        late: where given, tells in words what a part that runs and is not ready waits for.
        needed: whether a late part that tells so is given up all the same; otherwise it is passed
            over, and the others start.
        drain: runs before `stop_signal`, while the part still works.
        reloads: whether it gets SIGHUP when the supervisor does.
        echo: makes of a line what the terminal shows of it; None where it shows nothing.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]]
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    patience: float = 60.0
    late: Callable[[], Awaitable[str]] | None = None
    needed: bool = False
    drain: Callable[[], Awaitable[None]] | None = None
    reloads: bool = False
    echo: Callable[[str], str] | None = None


def how_it_ended(status: int) -> str:
    """Return an exit status in words, as `subprocess` counts: negative is a signal."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class ChildProcess:
    """Run a part once, in a session of its own, tied to this process.

    Attributes:
        exited: the exit status, once there is one.
    """

    def __init__(self, spec: ServiceSpec, log: ServiceLog) -> None:
        """Start it. The running event loop's thread must live as long as it (parent_death.py).

        Raises:
            OSError: where no process can be started.
        """
        self._spec = spec
        self._log = log
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        log.begin()
        self._popen = subprocess.Popen(  # noqa: S603 - argv is ours, and no shell sees it
            [sys.executable, "-I", "-S", str(_PARENT_DEATH), str(os.getpid()), *spec.argv],
            env=spec.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for us alone
            umask=0o077,
        )
        assert self._popen.stdout is not None
        self._output = self._popen.stdout.fileno()
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._on_output)
        # Not Popen's own signals and waits: they reap the process as they look at it.
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, not to its children."""
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, number)

    async def end(self, force_stop: asyncio.Event) -> None:
        """End the process: ask, wait at most `grace` seconds or until `hurry`, then kill."""
        asked = asyncio.ensure_future(self._ask())
        hurried = asyncio.ensure_future(force_stop.wait())
        try:
            await asyncio.wait(
                {asked, hurried},
                timeout=self._spec.grace,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            asked.cancel()
            hurried.cancel()
            if not self.exited.done():
                self._kill_group()
        await asyncio.wait({self.exited})

    async def _ask(self) -> None:
        if self._spec.drain is not None:
            await self._spec.drain()
        self.signal(self._spec.stop_signal)
        await asyncio.wait({self.exited})

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _on_output(self) -> None:
        try:
            chunk = os.read(self._output, _CHUNK)
        except BlockingIOError:
            return
        if chunk:
            self._log.feed(chunk)
        else:
            self._loop.remove_reader(self._output)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # A zombie until the wait below: its group's id cannot have been given away yet.
        self._kill_group()
        status = self._popen.wait()
        self._last_output()
        self.exited.set_result(status)

    def _last_output(self) -> None:
        """Read what is left, and no more than a pipe holds.

        A child that went into a session of its own may keep the pipe open, and write on.
        """
        assert self._popen.stdout is not None
        self._loop.remove_reader(self._output)
        with suppress(BlockingIOError):
            self._log.feed(os.read(self._output, _PIPE))
        self._popen.stdout.close()
        self._log.end()

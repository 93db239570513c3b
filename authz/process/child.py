"""A child process: started in a session of its own, signalled, stopped gracefully or killed.

Invariant: a process is never signalled after it was waited for, and its whole group is killed
before that: until then neither its id nor its group's can belong to another process.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

_PARENT_DEATH: Final = Path(__file__).with_name("parent_death.py")
_CHUNK: Final = 1 << 16
_PIPE: Final = 1 << 20  # /proc/sys/fs/pipe-max-size, as it is set nearly everywhere


class OutputSink(Protocol):
    """Take what a process writes to its standard output and error."""

    def begin(self) -> None:
        """Take notice that a new process writes from now on."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Take a piece of any size."""
        ...

    def end(self) -> None:
        """Take notice that the process has ended."""
        ...


def killed_with_parent(argv: Sequence[str]) -> list[str]:
    """Return a command that the kernel kills as soon as this process is gone (parent_death.py).

    The kernel watches the thread that starts it, which must live as long as the process.
    """
    return [sys.executable, "-I", "-S", str(_PARENT_DEATH), str(os.getpid()), *argv]


def describe_exit(status: int) -> str:
    """Return an exit status in words, as `subprocess` counts: negative is a signal."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class ChildProcess:
    """Run a program once, in a session of its own: Ctrl-C in the terminal does not reach it.

    Attributes:
        exited: the exit status, once there is one.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        output: OutputSink | None = None,
        pass_fds: Sequence[int] = (),
        umask: int = -1,
    ) -> None:
        """Start it.

        Args:
            argv: the program and its arguments; no shell sees them.
            env: its whole environment.
            output: takes what it writes; where None, it writes where this process does.
            pass_fds: descriptors that it inherits.
            umask: its umask; this process's where negative.

        Raises:
            OSError: where no process can be started, or none can be watched (pidfd_open(2)).
        """
        self._output = output
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        if output is not None:
            output.begin()
        self._popen = subprocess.Popen(  # noqa: S603 - argv is ours, and no shell sees it
            argv,
            env=env,
            stdin=None if output is None else subprocess.DEVNULL,
            stdout=None if output is None else subprocess.PIPE,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
            umask=umask,
        )
        # Not Popen's own signals and waits: they reap the process as they look at it.
        try:
            self._pidfd = os.pidfd_open(self._popen.pid)
        except OSError:
            self._popen.kill()
            self._popen.wait()
            raise
        self._loop.add_reader(self._pidfd, self._on_exit)
        if self._popen.stdout is not None:
            os.set_blocking(self._popen.stdout.fileno(), False)
            self._loop.add_reader(self._popen.stdout.fileno(), self._on_output)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, not to its children."""
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Kill the process and its group, where it still runs."""
        if not self.exited.done():
            self._kill_group()

    async def end(
        self,
        timeout: float = 0.0,  # noqa: ASYNC109 - a process is killed after it, not a task cancelled
        ask: Callable[[], Awaitable[None]] | None = None,
        force_stop: asyncio.Event | None = None,
    ) -> int:
        """Wait until the process has ended, kill it where it does not, and return its exit status.

        Args:
            timeout: seconds until it is killed, `ask` included.
            ask: asks it to end.
            force_stop: where set, it is killed at once.
        """
        asked = asyncio.ensure_future(self._ask_and_wait(ask))
        forced = asyncio.ensure_future((force_stop or asyncio.Event()).wait())
        try:
            await asyncio.wait(
                {asked, forced}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            asked.cancel()
            forced.cancel()
            self.kill()
        return await asyncio.shield(self.exited)

    async def _ask_and_wait(self, ask: Callable[[], Awaitable[None]] | None) -> None:
        if ask is not None:
            await ask()
        await asyncio.wait({self.exited})

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _on_output(self) -> None:
        assert self._popen.stdout is not None
        assert self._output is not None
        try:
            chunk = os.read(self._popen.stdout.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if chunk:
            self._output.feed(chunk)
        else:
            self._loop.remove_reader(self._popen.stdout.fileno())

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # A zombie until the wait below: its group's id cannot have been given away yet.
        self._kill_group()
        status = self._popen.wait()
        if self._output is not None:
            self._last_output(self._output)
        self.exited.set_result(status)

    def _last_output(self, output: OutputSink) -> None:
        """Read what is left, and no more than a pipe holds.

        A child that went into a session of its own may keep the pipe open, and write on.
        """
        assert self._popen.stdout is not None
        self._loop.remove_reader(self._popen.stdout.fileno())
        with suppress(BlockingIOError):
            output.feed(os.read(self._popen.stdout.fileno(), _PIPE))
        self._popen.stdout.close()
        output.end()

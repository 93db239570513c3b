"""A worker process, seen from the process that starts it: its settings, its socket, its watchdog.

Invariant: a worker has the time that it was promised to answer what is in flight, and is killed
after it; one whose event loop has stopped is told from one that is slow, starting or ending.

Standard library only: a process that watches one worker holds nothing else in memory.
"""

import asyncio
import json
import socket
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from authz.process.child import ChildProcess
from authz.process.supervisor import Backoff, ProcessSupervisor, StartError

# To the worker, one byte each.
STOP: Final = b"T"
RELOAD: Final = b"H"
PING: Final = b"?"
# From the worker: that Check is answered, that its loop turns (to each ping), or that it has
# failed, and why.
STARTED: Final = b"S"
PONG: Final = b"A"
FAILED: Final = b"F"
# From the worker: a security event that people may have to hear of, in bytes of its own.
NOTICE: Final = b"N"
LONGEST: Final = 16 * 1024  # bytes of a message
# Seconds that what is in flight has at the end, on top of the issuer's deadline.
GRACE: Final = 1.0

_VARIABLE: Final = "AUTHZ_WORKER"
# Seconds until a worker has to have started. Where a machine starts all at once, what takes two
# seconds takes half a minute.
_START: Final = 60.0
# Seconds in which what a dead process had sent has arrived: it lies in the socket already.
_LAST_MESSAGE: Final = 1.0

# Host and port, or the path of a Unix socket.
ListenAddress = tuple[str, int] | str


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Worker settings, serialised into one environment variable.

    Attributes:
        configuration: authz.yaml, as problems name it.
        check: what is listened on for Check: `unix:/path` or `host:port`.
        status: where metrics and probes are answered: host and port, or a socket's path.
        grace: seconds that what is in flight has at the end.
        admin: the socket for the admin pages of an Envoy around the service; empty without one.
        control: the descriptor of the socket to the process that starts it.
        text: the file that holds the text of authz.yaml that is in force; empty where it is read
            itself.
        final_metrics: the file that the last counts are written to; empty where nobody reads it.
        worker: this worker's number; None where there is only one.
        envoy: the folder whose files Envoy watches; empty where it follows no reload.
        python: the interpreter; a service embedded in an Envoy has none to ask.
        envoy_stats: the socket at which Envoy tells its statistics; empty where nobody asks.
        tells_warnings: whether it tells what of authz.yaml a person should look at; else whoever
            starts it has told.
    """

    configuration: str
    check: str
    status: ListenAddress
    grace: float
    admin: str = ""
    control: int = -1
    text: str = ""
    final_metrics: str = ""
    worker: int | None = None
    envoy: str = ""
    python: str = ""
    envoy_stats: str = ""
    tells_warnings: bool = False

    def environment(self) -> dict[str, str]:
        """Return the variable that carries this."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "WorkerSettings":
        """Read them from the environment."""
        return cls.of_members(json.loads(env[_VARIABLE]))

    @classmethod
    def of_members(cls, said: Mapping[str, Any]) -> "WorkerSettings":
        """Read them from what `asdict` and JSON made of them."""
        status = said["status"]
        return cls(**{**said, "status": status if isinstance(status, str) else tuple(status)})


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Say when a worker is taken to hang.

    Ten pings of a second: Envoy's health checks have turned from it after two, so that late costs
    nothing but its share of the work, and early would cost what it holds. One turn of the loop has
    taken in all that came since the last: thousands of checks at half a millisecond each are a
    few seconds, and one answer in ten is enough.

    Attributes:
        interval: seconds from one ping to the next, and for the answer to it.
        max_missed: pings in a row without an answer. They are counted, not timed: a machine that
            was suspended has missed one.
    """

    interval: float = 1.0
    max_missed: int = 10


@dataclass(frozen=True, slots=True)
class WorkerPolicy:
    """Say how long workers are waited for.

    Attributes:
        backoff: when one that died is started again.
        stop_timeout: seconds on top of the grace in which a worker that was told to stop has to be
            gone. `service.drain_notice`, which a reload may have changed, is 60 at most, and an
            Envoy's own drain comes after it.
        watchdog: when one is taken to hang.
    """

    backoff: Backoff = Backoff(steady=60.0)  # noqa: RUF009 - frozen
    stop_timeout: float = 85.0
    watchdog: Watchdog = Watchdog()


POLICY: Final = WorkerPolicy()


class WorkerControl:
    """Hold the socket to a worker: one byte each way, but for the reason of a failure.

    Attributes:
        theirs: the worker's end, to be inherited.
    """

    def __init__(self, on_notice: Callable[[bytes], None] = lambda _: None) -> None:
        """Make the socket; `on_notice` is given the bytes of each security event."""
        self._on_notice = on_notice
        self._ending = asyncio.Event()
        self._ponged = False
        self._failed = False
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Read what is left, and close: a worker that still runs takes that as a stop."""
        if self._ours.fileno() < 0:
            return
        while self._receive():
            pass
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ours.close()
        self.theirs.close()

    @property
    def has_failed(self) -> bool:
        """Tell whether the worker said that it failed."""
        return self._failed

    async def started(self, exited: "asyncio.Future[int]", timeout: float = _START) -> None:  # noqa: ASYNC109 - it says more than a TimeoutError
        """Return when Check is answered.

        Args:
            exited: done when the worker has ended.
            timeout: seconds until it has to have started.

        Raises:
            StartError: where it will not be.
        """
        # Its end closes with the process; ours must not be the one that keeps it open.
        self.theirs.close()
        message = asyncio.create_task(self._first_message())
        either: set[asyncio.Future[Any]] = {exited, message}
        try:
            await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                await asyncio.wait({message}, timeout=_LAST_MESSAGE)
        finally:
            message.cancel()
        said = message.result() if message.done() else b""
        if said != STARTED:
            raise StartError(said.removeprefix(FAILED).decode("utf-8", "replace") or "no answer")
        asyncio.get_running_loop().add_reader(self._ours, self._receive)

    async def hung(self, watchdog: Watchdog) -> bool:
        """Return True once it has left too many pings in a row unanswered.

        False as soon as it was told to stop or has sent its last message: its end has a timeout of
        its own.
        """
        loop, missed = asyncio.get_running_loop(), 0
        while missed < watchdog.max_missed:
            self._ponged, pinged = False, loop.time()
            self.send(PING)
            with suppress(TimeoutError):
                async with asyncio.timeout(watchdog.interval):
                    await self._ending.wait()
            if self._ending.is_set():
                return False
            if self._ponged:
                missed = 0
            # Where this process itself was held up, the worker is not to blame.
            elif loop.time() - pinged < 2 * watchdog.interval:
                missed += 1
        return True

    def send(self, message: bytes) -> None:
        """Send a message; a worker that is gone gets none."""
        if message == STOP:
            self._ending.set()
        with suppress(OSError):  # it is gone, which whoever waits is about to see
            self._ours.send(message)

    async def _first_message(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._ours, 4096)
        except OSError:
            return b""

    def _receive(self) -> bool:
        """Take one message; tell whether there may be more."""
        try:
            message = self._ours.recv(LONGEST)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            # A worker that ended with our ping unread: the kernel tells that first, once, and then
            # what was sent before it.
            return True
        except OSError:
            message = b""
        if message == PONG:
            self._ponged = True
            return True
        if message.startswith(NOTICE):
            self._on_notice(message[1:])
            return True
        self._failed = self._failed or message.startswith(FAILED)
        self._ending.set()
        if not message:
            asyncio.get_running_loop().remove_reader(self._ours)
        return bool(message)


class Worker(ProcessSupervisor):
    """Supervise one worker.

    Attributes:
        has_failed: whether the one that ended last had said that it failed.
    """

    def __init__(
        self, settings: WorkerSettings, env: Mapping[str, str], policy: WorkerPolicy = POLICY
    ) -> None:
        """Take what to run; `settings` lack a control socket only."""
        super().__init__(policy.backoff, settings.grace + policy.stop_timeout)
        self.has_failed = False
        self._settings = settings
        self._env = env
        self._watchdog = policy.watchdog
        self._control: WorkerControl | None = None

    @abstractmethod
    def _command(self, settings: WorkerSettings, /) -> tuple[Sequence[str], Mapping[str, str]]:
        """Return the command for a worker, and what its environment has besides ours.

        Raises:
            StartError: where there is none.
        """

    def _launch(self) -> ChildProcess:
        control = WorkerControl(self._on_notice)
        try:
            settings = replace(self._settings, control=control.theirs.fileno())
            argv, more = self._command(settings)
            env = {**self._env, **more, **settings.environment()}
            process = ChildProcess(argv, env, pass_fds=(settings.control,))
        except OSError as error:
            control.close()
            raise StartError(f"a worker cannot be run: {error.strerror}") from error
        except StartError:
            control.close()
            raise
        self._control = control
        return process

    async def _until_ready(self, process: ChildProcess, /) -> None:
        assert self._control is not None
        await self._control.started(process.exited)

    async def _until_hung(self, _: ChildProcess, /) -> bool:
        assert self._control is not None
        return await self._control.hung(self._watchdog)

    async def _ask_to_stop(self, _: ChildProcess, /) -> None:
        self.send(STOP)

    async def _on_end(self) -> None:
        assert self._control is not None
        self._control.close()
        self.has_failed = self._control.has_failed
        self._control = None

    def _on_notice(self, notice: bytes) -> None:
        """Take a security event of the worker's."""

    def send(self, message: bytes) -> None:
        """Send it a message, where it runs."""
        if self._control is not None:
            self._control.send(message)

    def request_stop(self) -> None:
        """Have it answer what is in flight and end, for good; `wait` and `run` see to that."""
        self._stopping = True
        self.send(STOP)

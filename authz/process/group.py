"""A group of services: each started when those that it needs are ready, stopped in reverse order.

Invariant: `run` returns only when no process of its services is left, whatever ended it; and if it
never returns (SIGKILL), the kernel kills them (parent_death.py).
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from authz.process.output import ServiceLog
from authz.process.service import ServiceSpec, ServiceStartError, ServiceSupervisor, ServiceTiming

# Exit codes: stopped as asked; a service could not start.
STOPPED: Final = 0
FAILED: Final = 1

Handlers = Mapping[signal.Signals, Callable[[], None]]
Signals = Callable[[Handlers], AbstractContextManager[None]]
WhenReady = Callable[[], Awaitable[int | None]]


@contextmanager
def loop_signals(handlers: Handlers) -> Iterator[None]:
    """Have the running event loop call the handlers, in the main thread."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


class ServiceGroup:
    """Run services until something ends it.

    SIGTERM and SIGINT end it, a second one without waiting for anybody; SIGHUP and SIGUSR2 go to
    the services that reload.
    """

    def __init__(
        self,
        services: Sequence[ServiceSpec],
        logs: Path,
        say: Callable[[str], None],
        *,
        timing: ServiceTiming | None = None,
        signals: Signals = loop_signals,
        reloaded: Callable[[], None] | None = None,
    ) -> None:
        """Take what is to run; nothing starts yet.

        Args:
            services: in the order of their start; names are different.
            logs: the folder of the log files.
            say: takes one line for people.
            timing: how time is spent.
            signals: calls handlers of signals while it is entered.
            reloaded: called after SIGHUP was forwarded.
        """
        self._specs = tuple(services)
        self._logs = logs
        self._say = say
        self._timing = ServiceTiming() if timing is None else timing
        self._signals = signals
        self._reloaded = reloaded
        self._supervisors: list[ServiceSupervisor] = []
        self._end: asyncio.Future[int] | None = None
        self._force_stop = asyncio.Event()
        self._had_terminal = os.isatty(0)

    async def run(
        self,
        when_ready: WhenReady | None = None,
        when_started: Callable[[], None] | None = None,
    ) -> int:
        """Start the services and keep them running; return an exit code when none is left.

        Args:
            when_ready: called once every service is ready; a code that it returns ends the run.
            when_started: called once every service was started, the late ones included.

        Raises:
            Exception: what `when_ready` raises, after the services were ended.
        """
        self._end = asyncio.get_running_loop().create_future()
        logs: list[ServiceLog] = []
        tasks: list[asyncio.Task[None]] = []
        handlers = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self._hang_up,
            signal.SIGUSR2: self._rolling_restart,
        }
        with self._signals(handlers):
            try:
                await self._start(logs, tasks, self._end)
                if when_started is not None and not self._end.done():
                    when_started()
                if when_ready is not None:
                    tasks.append(self._watched(self._call(when_ready, self._end)))
                return await self._end
            except ServiceStartError as failed:
                self._say(str(failed))
                return FAILED
            finally:
                await self._stop_all(tasks)
                for log in logs:
                    log.close()

    def stop(self) -> None:
        """End the run; asked a second time, at once."""
        if self._end is None or self._end.done():
            self._force_stop.set()
        else:
            self._say("stopping; once more to wait for nobody")
            self._end.set_result(STOPPED)

    def reload(self) -> None:
        """Forward SIGHUP to the services that reload."""
        for supervisor in self._supervisors:
            if supervisor.spec.reloads:
                supervisor.reload()
        if self._reloaded is not None:
            self._reloaded()

    def _rolling_restart(self) -> None:
        """Forward SIGUSR2, at which workers are restarted, to the services that reload."""
        for supervisor in self._supervisors:
            if supervisor.spec.reloads:
                supervisor.forward_restart()

    def _hang_up(self) -> None:
        """Tell a terminal that was closed from somebody who asks for a reload."""
        if self._had_terminal and not os.isatty(0):
            self.stop()
        else:
            self.reload()

    async def _start(
        self, logs: list[ServiceLog], tasks: list[asyncio.Task[None]], end: asyncio.Future[int]
    ) -> None:
        for spec in self._specs:
            if not spec.beside:
                await self._passed(end)
            if end.done():
                return
            logs.append(ServiceLog(self._logs / f"{spec.name}.log", self._echo(spec)))
            supervisor = ServiceSupervisor(
                spec, logs[-1], self._speaker(spec.name, "  "), self._timing
            )
            self._supervisors.append(supervisor)
            tasks.append(self._watched(supervisor.run()))
        await self._passed(end)

    async def _passed(self, end: asyncio.Future[int]) -> None:
        """Wait until those that were started are ready or passed over, or for the end."""
        for supervisor in self._supervisors:
            await self._first(supervisor.passed.wait(), end)

    def _echo(self, spec: ServiceSpec) -> Callable[[str], None] | None:
        shown = spec.echo
        if shown is None:
            return None
        speak = self._speaker(spec.name, " | ")
        return lambda line: speak(shown(line))

    def _speaker(self, name: str, mark: str) -> Callable[[str], None]:
        width = max(len(spec.name) for spec in self._specs)
        return lambda line: self._say(f"{name:<{width}}{mark}{line}")

    def _watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something whose failure ends the run."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._failed)
        return task

    def _failed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._end is not None and not self._end.done():
            self._end.set_exception(error)

    async def _call(self, when_ready: WhenReady, end: asyncio.Future[int]) -> None:
        for supervisor in self._supervisors:
            await supervisor.ready.wait()
        code = await when_ready()
        if code is not None and not end.done():
            end.set_result(code)

    async def _first(self, work: Coroutine[Any, Any, object], end: asyncio.Future[int]) -> None:
        """Wait for something or for the end, whichever comes first."""
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, end}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()

    async def _stop_all(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for supervisor in reversed(self._supervisors):
            await supervisor.stop(self._force_stop)

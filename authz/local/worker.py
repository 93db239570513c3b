"""The one worker of `authz up`: the service, started, told and watched from here.

`authz serve` would put a process between, and read authz.yaml once more before the worker does. It
is run where the worker does not start: it says what is wrong, and has another transport.
"""

import asyncio
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from authz.process.supervisor import StartError
from authz.server.worker_control import (
    POLICY,
    RELOAD,
    STOP,
    Watchdog,
    WorkerControl,
    WorkerSettings,
)


@dataclass(frozen=True, slots=True)
class UpWorker:
    """Describe the worker.

    Attributes:
        settings: its settings; they lack a control socket only.
        argv: its command.
        environment: what its environment has besides ours.
        log: `telemetry.log`.
    """

    settings: WorkerSettings
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: str

    @classmethod
    def of_members(cls, said: Mapping[str, Any]) -> Self:
        """Read one from what `asdict` and JSON made of it."""
        settings = WorkerSettings.of_members(said["settings"])
        return cls(**{**said, "settings": settings, "argv": tuple(said["argv"])})


class WorkerStarter:
    """Open the channel for each start of the worker.

    A start that fails is followed by one of `authz serve`, once.
    """

    def __init__(
        self, worker: UpWorker, env: Mapping[str, str], watchdog: Watchdog = POLICY.watchdog
    ) -> None:
        """Take what to run, the environment, and when a worker is taken to hang."""
        self._worker = worker
        self._env = env
        self._watchdog = watchdog
        self._failed = False

    def __call__(self) -> "WorkerProcess | None":
        """Return the channel for a new process; None where `authz serve` is to be run."""
        if self._failed:
            self._failed = False
            return None
        return WorkerProcess(self._worker, self._env, self._watchdog, self._on_failure)

    def _on_failure(self) -> None:
        self._failed = True


class WorkerProcess:
    """Hold the socket to one process: what `ServiceControl` asks for."""

    def __init__(
        self,
        worker: UpWorker,
        env: Mapping[str, str],
        watchdog: Watchdog,
        on_failure: Callable[[], None],
    ) -> None:
        """Make the socket; `on_failure` is called where the process does not start."""
        self._control = WorkerControl()
        self._log = worker.log
        self._watchdog = watchdog
        self._on_failure = on_failure
        settings = replace(worker.settings, control=self._control.theirs.fileno())
        self.argv: Sequence[str] = worker.argv
        self.env: Mapping[str, str] = {**env, **worker.environment, **settings.environment()}
        self.inherited: Sequence[int] = (settings.control,)

    async def watch(self, exited: "asyncio.Future[int]", /) -> bool:
        """Return as `ServiceControl.watch`.

        Raises:
            StartError: where the process does not answer Check.
        """
        try:
            await self._control.started(exited)
        except StartError:
            self._on_failure()
            raise
        return await self._control.hung(self._watchdog)

    def describe_hang(self) -> bytes:
        """Return the event `worker_hung`, as the worker itself would write it."""
        from authz.telemetry.audit import EventLog  # noqa: PLC0415 - loaded in the last moment

        text = io.StringIO()
        log = EventLog(self._log, text)
        log.write({"event": "worker_hung", "unanswered": self._watchdog.max_missed})
        return text.getvalue().encode()

    def ask_to_stop(self) -> None:
        """Have it answer what is in flight and end."""
        self._control.send(STOP)

    def reload(self) -> None:
        """Have it read authz.yaml."""
        self._control.send(RELOAD)

    def close(self) -> None:
        """Close the socket, which a process that still runs takes as a stop."""
        self._control.close()

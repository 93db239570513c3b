"""Several workers and the process above them: it starts, watches, restarts and ends them.

Law: a worker that dies is started again, later and later where it dies again; one that hangs is
killed, and then has died. One that is told to end answers first. Of a rolling restart never more
than one worker is away, and one that does not come up again stops it. A worker started anew has
the configuration in force, not the file that somebody is writing.
"""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from authz.config.load import Settings, read, read_text
from authz.config.problems import ConfigError
from authz.server import pyvoy
from authz.server.compiled import is_compiled
from authz.server.metrics_aggregator import MetricsAggregator, WorkerMetrics
from authz.server.worker_control import (
    PATIENCE,
    WATCHDOG,
    Watchdog,
    WorkerControl,
    WorkerStartError,
    end,
)
from authz.server.worker_ipc import RELOAD, STOP, WorkerSettings
from authz.telemetry.recorder import Recorder

# Seconds between two looks at what the workers have counted.
_LOOK: Final = 1.0
# Seconds between two looks whether a worker is ready, and until one has to be.
_POLL: Final = 0.05
_READY: Final = 60.0

Launch = Callable[[WorkerSettings, Mapping[str, str]], Awaitable[Process]]


async def _launch_grpcio(settings: WorkerSettings, env: Mapping[str, str]) -> Process:
    # -P: a file in the working folder must not stand in for a module of ours.
    command = (sys.executable, "-P", "-m", "authz.server.grpcio_worker")
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            env={**env, **settings.environment()},
            pass_fds=(settings.control,),
            # Ctrl-C goes to a whole group of processes.
            start_new_session=True,
        )
    except OSError as error:
        raise WorkerStartError(f"a worker cannot be run: {error.strerror}") from error


LAUNCH: Final[Mapping[str, Launch]] = {"pyvoy": pyvoy.launch, "grpcio": _launch_grpcio}


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Say how long a worker is waited for, and how long one that died is waited with; seconds.

    Attributes:
        first: before the first restart; it doubles from restart to restart.
        longest: the most that it doubles to.
        steady: that a worker must have run for earlier deaths to be forgotten.
        farewell: on top of the grace, in which a worker that was told to end has to be gone:
            `service.drain_notice` is 60 at most.
        watch: when a worker that runs is taken to hang.
    """

    first: float = 0.25
    longest: float = 30.0
    steady: float = 60.0
    farewell: float = 65.0 + PATIENCE
    watchdog: Watchdog = WATCHDOG


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Describe a pool of workers.

    Attributes:
        configuration: authz.yaml.
        checks: where each worker answers Check, in its order.
        status: host and port for the metrics and probes of all.
        grace: seconds that what is in flight has at the end.
        transport: `service.transport`.
    """

    configuration: Path
    checks: Sequence[str]
    status: tuple[str, int]
    grace: float
    transport: str


class WorkerSlot:
    """Keep one worker running, in its place.

    Attributes:
        slot: what was counted there.
    """

    def __init__(
        self, settings: WorkerSettings, env: Mapping[str, str], recorder: Recorder
    ) -> None:
        """Take what to run; `orders` lacks a control socket only."""
        self.metrics = WorkerMetrics(Path(str(settings.status)))
        self._settings = settings
        self._env = env
        self._recorder = recorder
        self._control: WorkerControl | None = None
        self._process: Process | None = None
        self._gone = asyncio.Event()
        self._restarting = False
        self._stopping = False

    async def start(self, launch: Launch) -> None:
        """Start it once, and return when it answers Check.

        Raises:
            WorkerStartError: where it does not; nothing is left of it then.
        """
        if self._stopping:
            raise WorkerStartError("told to stop")
        control, process = WorkerControl(), None
        try:
            settings = replace(self._settings, control=control.theirs.fileno())
            process = await launch(settings, self._env)
            await control.started(process)
        except BaseException:
            control.close()
            if process is not None:
                await end(process)
            raise
        self._control, self._process = control, process
        self._gone.clear()
        self.metrics.begin()
        if self._stopping:
            control.order(STOP)

    async def keep(self, launch: Launch, restart_policy: RestartPolicy) -> None:
        """Start it again whenever it ends or hangs, until `stop`."""
        pause = restart_policy.first
        while self._process is not None:
            began = time.monotonic()
            code = await self._over(restart_policy)
            if self._stopping:
                return
            if self._restarting:
                self._restarting = False
                pause = 0.0
            else:
                self._recorder.metrics.worker_restarts.inc()
                steady = time.monotonic() - began >= restart_policy.steady
                pause = (
                    restart_policy.first
                    if steady
                    else min(max(pause * 2, restart_policy.first), restart_policy.longest)
                )
                if code is not None:
                    self._say("worker_ended", status=code, pause=pause)
            while not await self._started_again(launch, pause):
                pause = min(max(pause * 2, restart_policy.first), restart_policy.longest)

    async def _started_again(self, launch: Launch, pause: float) -> bool:
        await asyncio.sleep(pause)
        if self._stopping:
            return True
        try:
            await self.start(launch)
        except WorkerStartError as error:
            self._say("worker_not_started", why=str(error))
            return False
        return True

    async def _over(self, restart_policy: RestartPolicy) -> int | None:
        """Return the exit status of the process, once it has ended; None where it had hung."""
        assert self._process is not None
        assert self._control is not None
        ended = asyncio.ensure_future(self._process.wait())
        watching = asyncio.ensure_future(self._control.hung(restart_policy.watchdog))
        await asyncio.wait({ended, watching}, return_when=asyncio.FIRST_COMPLETED)
        hung = not ended.done() and watching.result()
        watching.cancel()
        if hung:
            # Said before: what waits for a disk that is away does not even die of a SIGKILL.
            self._say("worker_hung", unanswered=restart_policy.watchdog.most)
        # Told to end, it has its time and no more. On pyvoy the process is the Envoy too.
        code = await end(
            self._process, 0 if hung else self._settings.grace + restart_policy.farewell
        )
        await ended
        self._control.close()
        # The pages wait for nobody: what was left behind is read in a thread.
        await asyncio.to_thread(self.metrics.end, Path(self._settings.final_metrics))
        self._process = self._control = None
        self._gone.set()
        return None if hung else code

    def order(self, order: bytes) -> None:
        """Give it an order, where it runs."""
        if self._control is not None:
            self._control.order(order)

    def stop(self) -> None:
        """Have it answer what is in flight and end, for good."""
        self._stopping = True
        self.order(STOP)

    async def restart(self) -> str:
        """Have it end as at `stop` and start again; return why it is not ready, empty where it is.

        One that is not running is only waited for.
        """
        if self._control is not None:
            self._restarting = True
            self.order(STOP)
            await self._gone.wait()
        return await self.ready()

    async def ready(self) -> str:
        """Wait until it is ready, and return why it is not; empty where it is."""
        until = time.monotonic() + _READY
        while True:
            state = await asyncio.to_thread(self.metrics.state)
            if state.ready:
                return ""
            if time.monotonic() > until:
                return "; ".join(f"{part}: {why}" for part, why in state.parts.items() if why)
            await asyncio.sleep(_POLL)

    def kill(self) -> None:
        """End the process at once, where there is one."""
        if self._process is not None:
            _kill(self._process)

    def _say(self, event: str, **fields: object) -> None:
        self._recorder.event(event, worker=self._settings.worker, **fields)


class WorkerPool:
    """Run several workers."""

    def __init__(
        self,
        pool_settings: PoolSettings,
        settings: Settings,
        text: str,
        env: Mapping[str, str],
        recorder: Recorder,
        *,
        restart_policy: RestartPolicy | None = None,
    ) -> None:
        """Take what to run.

        Args:
            pool_settings: the workers.
            settings: what authz.yaml holds.
            text: its very text.
            env: the environment.
            recorder: where events go, and what this process counts.
            restart_policy: how long workers are waited for and with.
        """
        self._pool_settings = pool_settings
        self._workers_wanted = settings.config.service.workers
        self._text = text
        self._env = env
        self._recorder = recorder
        self._restart_policy = restart_policy or RestartPolicy()
        self._workers: list[WorkerSlot] = []
        self._in_force = Path()
        self._stop = asyncio.Event()
        self._jobs: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()

    async def run(self) -> int:
        """Run the workers until told to stop; return 0 where all was in order.

        Raises:
            OSError: where they cannot be started, or the status address cannot be had.
        """
        # Only this user enters it: the workers' counts, the configuration in force.
        with TemporaryDirectory(prefix="authz-") as folder:
            self._in_force = Path(folder) / "authz.yaml"
            self._accept(self._text)
            self._workers = [
                self._worker(Path(folder), n) for n in range(len(self._pool_settings.checks))
            ]
            registry = self._recorder.metrics.registry
            aggregator = MetricsAggregator(
                [one.metrics for one in self._workers], registry, self._pool_settings.status
            )
            aggregator.start()
            self._follow_signals()
            try:
                return await self._serve(aggregator)
            finally:
                for one in self._workers:
                    one.kill()
                aggregator.stop()

    def _worker(self, folder: Path, number: int) -> WorkerSlot:
        settings = WorkerSettings(
            configuration=str(self._pool_settings.configuration),
            check=self._pool_settings.checks[number],
            status=str(folder / f"{number}.status"),
            grace=self._pool_settings.grace,
            admin=str(folder / f"{number}.admin"),
            control=-1,
            text=str(self._in_force),
            final_metrics=str(folder / f"{number}.counts"),
            worker=number,
        )
        return WorkerSlot(settings, self._env, self._recorder)

    async def _serve(self, aggregator: MetricsAggregator) -> int:
        launch, transport = await self._start_first()
        if launch is None:
            return 0
        others = (one.start(launch) for one in self._workers[1:])
        started = await asyncio.gather(*others, return_exceptions=True)
        for problem in started:
            if isinstance(problem, BaseException) and not self._stop.is_set():
                raise OSError(f"a worker did not start: {problem}") from problem
        self._recorder.event(
            "started",
            check=list(self._pool_settings.checks),
            status=aggregator.port,
            transport=transport,
            compiled=is_compiled(),
            workers=len(self._workers),
        )
        async with asyncio.TaskGroup() as tasks:
            around = [
                tasks.create_task(self._keep_looking(aggregator)),
                tasks.create_task(self._run_jobs()),
            ]
            kept = [
                tasks.create_task(one.keep(launch, self._restart_policy)) for one in self._workers
            ]
            await self._stop.wait()
            for one in self._workers:
                one.stop()
            await asyncio.wait(kept)
            for task in around:
                task.cancel()
        self._recorder.event("stopped")
        return 0

    async def _start_first(self) -> tuple[Launch | None, str]:
        """Start one worker on the transport that is wanted; where it does not run, on the other.

        Raises:
            OSError: where none can be started.
        """
        wanted = self._pool_settings.transport
        names = ("pyvoy", "grpcio") if wanted == "auto" else (wanted,)
        why = ""
        for name in names:
            try:
                await self._workers[0].start(LAUNCH[name])
            except WorkerStartError as error:
                if self._stop.is_set():
                    return None, name
                why = str(error)
            else:
                if name != names[0]:
                    self._recorder.event("transport", wanted=wanted, used=name, why=why)
                return LAUNCH[name], name
        raise OSError(f"the service did not start on {names[-1]}: {why}")

    # --- signals ------------------------------------------------------------------------------

    def _follow_signals(self) -> None:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._stop_all,
            signal.SIGINT: self._stop_all,
            signal.SIGHUP: lambda: self._jobs.put_nowait(self._reload),
            signal.SIGUSR2: lambda: self._jobs.put_nowait(self._rolling_restart),
        }
        # In a test's thread there are no signals.
        with suppress(ValueError, RuntimeError):
            for number, handler in handlers.items():
                loop.add_signal_handler(number, handler)

    def _stop_all(self) -> None:
        self._stop.set()
        # Also those that are just starting.
        for one in self._workers:
            one.stop()

    async def _run_jobs(self) -> None:
        """Do one after the other what signals ask for."""
        while True:
            job = await self._jobs.get()
            try:
                await job()
            except Exception as error:  # noqa: BLE001 - what fails here must not stop the workers
                self._recorder.crash(error)

    async def _reload(self) -> None:
        """Read authz.yaml; a good one is in force for all workers, one with an error for none."""
        if await self._take_over():
            for one in self._workers:
                one.order(RELOAD)

    async def _rolling_restart(self) -> None:
        """Restart the workers, one after the other, with authz.yaml as it is now."""
        if not await self._take_over():
            return
        self._recorder.event("rolling_restart")
        for number, one in enumerate(self._workers):
            why = await one.restart()
            if why:
                self._recorder.event("rolling_restart_stopped", worker=number, why=why)
                return
        self._recorder.event("rolling_restart_done", workers=len(self._workers))

    async def _take_over(self) -> bool:
        """Read authz.yaml and have it in force; tell whether it is."""
        try:
            text, settings = await asyncio.to_thread(self._read)
        except ConfigError as errors:
            self._recorder.metrics.reloads.labels("refused").inc()
            problems = [str(problem) for problem in errors.problems]
            self._recorder.event("reload_refused", problems=problems)
            return False
        if settings.config.service.workers != self._workers_wanted:
            self._recorder.event(
                "config_warning", problem="service.workers changes when authz is started again"
            )
        self._accept(text)
        return True

    def _read(self) -> tuple[str, Settings]:
        file = self._pool_settings.configuration
        text = read_text(file)
        return text, read(text, str(file), self._env)

    def _accept(self, text: str) -> None:
        """Put a text in force: as a whole, also for a worker that is just reading it."""
        new = self._in_force.with_suffix(".new")
        new.write_text(text, "utf-8")
        new.replace(self._in_force)

    async def _keep_looking(self, aggregator: MetricsAggregator) -> None:
        while True:
            await asyncio.to_thread(aggregator.look)
            await asyncio.sleep(_LOOK)


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()

"""Several workers and the process above them, which starts, watches, restarts and stops them.

Invariant: of a rolling restart never more than one worker is away, and one that does not come up
again stops it. A worker started anew has the configuration in force, not the file that somebody is
writing.
"""

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from authz.config.files import write_atomically
from authz.config.load import Settings, load
from authz.config.restarts import restarts_of_serve
from authz.notify.messages import TimedNotice
from authz.notify.notifier import Notifier
from authz.notify.targets import notify_targets
from authz.process.run_folder import make_run_folder
from authz.process.supervisor import Failure, StartError
from authz.process.ticks import next_tick
from authz.server.envoy_follower import EnvoyFollower, WatchedFolder
from authz.server.envoy_statistics import envoy_pages
from authz.server.health import Health
from authz.server.metrics_aggregator import MetricsAggregator, WorkerMetrics
from authz.server.reloader import ConfigReloader
from authz.server.service import is_compiled
from authz.server.transports import COMMANDS, Command, candidates
from authz.server.worker_control import (
    POLICY,
    RELOAD,
    Worker,
    WorkerPolicy,
    WorkerSettings,
)
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import SecurityNotice

# Seconds between two scrapes of the workers' metrics.
_SCRAPE: Final = 1.0
# Scrapes in a row in which a worker runs another configuration until that is told: a reload waits
# for keys of a new issuer.
_DIFFERING: Final = 20
# Seconds between two looks whether a worker is ready, and until one has to be.
_POLL: Final = 0.05
_READY: Final = 60.0


class PoolWorker(Worker):
    """Supervise one of several workers.

    Attributes:
        metrics: what was counted in its place.
        command: what to run.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        env: Mapping[str, str],
        recorder: Recorder,
        policy: WorkerPolicy,
        notify: Callable[[SecurityNotice], None],
    ) -> None:
        """Take what to run; `settings` lack a control socket only."""
        super().__init__(settings, env, policy)
        self._notify = notify
        self.metrics = WorkerMetrics(Path(str(settings.status)))
        self.command: Command = COMMANDS["grpcio"]
        self._recorder = recorder

    async def start(self) -> None:
        """Start it once, and return when it answers Check.

        Raises:
            StartError: where it does not; nothing is left of it then.
        """
        await super().start()
        self.metrics.begin()

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

    def _command(self, settings: WorkerSettings) -> tuple[Sequence[str], Mapping[str, str]]:
        return self.command(settings, None)

    def _on_notice(self, notice: bytes) -> None:
        # A worker that has gone wrong must not end the supervision of the others.
        with suppress(ValueError, TypeError, KeyError):
            told = TimedNotice.decode(notice).notice
            if told is not None:
                self._notify(told)

    def _on_hung(self) -> None:
        self._log("worker_hung", unanswered=self._watchdog.max_missed)

    async def _on_end(self) -> None:
        await super()._on_end()
        # The status pages wait for nobody: what was left behind is read in a thread.
        await asyncio.to_thread(self.metrics.end, Path(self._settings.final_metrics))

    def _on_failure(self, failure: Failure) -> None:
        if failure.error is not None:
            self._log("worker_not_started", why=str(failure.error))
            return
        self._recorder.metrics.worker_restarts.inc()
        if not failure.hung:
            self._log("worker_ended", status=failure.status, pause=failure.pause)

    def _log(self, event: str, **fields: object) -> None:
        self._recorder.event(event, worker=self._settings.worker, **fields)


class WorkerPool:
    """Run several workers."""

    def __init__(
        self,
        worker: WorkerSettings,
        checks: Sequence[str],
        settings: Settings,
        *,
        env: Mapping[str, str],
        recorder: Recorder,
        policy: WorkerPolicy = POLICY,
    ) -> None:
        """Take what to run.

        Args:
            worker: what all workers share; its status address is the one of all.
            checks: where each worker answers Check, in its order.
            settings: what authz.yaml holds.
            env: the environment.
            recorder: where events go, and what this process counts.
            policy: how long workers are waited for.
        """
        self._worker = worker
        self._checks = checks
        self._service = settings.config.service
        self._env = env
        self._recorder = recorder
        self._policy = policy
        self._workers: list[PoolWorker] = []
        self._in_force = Path()
        self._stop = asyncio.Event()
        self._jobs: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._health = Health()
        self._differing = 0
        self._follower = None
        if worker.envoy:
            watched = WatchedFolder(worker.envoy, worker.python)
            self._follower = EnvoyFollower(watched, env, recorder, self._health)
        self._notifier = Notifier(worker.python or sys.executable, env, recorder)
        recorder.notify = self._notifier.offer
        self._followed: Settings | None = None
        self._following: asyncio.Task[None] | None = None
        self._reloader = ConfigReloader(
            self._read,
            self._reload,
            recorder,
            settings,
            file=Path(worker.configuration),
            announces=False,
            tells_change=True,
            health=self._health,
            restarts=restarts_of_serve,
        )

    async def run(self) -> int:
        """Run the workers until told to stop; return 0 where all was in order.

        Raises:
            OSError: where they cannot be started, or the status address cannot be had.
        """
        # Only this user enters it: the workers' metrics, the configuration in force.
        folder = Path(make_run_folder())
        try:
            self._in_force = folder / "authz.yaml"
            await self._put_in_force(self._reloader.settings)
            self._workers = [self._make(folder, n) for n in range(len(self._checks))]
            registry = self._recorder.metrics.registry
            metrics = [one.metrics for one in self._workers]
            aggregator = MetricsAggregator(
                metrics,
                registry,
                self._worker.status,
                self._health,
                more=envoy_pages(self._worker.envoy_stats),
            )
            aggregator.start()
            self._follow_signals()
            try:
                return await self._serve(aggregator)
            finally:
                for one in self._workers:
                    one.kill()
                aggregator.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _make(self, folder: Path, number: int) -> PoolWorker:
        settings = replace(
            self._worker,
            check=self._checks[number],
            status=str(folder / f"{number}.status"),
            admin=str(folder / f"{number}.admin"),
            text=str(self._in_force),
            final_metrics=str(folder / f"{number}.counts"),
            worker=number,
        )
        return PoolWorker(settings, self._env, self._recorder, self._policy, self._notifier.offer)

    async def _serve(self, aggregator: MetricsAggregator) -> int:
        transport = await self._start_first()
        if transport is None:
            return 0
        for one in self._workers:
            one.command = COMMANDS[transport]
        others = (one.start() for one in self._workers[1:])
        started = await asyncio.gather(*others, return_exceptions=True)
        for problem in started:
            if isinstance(problem, BaseException) and not self._stop.is_set():
                raise OSError(f"a worker did not start: {problem}") from problem
        self._recorder.event(
            "started",
            check=list(self._checks),
            status=aggregator.port,
            transport=transport,
            compiled=is_compiled(),
            workers=len(self._workers),
            config=str(self._reloader.settings.digest),
        )
        async with asyncio.TaskGroup() as tasks:
            around = [
                tasks.create_task(self._keep_scraping(aggregator)),
                tasks.create_task(self._run_jobs()),
                tasks.create_task(self._reloader.run()),
            ]
            running = [tasks.create_task(one.run()) for one in self._workers]
            self._follow_envoy(self._reloader.settings)
            self._notifier.configure(notify_targets(self._reloader.settings))
            await self._stop.wait()
            if self._follower is not None:
                self._follower.stop()
            await asyncio.wait(running)
            for task in around:
                task.cancel()
            await self._notifier.aclose()
        self._recorder.event("stopped")
        return 0

    async def _start_first(self) -> str | None:
        """Start one worker on the transport that is wanted; where it does not run, on the other.

        Returns:
            the transport; None where all was stopped meanwhile.

        Raises:
            OSError: where none can be started.
        """
        wanted = self._service.transport
        names = candidates(wanted)
        first, missing = self._workers[0], list[str]()
        for name in names:
            first.command = COMMANDS[name]
            try:
                await first.start()
            except StartError as error:
                if self._stop.is_set():
                    return None
                missing.append(f"{name}: {error}")
            else:
                if name != names[0]:
                    why = "; ".join(missing)
                    self._recorder.event("transport", wanted=wanted, used=name, why=why)
                return name
        raise OSError(f"the service did not start: {'; '.join(missing)}")

    # --- signals ------------------------------------------------------------------------------

    def _follow_signals(self) -> None:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._stop_all,
            signal.SIGINT: self._stop_all,
            signal.SIGHUP: self._reloader.request,
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
            one.request_stop()

    async def _run_jobs(self) -> None:
        """Do one after the other what signals ask for."""
        while True:
            job = await self._jobs.get()
            try:
                await job()
            except Exception as error:  # noqa: BLE001 - what fails here must not stop the workers
                self._recorder.crash(error)

    async def _reload(self, settings: Settings) -> None:
        """Have all workers take the configuration that was read; it has no error."""
        await self._put_in_force(settings)
        for one in self._workers:
            one.send(RELOAD)
        self._follow_envoy(settings)
        self._notifier.configure(notify_targets(settings))

    async def _rolling_restart(self) -> None:
        """Restart the workers, one after the other, with authz.yaml as it is now."""
        if not await self._reloader.reload(take=self._put_in_force):
            return
        self._recorder.event("rolling_restart")
        for number, one in enumerate(self._workers):
            # One that is not running is only waited for.
            await one.restart()
            why = await one.ready()
            if why:
                self._recorder.event("rolling_restart_stopped", worker=number, why=why)
                return
        self._recorder.event("rolling_restart_done", workers=len(self._workers))
        self._follow_envoy(self._reloader.settings)

    def _follow_envoy(self, settings: Settings) -> None:
        """Have Envoy follow a configuration, once all workers have it."""
        if self._follower is not None:
            self._followed = settings
            self._following = asyncio.create_task(self._follow(self._follower, settings))

    async def _follow(self, follower: EnvoyFollower, settings: Settings) -> None:
        wanted, until = str(settings.digest), time.monotonic() + _READY
        for one in self._workers:
            while time.monotonic() < until and self._followed is settings:
                if (await asyncio.to_thread(one.metrics.state)).config == wanted:
                    break
                await asyncio.sleep(_POLL)
        if self._followed is settings:
            await follower.follow(settings)

    def _read(self) -> Settings:
        return load(Path(self._worker.configuration), self._env)

    async def _put_in_force(self, settings: Settings) -> None:
        """Put a configuration in force: as a whole, also for a worker that is just reading it."""
        write_atomically(self._in_force, settings.text)

    async def _keep_scraping(self, aggregator: MetricsAggregator) -> None:
        while True:
            await asyncio.to_thread(aggregator.scrape)
            self.compare_workers()
            self._recorder.flush_security()
            await next_tick(_SCRAPE)

    def compare_workers(self) -> None:
        """Tell of workers that have run another configuration for longer than a reload takes."""
        given = str(self._reloader.settings.digest)
        others = [
            number
            for number, one in enumerate(self._workers)
            if one.metrics.config not in {"", given}
        ]
        self._differing = self._differing + 1 if others else 0
        if not others or self._differing >= _DIFFERING:
            self._reloader.tell_of_workers(others)

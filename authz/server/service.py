"""The service: its parts built once, started in order, stopped in reverse; reloaded as a whole.

Invariant: a new configuration takes effect at once and entirely, or not at all; and what is in
flight when the service is told to stop is answered.
"""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from authz.config.load import Settings
from authz.config.restarts import SERVE, restarts_of_serve
from authz.core import decision
from authz.core.identity_cache import IdentityCache
from authz.core.policy import before_moves
from authz.notify.notifier import Notifier
from authz.notify.targets import notify_targets
from authz.process.ticks import next_tick
from authz.server.activity_reporter import ActivityReporter, ReportedState
from authz.server.assemble import Assembly
from authz.server.check import Check, Snapshot
from authz.server.envoy_follower import EnvoyFollower, WatchedFolder
from authz.server.envoy_statistics import envoy_pages
from authz.server.grpc_calls import Calls
from authz.server.health import Health
from authz.server.list_filter import ListFilter
from authz.server.otlp import FLUSH, SERVICE, attach
from authz.server.processing import ProcessorFactory, ResponseProcessor
from authz.server.redis_options import REDIS_REFUSED
from authz.server.refusal_limiter import RefusalLimiter
from authz.server.reloader import ConfigReloader, RefusedConfigError
from authz.server.status import Status
from authz.server.tool_catalogues import ToolCatalogues
from authz.server.upstream_health import UpstreamHealth
from authz.server.worker_control import ListenAddress
from authz.telemetry.certificate_expiry import CertificateExpiry
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import SecurityNotice

# Seconds between two looks at readiness.
_LOOK: Final = 1.0
# Objects made before the youngest are looked at for garbage. The default, 700, is what ten
# decisions in flight make: they were looked at again and again while they waited for Redis.
_YOUNG: Final = 20_000
_OLDER: Final = 10
# Seconds that Envoy has to follow a reload.
_FOLLOWED: Final = 60.0
Load = Callable[[], Settings]


class Transport(Protocol):
    """Carry bytes between Envoy and the check."""

    @property
    def name(self) -> str:
        """Return its word in `service.transport`."""
        ...

    def listen(self, address: str) -> int:
        """Bind `unix:/path` or `host:port` and return the port; 0 for a socket file.

        Raises:
            OSError: where the address cannot be bound.
        """
        ...

    async def start(self) -> None:
        """Begin to answer."""
        ...

    async def stop(self, grace: float) -> None:
        """Take nothing new, answer what is in flight, at most `grace` seconds long."""
        ...


# Makes the transport that serves some calls; nothing listens yet.
MakeTransport = Callable[[Calls], Transport]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Name where the service listens.

    Attributes:
        check: `unix:/path` or `host:port`, for Envoy.
        status: host and port, for Prometheus and probes; one of several workers has a socket.
        envoy_stats: the socket at which Envoy tells its statistics, which are passed on; or empty.
    """

    check: str
    status: ListenAddress
    envoy_stats: str = ""


class Service:
    """Run one worker."""

    def __init__(
        self,
        load: Load,
        env: Mapping[str, str],
        listeners: Listeners,
        recorder: Recorder,
        grace: float,
        *,
        transport: MakeTransport,
        file: Path | None = None,
        envoy: WatchedFolder | None = None,
        keeps_former: bool = False,
        worker: int | None = None,
        python: str = sys.executable,
        notify: Callable[[SecurityNotice], None] | None = None,
    ) -> None:
        """Build from what `load` returns; `load` is called again at every reload.

        Args:
            load: reads the configuration.
            env: the environment.
            listeners: where to listen.
            recorder: where decisions go.
            grace: seconds that what is in flight has at the end.
            transport: makes the transport.
            file: authz.yaml, to be watched; None where another process tells of its changes.
            envoy: whose files are written after each reload; None where nobody has to, or somebody
                else does.
            keeps_former: whether Envoy follows a reload, so that servers that only moved are served
                over their old routes meanwhile (decision 23).
            worker: the number of this process among several.
            python: the interpreter; a service embedded in an Envoy has none to ask.
            notify: hands security events to the process above several workers; None where this one
                has people notified itself.

        Raises:
            ConfigError: where the configuration is wrong.
        """
        self._env = env
        self._listeners = listeners
        is_first = worker is None or worker == 0  # of several workers one tells of the upstreams
        tells = bool(listeners.envoy_stats) and is_first
        self._upstreams = UpstreamHealth(listeners.envoy_stats) if tells else None
        self._recorder = recorder
        self._grace = grace
        self._make_transport = transport
        self._health = Health()
        self._follower = None
        if envoy is not None:
            self._follower = EnvoyFollower(envoy, env, recorder, self._health)
        self._keeps_former = keeps_former
        self._notifier = Notifier(python, env, recorder) if notify is None else None
        recorder.notify = notify if self._notifier is None else self._notifier.offer
        settings = load()
        # Before the parts are built: they ask the recorder whether anything is traced.
        self._export = attach(settings, recorder, SERVICE, worker=worker)
        self._assembly = Assembly(settings, env, recorder)
        self._reloader = ConfigReloader(
            load,
            self._take,
            recorder,
            settings,
            file=file,
            tells_change=file is not None,
            health=self._health,
            restarts=restarts_of_serve,
        )
        self.check = Check(self._assembly.snapshot, recorder, RefusalLimiter())
        self._stop = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()
        self.ports: tuple[int, int] = (0, 0)
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop (SIGTERM, SIGINT or `stop`)."""
        lists = ListFilter(lambda: self.check.snapshot, self._recorder, self._tools)
        transport = self._make_transport(
            Calls(
                self.check,
                self._health,
                self._settings.policy.max_body,
                self._processor_factory(lists),
                None if self._recorder.tracer is None else self.check,
            )
        )
        status = Status(
            self._recorder.metrics.registry,
            self._health,
            self._listeners.status,
            # Of the assembly that is in force: a reload brings other keys.
            lambda: self._assembly.identity_keys,
            envoy_pages(self._listeners.envoy_stats),
        )
        try:
            port = transport.listen(self._listeners.check)
            self.ports = (port, status.port)
            status.start()
            self._export.start()
            self._recorder.metrics.follow(self._key_age, self._mode)
            expiry = CertificateExpiry(self._certificate)
            if expiry.is_known():
                self._recorder.metrics.follow_certificate(expiry)
            async with asyncio.TaskGroup() as tasks:
                self._assembly.start()
                self._notify(self._settings)
                look = tasks.create_task(self._keep_looking())
                reloads = tasks.create_task(self._reloader.run())
                reporter = ActivityReporter(
                    SERVE, lambda: self._reported(expiry), self._recorder, self._health
                )
                reports = tasks.create_task(reporter.run())
                await transport.start()
                self._handle_signals()
                self._recorder.event(
                    "started",
                    check=self._listeners.check,
                    status=status.port or self._listeners.status,
                    transport=transport.name,
                    compiled=is_compiled(),
                    config=str(self._settings.digest),
                )
                self.started.set()
                self._follow_envoy(self._settings)
                await self._stop.wait()
                await self._drain(transport)
                look.cancel()
                reloads.cancel()
                reports.cancel()
        finally:
            if self._follower is not None:
                self._follower.stop()
            for task in self._retiring:
                task.cancel()
            await asyncio.gather(*self._retiring, return_exceptions=True)
            await self._assembly.aclose()
            if self._notifier is not None:
                await self._notifier.aclose()
            status.stop()
        self._recorder.event("stopped")
        # In a thread: who embeds this loop may still have something to end.
        await asyncio.to_thread(self._export.close, FLUSH)
        # Whoever runs this may end the process now.
        self._recorder.log.flush()

    def _reported(self, expiry: CertificateExpiry) -> ReportedState:
        if self._settings.config.console is None:
            return ReportedState(None)
        config, upstreams = self._settings.config, self._upstreams
        return ReportedState(
            self._assembly.sources.options,
            self._mode(),
            int(expiry()),
            None if upstreams is None else lambda: upstreams.look(config),
        )

    def _certificate(self) -> Path | None:
        tls = self._settings.config.gateway.tls
        return None if tls is None else Path(tls.certificate)

    def _tools(self) -> ToolCatalogues:
        return self._assembly.tools

    def _processor_factory(self, lists: ListFilter) -> ProcessorFactory:
        """Return the factory of response processors; it gives None while no list is filtered.

        Of the configuration in force: a reload may bring the first list to filter.
        """

        def opened(traceparent: str) -> ResponseProcessor | None:
            return lists.open(traceparent) if self._settings.filters_lists else None

        return opened

    def stop(self) -> None:
        """Begin to drain."""
        self._stop.set()

    def hang_up(self) -> None:
        """Begin to reload, as SIGHUP does."""
        self._reloader.request()

    async def reload(self) -> bool:
        """Take the configuration anew; tell whether it took effect.

        A configuration with an error changes nothing. Listeners stay as they are.
        """
        return await self._reloader.reload()

    @property
    def _settings(self) -> Settings:
        return self._reloader.settings

    async def _take(self, settings: Settings) -> None:
        """Put a configuration in force.

        Raises:
            ConfigError: where its parts cannot be built; nothing has changed then.
            RefusedConfigError: where Redis does not answer any more; as above.
            OSError: where a secret cannot be read; as above.
        """
        old = self._assembly
        new = Assembly(settings, self._env, self._recorder, old)
        new.start()
        # Keys of a new issuer have to be there before its tokens are judged; the old
        # configuration holds meanwhile.
        await new.settle(settings.config.issuer.deadline)
        if new.lost_redis(old):
            await new.aclose(keep=old)
            raise RefusedConfigError(REDIS_REFUSED)
        self._assembly = new
        former = self._former(old, new) if self._keeps_former else None
        self.check.snapshot, self.check.former = new.snapshot, former
        if former is not None:
            self._beside(self._forget(former))
        self._beside(self._retire(old, new))
        self._follow_envoy(settings)
        self._notify(settings)

    def _notify(self, settings: Settings) -> None:
        """Have people notified as this configuration says."""
        if self._notifier is not None:
            self._notifier.configure(notify_targets(settings))

    @staticmethod
    def _former(old: Assembly, new: Assembly) -> Snapshot | None:
        """Return what judges the routes of servers that have moved, until Envoy has followed."""
        policy = before_moves(old.snapshot.policy, new.snapshot.policy)
        if policy is None:
            return None
        return replace(new.snapshot, policy=policy, cache=IdentityCache())

    async def _forget(self, former: Snapshot) -> None:
        await asyncio.sleep(_FOLLOWED)
        if self.check.former is former:
            self.check.former = None

    @staticmethod
    async def _retire(old: Assembly, new: Assembly) -> None:
        """Close the parts that a reload replaced, once no check that began with them can run."""
        try:
            await asyncio.sleep(old.snapshot.deadline.seconds)
        finally:
            await old.aclose(keep=new)

    def _follow_envoy(self, settings: Settings) -> None:
        """Have Envoy follow what is in force."""
        if self._follower is not None:
            self._beside(self._follower.follow(settings))

    def _beside(self, work: Coroutine[None, None, None]) -> None:
        """Do something beside the checks; it ends with the service."""
        task = asyncio.create_task(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _drain(self, transport: Transport) -> None:
        self._health.set("drain", "stopping")
        self._recorder.event("draining")
        # A listener that closed before Envoy knew would cost the requests that come in between.
        await asyncio.sleep(self._settings.config.service.drain_notice)
        await transport.stop(self._grace)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        # In a test's thread, and inside Envoy, there are no signals.
        with contextlib.suppress(ValueError, RuntimeError):
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGHUP, self.hang_up)

    async def _keep_looking(self) -> None:
        while True:
            for part, problem in (await self._assembly.problems()).items():
                self._health.set(part, problem)
            for part, words in self._assembly.notes().items():
                self._health.note(part, words)
            self._recorder.flush_security()
            await next_tick(_LOOK)

    # Methods, not the assembly's own: a reload replaces the assembly.
    def _key_age(self) -> float:
        return self._assembly.key_age()

    def _mode(self) -> str:
        return self._assembly.mode()


def is_compiled() -> bool:
    """Tell whether the decision that was loaded is a compiled library (`make compiled`)."""
    return not decision.__file__.endswith(".py")


def tune_gc() -> None:
    """Freeze what is there, and collect garbage less often.

    To be called once, when the service is built: modules and the configuration are most of what
    there is, and hold nothing that will be thrown away. Memory stays flat (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)

"""`authz pages`: the process that serves the front door and the step-up.

Invariant: a request in flight at a stop is answered; a new configuration takes effect as a whole or
not at all; a Unix socket is open to its owner and group alone
(tests/login/web/test_pages_process.py).
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import Receive, Scope, Send

from authz.config.addresses import read_tcp
from authz.config.endpoints import Tcp
from authz.config.load import Settings, load
from authz.config.restarts import restarts_of_pages
from authz.ledger.redis import RedisOptions
from authz.login.wiring import LoginServer
from authz.notify.notifier import Notifier
from authz.notify.targets import notify_targets
from authz.process.listening import bind_tcp, bind_unix
from authz.process.ticks import until_tick
from authz.server.health import Health
from authz.server.otlp import FLUSH, attach
from authz.server.redis_options import REDIS_REFUSED, redis_options
from authz.server.reloader import ConfigReloader, RefusedConfigError
from authz.server.status import Status
from authz.telemetry.audit import EventLog
from authz.telemetry.library_output import capture_library_output
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

# Seconds for what is in flight at the end: the longest wait, for Authelia, and some more.
_GRACE: Final = 30
# What a replaced configuration has to answer what it began.
_RETIRE: Final = 60.0
_TICK: Final = 1.0  # seconds between two headers `Date`
_BACKLOG: Final = 256
SERVICE: Final = "authz-pages"  # to collectors
_AT_ONCE: Final = 512
_MASK: Final = 0o117  # a socket of mode 660


class PagesConfigError(ValueError):
    """Say why there are no pages, and what would be right."""


def serve(
    configuration: Path,
    env: Mapping[str, str],
    listen: str | None,
    status: str | None = None,
    replicas: int = 1,
) -> int:
    """Serve until told to stop.

    Args:
        configuration: authz.yaml.
        env: the environment: secrets, and `AUTHZ_REDIS_URL` in place of `redis.url`.
        listen: where, in place of `service.pages`: `unix:/path` or `host:port`.
        status: where metrics and probes are, in place of `telemetry.pages_metrics`.
        replicas: how many such processes there are.

    Raises:
        ConfigError: where authz.yaml is wrong.
        PagesConfigError: where it has no front door or no Redis.
        AddressError: where the address is none.
        OSError: where the address cannot be listened on.
    """

    def read() -> Settings:
        return load(configuration, env)

    settings = read()
    recorder = Recorder(Metrics(), EventLog(settings.config.telemetry.log))
    capture_library_output(recorder)
    for problem in settings.warnings:
        recorder.event("config_warning", problem=str(problem))
    options = _options(settings, env)
    where = str(settings.config.service.pages) if listen is None else listen
    health = Health()
    health.set("pages", "")  # it is asked while they are served, and not otherwise
    told = settings.config.telemetry.pages_metrics
    at = told if status is None else read_tcp("--status", status)
    with bound(where) as listener, _status(at, recorder, health):
        export = attach(settings, recorder, SERVICE)
        export.start()
        try:
            service = _Service(read, env, recorder, health, configuration, replicas=replicas)
            asyncio.run(service.run(settings, options, listener, where))
        finally:
            export.close(FLUSH)
    return 0


@contextlib.contextmanager
def _status(at: Tcp | None, recorder: Recorder, health: Health) -> Iterator[None]:
    """Serve metrics and probes as long as the block lasts, where there is a place for them.

    Raises:
        OSError: where the address cannot be had.
    """
    if at is None:
        yield
        return
    try:
        status = Status(recorder.metrics.registry, health, (at.host, at.port))
    except OSError as error:
        raise OSError(f"telemetry.pages_metrics: {at}: {error.strerror}") from error
    status.start()
    try:
        yield
    finally:
        status.stop()


@contextlib.contextmanager
def bound(where: str) -> Iterator[socket.socket]:
    """Bind `unix:/path` (mode 660) or `host:port` as long as the block lasts.

    Raises:
        AddressError: where the address is none.
        OSError: where it cannot be had.
    """
    unix = where.startswith("unix:/")
    path = Path(where.removeprefix("unix:"))
    at = None if unix else read_tcp("--listen", where)
    try:
        found = bind_unix(path, _MASK) if at is None else bind_tcp(at.host, at.port)
    except OSError as error:
        raise OSError(f"service.pages: {where}: {error.strerror}") from error
    try:
        yield found
    finally:
        found.close()
        if unix:
            path.unlink(missing_ok=True)


class _QuietServer(uvicorn.Server):
    """A server that leaves signals to us, and wakes once a second where nobody asks.

    uvicorn raises signals anew at its end, and looks ten times a second whether it has come.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Answer what is in flight, and end."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Renew the header `Date` until it is stopped."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until_tick(_TICK, asyncio.get_running_loop().time())):
                    await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Service:
    """Serve one configuration after the other."""

    def __init__(
        self,
        read: Callable[[], Settings],
        env: Mapping[str, str],
        recorder: Recorder,
        health: Health,
        file: Path,
        *,
        replicas: int,
    ) -> None:
        self._read = read
        self._replicas = replicas
        self._file = file
        self._env = env
        self._recorder = recorder
        self._health = health
        self._built: LoginServer | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._notifier = Notifier(sys.executable, env, recorder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._built is not None
        await self._built.app(scope, receive, send)

    def _build(self, settings: Settings, options: RedisOptions) -> LoginServer:
        return LoginServer(
            settings, options, self._recorder, health=self._health, replicas=self._replicas
        )

    async def run(
        self, settings: Settings, options: RedisOptions, listener: socket.socket, where: str
    ) -> None:
        self._built = self._build(settings, options)
        self._built.start()
        self._recorder.notify = self._notifier.offer
        self._notifier.configure(notify_targets(settings))
        reloader = ConfigReloader(
            self._read,
            self._take,
            self._recorder,
            settings,
            file=self._file,
            health=self._health,
            restarts=restarts_of_pages,
        )
        server = _QuietServer(_uvicorn(self))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        # `authz up` passes it on to whoever reloads; here there are no workers to restart.
        loop.add_signal_handler(signal.SIGUSR2, lambda: None)
        loop.add_signal_handler(signal.SIGHUP, reloader.request)
        reloads = asyncio.create_task(reloader.run())
        serving = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event
                await asyncio.sleep(0.01)
            self._recorder.event(
                "started", pages=_shown(where, listener), config=str(settings.digest)
            )
            await serving
        finally:
            reloads.cancel()
            for task in self._retiring:
                task.cancel()
            await asyncio.gather(reloads, *self._retiring, return_exceptions=True)
            await self._built.aclose()
            await self._notifier.aclose()
        self._recorder.event("stopped")

    async def _take(self, settings: Settings) -> None:
        """Serve another configuration from the next request on.

        Raises:
            RefusedConfigError: where there would be no pages, or no Redis; then nothing changed.
            OSError: where the password of Redis cannot be read; as above.
        """
        try:
            options = _options(settings, self._env)
        except PagesConfigError as error:
            raise RefusedConfigError(str(error)) from None
        old, new = self._built, self._build(settings, options)
        assert old is not None
        if not await old.redis_fault() and await new.redis_fault():
            await new.aclose()
            raise RefusedConfigError(REDIS_REFUSED)
        self._built = new
        old.retire()
        self._built.start()
        self._notifier.configure(notify_targets(settings))
        retiring = asyncio.create_task(_retire(old))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)


async def _retire(old: LoginServer) -> None:
    try:
        await asyncio.sleep(_RETIRE)
    finally:
        await old.aclose()


def _uvicorn(app: _Service) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # a line would hold codes and states
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=_BACKLOG,
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=64 * 1024,
    )


def _options(settings: Settings, env: Mapping[str, str]) -> RedisOptions:
    if settings.config.front_door is None:
        raise PagesConfigError("authz.yaml has no front_door: there are no pages to serve")
    options = redis_options(settings, env)
    if options is None:
        raise PagesConfigError(
            "the pages and the check share what they know in Redis: write redis.url, or start both"
            " with `authz up`"
        )
    return options


def _shown(where: str, listener: socket.socket) -> str:
    if where.startswith("unix:"):
        return where
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"

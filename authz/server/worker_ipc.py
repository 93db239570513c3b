"""A worker's side of the socket to the process that started it.

Invariant: it ends when that process is gone, however it went: the other end of the socket closes
with it.
"""

import asyncio
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import generate_latest

from authz.config.load import Settings, load, read
from authz.notify.messages import TimedNotice
from authz.server.envoy_follower import WatchedFolder
from authz.server.service import Listeners, MakeTransport, Service, tune_gc
from authz.server.worker_control import (
    FAILED,
    LONGEST,
    NOTICE,
    PING,
    PONG,
    RELOAD,
    STARTED,
    STOP,
    WorkerSettings,
)
from authz.telemetry.audit import EventLog
from authz.telemetry.library_output import capture_library_output
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import SecurityNotice

# Seconds on top of the grace in which a worker whose parent is gone has to be gone too:
# `service.drain_notice` is 60 at most.
_ORPHAN_TIMEOUT: Final = 70


class WorkerChannel:
    """Hold the socket, and what a service is built from.

    Attributes:
        settings: what to run.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        """Read the settings; nothing is built yet."""
        self._env = env
        self.settings = WorkerSettings.of(env)
        self._socket = socket.socket(fileno=self.settings.control)
        self._socket.setblocking(False)
        self._metrics = Metrics()

    def build(self, transport: MakeTransport) -> Service:
        """Return the service on a transport.

        Raises:
            ConfigError: where the configuration is wrong.
        """
        settings = self.settings
        read = self._read()
        log = EventLog(read.config.telemetry.log)
        recorder = Recorder(self._metrics, log, settings.worker)
        capture_library_output(recorder)
        for problem in read.warnings if settings.tells_warnings else ():
            recorder.event("config_warning", problem=str(problem))
        listeners = Listeners(settings.check, settings.status, settings.envoy_stats)
        # Of several workers the process above them watches authz.yaml, and writes Envoy's files
        # once all have the rules.
        file = None if settings.text else Path(settings.configuration)
        watched = WatchedFolder(settings.envoy, settings.python)
        return Service(
            self._read,
            self._env,
            listeners,
            recorder,
            settings.grace,
            transport=transport,
            file=file,
            envoy=watched if settings.envoy and settings.worker is None else None,
            keeps_former=bool(settings.envoy),
            worker=settings.worker,
            python=settings.python,
            notify=None if settings.worker is None else self._send_notice,
        )

    def _read(self) -> Settings:
        """Return the configuration in force.

        Raises:
            ConfigError: where it is wrong.
        """
        settings = self.settings
        if not settings.text:
            return load(Path(settings.configuration), self._env)
        text = Path(settings.text).read_text("utf-8")
        return read(text, settings.configuration, self._env)

    async def run(self, service: Service) -> bool:
        """Run the service under the parent's control; tell whether that went well."""
        started = asyncio.create_task(self._send_started(service))
        try:
            await service.run()
            self._write_final_metrics()
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to know
            self.send_failure(error)
            return False
        finally:
            started.cancel()
        return True

    def listen(self, service: Service) -> None:
        """Act on the parent's messages from now on."""
        asyncio.get_running_loop().add_reader(self._socket, self._on_message, service)

    def stop_listening(self) -> None:
        """Act on no message any more."""
        asyncio.get_running_loop().remove_reader(self._socket)

    def _on_message(self, service: Service) -> None:
        try:
            message = self._socket.recv(64)
        except OSError:
            message = b""
        if not message:
            # Whatever hangs: without a handler the kernel ends the process at this signal.
            signal.alarm(int(self.settings.grace) + _ORPHAN_TIMEOUT)
        if not message or STOP in message:
            self.stop_listening()
            service.stop()
        elif RELOAD in message:
            service.hang_up()
        elif PING in message:
            # From the loop that decides: the status pages' thread answers beside one that hangs.
            self._send(PONG)

    def send_failure(self, error: Exception) -> None:
        """Tell the parent why this process has failed."""
        why = str(error) if isinstance(error, OSError) else type(error).__name__
        self._send(FAILED + why.encode())

    def _send_notice(self, notice: SecurityNotice) -> None:
        """Hand a security event to the parent, which has people notified."""
        message = NOTICE + TimedNotice(notice, time.time()).encode()
        if len(message) <= LONGEST:
            self._send(message)

    def _send(self, message: bytes) -> None:
        with suppress(OSError):  # the parent is gone
            self._socket.send(message)

    async def _send_started(self, service: Service) -> None:
        tune_gc()
        await service.started.wait()
        self._send(STARTED)

    def _write_final_metrics(self) -> None:
        """Leave the last counts behind: as a whole, or not at all."""
        if not self.settings.final_metrics:
            return
        place = Path(self.settings.final_metrics)
        new = place.with_suffix(".new")
        with suppress(OSError):
            new.write_bytes(generate_latest(self._metrics.registry))
            new.replace(place)

"""What a service in a process of its own is told, and how it answers: the child's side.

Law: it does what the process that started it says, and ends when that one is gone: its end of
the socket closes with it, however it went.
"""

import asyncio
import json
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from prometheus_client import generate_latest

from authz.config.load import Settings, load, read
from authz.server.calm import calm
from authz.server.service import Listeners, Service
from authz.server.status import ListenAddress
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

# What the starter says, one byte each.
STOP: Final = b"T"
RELOAD: Final = b"H"
ASK: Final = b"?"
# What it is told: that Check is answered, that the loop turns (to each question), or that this
# process has failed, and why.
STARTED: Final = b"S"
ALIVE: Final = b"A"
FAILED: Final = b"F"

_VARIABLE: Final = "AUTHZ_WORKER"
# Seconds on top of the grace in which a service whose starter is gone has to be gone too:
# `service.drain_notice` is 60 at most.
_ORPHAN: Final = 70


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Say what to run, in words that fit an environment variable.

    Attributes:
        configuration: authz.yaml, as problems name it.
        check: what is listened on for Check: `unix:/path` or `host:port`.
        status: where metrics and probes are answered: host and port, or a socket's path.
        grace: seconds that what is in flight has at the end.
        admin: the socket for the admin pages of an Envoy around the service; empty without one.
        control: the descriptor of the socket to the starter.
        text: the file that holds the text of authz.yaml that is in force; empty where it is read
            itself.
        farewell: the file that the last counts are written to; empty where nobody adds them up.
        worker: this worker's number; None where there is only one.
    """

    configuration: str
    check: str
    status: ListenAddress
    grace: float
    admin: str
    control: int
    text: str = ""
    final_metrics: str = ""
    worker: int | None = None

    def environment(self) -> dict[str, str]:
        """Return the variable that carries this."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "WorkerSettings":
        """Read them from the environment."""
        said = json.loads(env[_VARIABLE])
        status = said["status"]
        return cls(**{**said, "status": status if isinstance(status, str) else tuple(status)})


class WorkerChannel:
    """Be under orders: hold the socket to the starter and what a service is built from.

    Attributes:
        orders: what to run.
        recorder: where this process' decisions go, once `read` can be called.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        """Read the orders; nothing is built yet."""
        self._env = env
        self.settings = WorkerSettings.of(env)
        self._control = socket.socket(fileno=self.settings.control)
        self._control.setblocking(False)
        self._metrics = Metrics()

    def read(self) -> Settings:
        """Return the configuration in force.

        Raises:
            ConfigError: where it is wrong.
        """
        settings = self.settings
        if not settings.text:
            return load(Path(settings.configuration), self._env)
        text = Path(settings.text).read_text("utf-8")
        return read(text, settings.configuration, self._env)

    def recorder(self) -> Recorder:
        """Return where decisions go.

        Raises:
            ConfigError: where the configuration is wrong.
        """
        log = EventLog(self.read().config.telemetry.log)
        return Recorder(self._metrics, log, self.settings.worker)

    @property
    def listeners(self) -> Listeners:
        """Return where the service listens."""
        return Listeners(self.settings.check, self.settings.status)

    def listen(self, service: Service) -> None:
        """Do what the starter says from now on."""
        asyncio.get_running_loop().add_reader(self._control, self._on_message, service)

    def stop_listening(self) -> None:
        """Listen to nobody any more."""
        asyncio.get_running_loop().remove_reader(self._control)

    def _on_message(self, service: Service) -> None:
        try:
            said = self._control.recv(64)
        except OSError:
            said = b""
        if not said:
            # Whatever hangs: without a handler the kernel ends the process at this signal.
            signal.alarm(int(self.settings.grace) + _ORPHAN)
        if not said or STOP in said:
            self.stop_listening()
            service.stop()
        elif RELOAD in said:
            service.hang_up()
        elif ASK in said:
            # From the loop that decides. The pages' thread would answer beside one that hangs.
            self.send(ALIVE)

    def send(self, what: bytes, error: BaseException | None = None) -> None:
        """Tell the starter; where it is gone, nobody."""
        said = str(error).encode() if isinstance(error, OSError) else type(error).__name__.encode()
        with suppress(OSError):
            self._control.send(what + (b"" if error is None else said))

    async def send_started(self, service: Service) -> None:
        """Tell the starter as soon as Check is answered."""
        calm()
        await service.started.wait()
        self.send(STARTED)

    def write_final_metrics(self) -> None:
        """Leave the last counts behind: as a whole, or not at all."""
        if not self.settings.final_metrics:
            return
        place = Path(self.settings.final_metrics)
        new = place.with_suffix(".new")
        with suppress(OSError):
            new.write_bytes(generate_latest(self._metrics.registry))
            new.replace(place)

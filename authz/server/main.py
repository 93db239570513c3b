"""`authz serve`: a parts list, and the loop that runs it, on the fastest transport that runs."""

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from authz.config.load import Settings, load
from authz.server import pyvoy
from authz.server.redis_options import require_redis
from authz.server.service import Listeners, Service
from authz.telemetry.audit import Log
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

# Seconds that what is in flight has at the end, on top of the issuer's deadline.
_GRACE: Final = 1.0


class AddressError(ValueError):
    """Say that an address on the command line is none, and what would be right."""


def serve(
    configuration: Path, env: Mapping[str, str], check: str | None, status: str | None
) -> int:
    """Run the service until it is told to stop.

    Args:
        configuration: authz.yaml.
        env: the environment: secrets, and `AUTHZ_REDIS_URL` in place of `redis.url`.
        check: where to answer Check, in place of `service.check`.
        status: where to serve metrics, in place of `telemetry.metrics`.

    Raises:
        ConfigErrors: where authz.yaml is wrong.
        AddressError: where an address on the command line is none.
        OSError: where an address cannot be listened on, or the transport does not run.
    """

    def read() -> Settings:
        settings = load(configuration, env)
        require_redis(settings, env, configuration)
        return settings

    settings = read()
    config = settings.config
    recorder = Recorder(Metrics(), Log(config.telemetry.log))
    for problem in settings.warnings:
        recorder.event("config_warning", problem=str(problem))
    metrics = config.telemetry.metrics
    listeners = Listeners(
        str(config.service.check) if check is None else _address("--check", check),
        (metrics.host, metrics.port) if status is None else _host_and_port("--status", status),
    )
    _check_free(listeners)

    grace = config.issuer.deadline + _GRACE
    wanted = config.service.transport
    if wanted != "grpcio":
        inner = pyvoy.Inner(configuration, listeners.check, listeners.status, grace)
        try:
            return asyncio.run(pyvoy.run(inner, env))
        except pyvoy.NotStarted as error:
            if wanted == "pyvoy":
                raise OSError(f"the service did not start on pyvoy: {error}") from error
            recorder.event("transport", wanted=wanted, used="grpcio", why=str(error))

    async def run() -> None:
        await Service(read, env, listeners, recorder, grace).run()

    asyncio.run(run())
    return 0


def _address(option: str, address: str) -> str:
    if address.startswith("unix:/"):
        return address
    host, port = _host_and_port(option, address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_and_port(option: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise AddressError(f"{option}: {address} has no port; write for example 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def _check_free(listeners: Listeners) -> None:
    """Look at both places before a transport is chosen: a taken port is no reason for another.

    Raises:
        OSError: where one cannot be had, with its name.
    """
    if listeners.check.startswith("unix:"):
        folder = Path(listeners.check.removeprefix("unix:")).parent
        if not folder.is_dir():
            raise OSError(f"service.check: the folder {folder} does not exist; create it")
    host, port = listeners.status
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(f"telemetry.metrics: {host}:{port}: {error.strerror}") from error

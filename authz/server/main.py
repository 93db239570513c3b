"""`authz serve`: a parts list, and the loop that runs it, on the fastest transport that runs."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from authz.config.load import Settings, load
from authz.server import pyvoy
from authz.server.service import Listeners, Service
from authz.telemetry.audit import Log
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

# Seconds that what is in flight has at the end, on top of the issuer's deadline.
_GRACE: Final = 1.0


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
        OSError: where an address cannot be listened on, or the transport does not run.
    """

    def read() -> Settings:
        return load(configuration, env)

    settings = read()
    config = settings.config
    recorder = Recorder(Metrics(), Log(config.telemetry.log))
    for problem in settings.warnings:
        recorder.event("config_warning", problem=str(problem))
    metrics = config.telemetry.metrics
    listeners = Listeners(
        check or str(config.service.check),
        (metrics.host, metrics.port) if status is None else _host_and_port(status),
    )

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


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise OSError(f"{address} is no address; write for example 127.0.0.1:9464")
    return host.strip("[]"), int(port)

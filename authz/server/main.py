"""`authz serve`: a parts list, and the loop that runs it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from authz.config.load import Settings, load
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
        OSError: where an address cannot be listened on.
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

    async def run() -> None:
        service = Service(read, env, listeners, recorder, config.issuer.deadline + _GRACE)
        await service.run()

    asyncio.run(run())
    return 0


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise OSError(f"{address} is no address; write for example 127.0.0.1:9464")
    return host.strip("[]"), int(port)

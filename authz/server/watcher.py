"""The process that stays when `authz serve` runs one worker, and watches it.

`authz serve` reads the configuration and then replaces itself (execve) with this program, which
imports the standard library and the process layer only: configuration, gRPC and Redis are not kept
in memory to watch one process. Where the worker does not start and `service.transport` is `auto`,
it replaces itself again with `authz serve` on grpcio.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Final, NoReturn

from authz.process.supervisor import Failure, StartError
from authz.server.transports import choose_program
from authz.server.worker_control import POLICY, RELOAD, Worker, WorkerPolicy, WorkerSettings

# Why `authz serve` is to run on grpcio, where this program found out.
TRANSPORT_FAULT: Final = "AUTHZ_TRANSPORT_FAULT"
_VARIABLE: Final = "AUTHZ_WATCHER"
_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


@dataclass(frozen=True, slots=True)
class WatcherSettings:
    """Watcher settings, serialised into one environment variable.

    Attributes:
        argv: the worker's command.
        environment: what its environment has besides ours.
        folder: a folder of our own, with the socket for the admin pages of its Envoy.
        log: `telemetry.log`.
        transport: `service.transport`.
        used: the transport of this worker.
        passed_over: why a better transport is not there; empty where none is better.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    log: str
    transport: str
    used: str
    passed_over: str


class _WatchedWorker(Worker):
    """The one worker: whoever keeps this process starts both again."""

    def __init__(
        self,
        settings: WorkerSettings,
        watcher: WatcherSettings,
        env: Mapping[str, str],
        policy: WorkerPolicy,
    ) -> None:
        super().__init__(settings, env, policy)
        self._watcher = watcher

    def _command(self, _: WorkerSettings, /) -> tuple[tuple[str, ...], Mapping[str, str]]:
        return self._watcher.argv, self._watcher.environment

    def _on_hung(self) -> None:
        from authz.telemetry.audit import EventLog  # noqa: PLC0415 - loaded in the last moment

        log = EventLog(self._watcher.log)
        log.write({"event": "worker_hung", "unanswered": self._watchdog.max_missed})
        log.flush()

    def _on_failure(self, failure: Failure) -> None:
        raise NotImplementedError


def prepare(
    worker: WorkerSettings, log: str, transport: str
) -> tuple[WorkerSettings, WatcherSettings]:
    """Return what to watch, with a folder of its own.

    Args:
        worker: the worker, without a socket for the admin pages of an Envoy around it.
        log: `telemetry.log`.
        transport: `service.transport`.

    Raises:
        StartError: where there is no transport that is watched.
        OSError: where no folder can be made.
    """
    from authz.process.run_folder import make_run_folder  # noqa: PLC0415 - not for the watcher

    folder = make_run_folder()
    worker = replace(worker, admin=f"{folder}/admin.sock")
    try:
        program = choose_program(transport, worker)
    except StartError:
        os.rmdir(folder)  # noqa: PTH106 - as below
        raise
    watcher = WatcherSettings(
        program.argv,
        program.environment,
        folder,
        log,
        transport,
        program.transport,
        program.passed_over,
    )
    return worker, watcher


def replace_process(
    settings: WorkerSettings, watcher: WatcherSettings, env: Mapping[str, str]
) -> NoReturn:
    """Become the watcher of a worker.

    Raises:
        OSError: where this interpreter cannot be run again.
    """
    # They wait for the handlers of the program that follows, rather than end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    said = json.dumps(asdict(watcher))
    # -P: a file in the working folder must not stand in for a module of ours.
    command = (sys.executable, "-P", "-m", "authz.server.watcher", *sys.argv[1:])
    os.execve(sys.executable, command, {**env, **settings.environment(), _VARIABLE: said})  # noqa: S606 - no shell


async def watch(
    settings: WorkerSettings,
    watcher: WatcherSettings,
    env: Mapping[str, str],
    policy: WorkerPolicy = POLICY,
) -> int:
    """Run the worker until it has ended, and return 0 where that was in order.

    Raises:
        StartError: where it never answered; nothing is left of it then.
    """
    worker = _WatchedWorker(settings, watcher, env, policy)
    loop = asyncio.get_running_loop()
    # Before the start: a signal meanwhile must not end this process and leave Envoy.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.request_stop)
    loop.add_signal_handler(signal.SIGHUP, worker.send, RELOAD)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        try:
            await worker.start()
        except StartError:
            if not worker.is_stopping:
                raise
            return 0
        status, hung = await worker.wait()
        return 1 if hung or status or worker.has_failed else 0
    finally:
        worker.kill()
        with suppress(OSError):
            os.unlink(settings.admin)  # noqa: PTH108 - pathlib is half a megabyte
        with suppress(OSError):
            os.rmdir(watcher.folder)  # noqa: PTH106 - as above


def main() -> int:
    """Watch the worker that the environment describes."""
    env = dict(os.environ)
    said = json.loads(env.pop(_VARIABLE))
    watcher = WatcherSettings(**{**said, "argv": tuple(said["argv"])})
    try:
        return asyncio.run(watch(WorkerSettings.of(env), watcher, env))
    except StartError as error:
        if watcher.transport != "auto":
            print(  # noqa: T201 - as the command line does
                f"authz: the service did not start on {watcher.used}: {error}", file=sys.stderr
            )
            return 1
        command = (sys.executable, "-P", "-m", "authz", *sys.argv[1:])
        os.execve(sys.executable, command, {**env, TRANSPORT_FAULT: str(error)})  # noqa: S606 - no shell


if __name__ == "__main__":
    sys.exit(main())

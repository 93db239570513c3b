"""`authz serve`: read the configuration, and run it on the fastest transport that runs."""

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from authz.config.addresses import read_address, read_tcp, worker_addresses
from authz.config.load import Settings, load
from authz.process.supervisor import StartError
from authz.server.envoy_follower import WatchedFolder, watched_folder
from authz.server.otlp import FLUSH, SERVICE, attach, require_package
from authz.server.redis_options import require_redis
from authz.server.watcher import TRANSPORT_FAULT, prepare, replace_process
from authz.server.worker_control import GRACE, WorkerSettings
from authz.telemetry.audit import EventLog
from authz.telemetry.library_output import capture_library_output
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder


def serve(
    configuration: Path,
    env: Mapping[str, str],
    check: str | None,
    status: str | None,
    envoy: Path | None = None,
    *,
    envoy_stats: str = "",
) -> int:
    """Run the service until it is told to stop.

    Args:
        configuration: authz.yaml.
        env: the environment: secrets, and `AUTHZ_REDIS_URL` in place of `redis.url`.
        check: where to answer Check, in place of `service.check`.
        status: where to serve metrics, in place of `telemetry.metrics`.
        envoy: the folder whose files Envoy watches; None where it follows no reload.
        envoy_stats: the socket of Envoy's statistics, to pass them on; or empty.

    Raises:
        ConfigError: where authz.yaml is wrong.
        AddressError: where an address on the command line is none.
        OSError: where an address cannot be listened on, or the transport does not run.
    """
    settings = load(configuration, env)
    require_redis(settings, env, configuration)
    require_package(settings)
    config = settings.config
    recorder = Recorder(Metrics(), EventLog(config.telemetry.log))
    capture_library_output(recorder)
    for problem in settings.warnings:
        recorder.event("config_warning", problem=str(problem))
    metrics = config.telemetry.metrics
    at = config.service.check if check is None else read_address("--check", check)
    checks = [str(place) for place in worker_addresses(at, config.service.workers)]
    at_status = metrics if status is None else read_tcp("--status", status)
    where = (at_status.host, at_status.port)
    _check_free(checks, where)
    grace = config.issuer.deadline + GRACE
    worker = WorkerSettings(
        str(configuration),
        checks[0],
        where,
        grace,
        python=sys.executable,
        envoy_stats=envoy_stats,
    )
    if envoy is not None:
        folder = watched_folder(envoy, sys.executable)
        worker = replace(worker, envoy=folder.folder, python=folder.python)
    if len(checks) > 1:
        return _serve_pool(worker, checks, settings, env=env, recorder=recorder)
    # It would end the process otherwise; there is nobody to go on meanwhile.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    wanted, fault = config.service.transport, env.get(TRANSPORT_FAULT)
    if wanted != "grpcio" and fault is None:
        try:
            watched, watcher = prepare(worker, config.telemetry.log, wanted)
        except StartError as error:
            if wanted != "auto":
                raise OSError(f"the service did not start on {wanted}: {error}") from error
            fault = str(error)
        else:
            if watcher.passed_over:
                why = watcher.passed_over
                recorder.event("transport", wanted=wanted, used=watcher.used, why=why)
            recorder.log.flush()
            replace_process(watched, watcher, env)
    if fault is not None:
        recorder.event("transport", wanted=wanted, used="grpcio", why=fault)
    return _serve_grpcio(worker, env, recorder)


def _serve_pool(
    worker: WorkerSettings,
    checks: Sequence[str],
    settings: Settings,
    *,
    env: Mapping[str, str],
    recorder: Recorder,
) -> int:
    from authz.server.worker_pool import WorkerPool  # noqa: PLC0415 - only where there are several

    async def run() -> int:
        pool = WorkerPool(worker, checks, settings, env=env, recorder=recorder)
        return await pool.run()

    export = attach(settings, recorder, SERVICE, traces=False)
    export.start()
    try:
        return asyncio.run(run())
    finally:
        export.close(FLUSH)


def _serve_grpcio(worker: WorkerSettings, env: Mapping[str, str], recorder: Recorder) -> int:
    """Serve in this process."""
    from authz.server.grpc import GrpcTransport  # noqa: PLC0415 - only on grpcio
    from authz.server.service import Listeners, Service, tune_gc  # noqa: PLC0415 - as above

    def read_again() -> Settings:
        return load(Path(worker.configuration), env)

    async def run() -> None:
        listeners = Listeners(worker.check, worker.status, worker.envoy_stats)
        watched = WatchedFolder(worker.envoy, worker.python) if worker.envoy else None
        service = Service(
            read_again,
            env,
            listeners,
            recorder,
            worker.grace,
            transport=GrpcTransport,
            file=Path(worker.configuration),
            envoy=watched,
            keeps_former=watched is not None,
        )
        tune_gc()
        await service.run()

    asyncio.run(run())
    return 0


def _check_free(checks: Sequence[str], status: tuple[str, int]) -> None:
    """Look at both places before a transport is chosen: a taken port is no reason for another.

    Raises:
        OSError: where one cannot be had, with its name.
    """
    for check in checks:
        folder = Path(check.removeprefix("unix:")).parent
        if check.startswith("unix:") and not folder.is_dir():
            raise OSError(f"service.check: the folder {folder} does not exist; create it")
    host, port = status
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(f"telemetry.metrics: {host}:{port}: {error.strerror}") from error

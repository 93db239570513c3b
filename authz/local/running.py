"""The process that stays when `authz up` runs: it starts the services, watches and stops them.

`authz up` reads the configuration, renders Envoy's, and then replaces itself (execve) with this
program, which imports the standard library and the process layer only: configuration and renderer
are not kept in memory to watch four processes.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, NoReturn, Self

from authz.config.endpoints import Tcp
from authz.local.envoy import envoy_service
from authz.local.services import check_service, pages_service
from authz.local.state import FAILED, SetupError, State
from authz.local.valkey import valkey
from authz.local.worker import UpWorker, WorkerStarter
from authz.process.child import killed_with_parent
from authz.process.group import (
    STOPPED,
    Handlers,
    ServiceGroup,
    Signals,
    WhenReady,
    loop_signals,
)
from authz.process.output import Console
from authz.process.service import ServiceSpec, ServiceTiming

Say = Callable[[str], None]

# What `authz serve` takes from its environment in place of `redis`.
REDIS_URL: Final = "AUTHZ_REDIS_URL"
REDIS_USERNAME: Final = "AUTHZ_REDIS_USERNAME"
REDIS_PASSWORD: Final = "AUTHZ_REDIS_PASSWORD"  # noqa: S105 - the variable's name
REDIS_PASSWORD_FILE: Final = "AUTHZ_REDIS_PASSWORD_FILE"  # noqa: S105 - as above
# All that Valkey and Envoy get of our environment: it may hold secrets of the service.
_PLAIN: Final = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"})
_VARIABLE: Final = "AUTHZ_UP"
_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2})


@dataclass(frozen=True, slots=True)
class UpSettings:
    """Settings of a running `authz up`, serialised into one environment variable.

    Attributes:
        configuration: authz.yaml, absolute.
        folder: the state folder; Envoy's files are written.
        metrics: `telemetry.metrics`, where the service serves /readyz.
        workers: how many processes the service is.
        store: the deployment whose keys the embedded Valkey is for; None where Redis is another's.
        server: the program of the embedded Valkey; empty where it is looked for.
        front_door: whether there are pages.
        edge: the SHA-256 of the envoy.yaml that Envoy starts with.
        patient: whether Envoy may start before the service is ready: its issuer may come later.
        summary: where everything is, for people.
        worker: the one worker, where the service is embedded in an Envoy; else None.
    """

    configuration: str
    folder: str
    metrics: Tcp
    workers: int
    store: str | None
    server: str
    front_door: bool
    edge: str
    patient: bool
    summary: str
    worker: UpWorker | None = None

    def to_json(self) -> str:
        """Return the text that `of` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        said = json.loads(text)
        worker = said["worker"] and UpWorker.of_members(said["worker"])
        return cls(**{**said, "metrics": Tcp(**said["metrics"]), "worker": worker})


def services_of(
    settings: UpSettings,
    state: State,
    env: Mapping[str, str],
    *,
    others: Sequence[ServiceSpec] = (),
    quiet: bool = False,
) -> tuple[ServiceSpec, ...]:
    """Return the services in the order of their start.

    Only the service and the pages see our environment; Valkey and Envoy get files that hold no
    secret.

    Args:
        settings: what runs.
        state: the state folder, held.
        env: the environment.
        others: started after Valkey.
        quiet: whether the lines of the service and the pages go to their log files alone.

    Raises:
        SetupError: where a program is missing, or the state folder cannot be used.
    """
    plain = {name: value for name, value in env.items() if name in _PLAIN}
    configuration, given = Path(settings.configuration), dict(env)
    stores: list[ServiceSpec] = []
    if settings.store is not None:
        store = valkey(
            state,
            plain,
            deployment=settings.store,
            front_door=settings.front_door,
            program=settings.server,
        )
        stores.append(store.spec)
        given.pop(REDIS_PASSWORD, None)
        given[REDIS_URL], given[REDIS_USERNAME] = store.url, store.user
        given[REDIS_PASSWORD_FILE] = str(store.password_file)
    answering = [
        check_service(
            state,
            configuration,
            settings.metrics,
            given,
            patient=settings.patient,
            workers=settings.workers,
            control=None if settings.worker is None else WorkerStarter(settings.worker, given),
        )
    ]
    if settings.front_door:
        answering.append(pages_service(state, configuration, given))
    if quiet:
        answering = [replace(spec, echo=None) for spec in answering]
    return (*stores, *others, *answering, envoy_service(state, plain))


async def run_services(
    settings: UpSettings,
    state: State,
    services: Sequence[ServiceSpec],
    env: Mapping[str, str],
    say: Say,
    *,
    when_ready: WhenReady | None = None,
    signals: Signals = loop_signals,
    timing: ServiceTiming | None = None,
) -> int:
    """Run services until a signal, or `when_ready`, ends it, and return an exit code.

    Args:
        settings: what runs.
        state: the state folder, held.
        services: of `services_of`.
        env: the environment.
        say: takes lines for people.
        when_ready: as of `ServiceGroup`.
        signals: as of `ServiceGroup`.
        timing: as of `ServiceGroup`.
    """
    tasks = set[asyncio.Task[None]]()

    def reloaded() -> None:
        task = asyncio.create_task(_tell_restarts(settings, env, say))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    group = ServiceGroup(
        services, state.logs, say, timing=timing, signals=signals, reloaded=reloaded
    )
    try:
        return await group.run(when_ready, lambda: say(settings.summary))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell_restarts(settings: UpSettings, env: Mapping[str, str], say: Say) -> None:
    """Say who keeps another configuration than authz.yaml now asks for.

    A process of its own finds out: the renderer takes a second and 80 MB.
    """
    command = killed_with_parent((sys.executable, "-P", "-m", "authz.local.restarts"))
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=nothing, env=env
    )
    try:
        out, _ = await child.communicate(settings.to_json().encode())
    finally:
        if child.returncode is None:
            child.kill()
            await child.communicate()
    for name in out.decode("utf-8", "replace").splitlines():
        say(f"{name} keeps its configuration until `authz up` is started again")


async def once_ready() -> int:
    """End the run as soon as everything is ready: the `when_ready` of `--once-ready`."""
    return STOPPED


@contextmanager
def speaking(say: Say | None) -> Iterator[Say]:
    """Return `say`, or what writes lines to the standard output while the block lasts."""
    if say is not None:
        yield say
        return
    console = Console(sys.stdout)
    try:
        yield console.say
    finally:
        console.close()


def replace_process(settings: UpSettings, state: State, env: Mapping[str, str]) -> NoReturn:
    """Become the process that runs the services, which goes on holding the state folder.

    Raises:
        OSError: where this interpreter cannot be run again.
    """
    # They wait for the handlers of the program that follows, rather than end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.set_inheritable(state.lock, True)
    # -P: a file in the working folder must not stand in for a module of ours.
    command = (sys.executable, "-P", "-m", "authz.local.running", *sys.argv[1:])
    said = json.dumps({"settings": settings.to_json(), "lock": state.lock})
    os.execve(sys.executable, command, {**env, _VARIABLE: said})  # noqa: S606 - no shell


@contextmanager
def _loop_signals(handlers: Handlers) -> Iterator[None]:
    with loop_signals(handlers):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        yield


async def _run(settings: UpSettings, state: State, env: Mapping[str, str]) -> int:
    # An issuer that comes later is waited for by a gateway, not by somebody who tries it once.
    when_ready = None if settings.patient else once_ready
    with speaking(None) as say:
        try:
            services = services_of(settings, state, env)
            return await run_services(
                settings, state, services, env, say, when_ready=when_ready, signals=_loop_signals
            )
        except SetupError as error:
            say(str(error))
            return error.code


def main() -> int:
    """Run what the environment describes."""
    env = dict(os.environ)
    said = json.loads(env.pop(_VARIABLE))
    settings = UpSettings.of(said["settings"])
    state = State(Path(settings.folder), said["lock"])
    os.set_inheritable(state.lock, False)
    try:
        return asyncio.run(_run(settings, state, env))
    except OSError as error:
        print(f"authz: {error}", file=sys.stderr)  # noqa: T201 - as the command line does
        return FAILED


if __name__ == "__main__":
    sys.exit(main())

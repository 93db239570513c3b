"""`authz up`: Valkey, the service, the pages and Envoy on one machine, wired over Unix sockets.

Invariant: only the gateway and the metrics listen on the network. Everything else is a socket in
the state folder, which only this user can enter (README.md of this folder says what that does not
stop).
"""

import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from authz.config.load import Settings
from authz.local.deployment import NOTHING_ELSE, Deployment, Extras
from authz.local.listeners import check_certificate, check_free
from authz.local.running import Say, replace_process, run_services, speaking
from authz.local.state import FAILED, SetupError, held
from authz.process.group import Signals, WhenReady, loop_signals
from authz.process.service import ServiceTiming


async def up(
    settings: Settings,
    configuration: Path,
    folder: Path,
    env: Mapping[str, str],
    *,
    extras: Extras = NOTHING_ELSE,
    when_ready: WhenReady | None = None,
    patient: bool = True,
    say: Say | None = None,
    signals: Signals = loop_signals,
    timing: ServiceTiming | None = None,
) -> int:
    """Run everything in this process until a signal, or `when_ready`, ends it.

    Args:
        settings: what `configuration` holds.
        configuration: the absolute path of authz.yaml; the service reads it itself.
        folder: the state folder; made where it is missing.
        env: the environment.
        extras: what else runs.
        when_ready: called once every service is ready; a code that it returns ends the run.
        patient: whether Envoy may start before the service is ready: its issuer may come later.
        say: takes lines for people; where None, they go to the standard output.
        signals: as of `ServiceGroup`.
        timing: as of `ServiceGroup`.

    Returns:
        0 where it was stopped, 1 where a service could not start or the place is taken, 2 where
        what was asked for is wrong; or the code of `when_ready`.
    """
    with speaking(say) as speak:
        try:
            with _prepared(settings, configuration, folder, env, extras) as deployment:
                running = deployment.write(patient=patient)
                return await run_services(
                    running,
                    deployment.state,
                    deployment.services(running),
                    env,
                    speak,
                    when_ready=when_ready,
                    signals=signals,
                    timing=timing,
                )
        except SetupError as error:
            speak(str(error))
            return error.code


def become_up(
    settings: Settings, configuration: Path, folder: Path, env: Mapping[str, str], *, once: bool
) -> int:
    """Prepare everything, and become the process that runs it (authz/local/running.py).

    Args:
        settings: as of `up`.
        configuration: as of `up`.
        folder: as of `up`.
        env: as of `up`.
        once: whether to stop as soon as all is ready.

    Returns:
        an exit code, where something keeps it from being run.
    """
    try:
        with _prepared(settings, configuration, folder, env, NOTHING_ELSE) as deployment:
            replace_process(deployment.write(patient=not once), deployment.state, env)
    except SetupError as error:
        print(error, flush=True)  # noqa: T201 - where `up` says it
        return error.code


@contextmanager
def _prepared(
    settings: Settings, configuration: Path, folder: Path, env: Mapping[str, str], extras: Extras
) -> Iterator[Deployment]:
    """Hold the state folder and find out whether everything can be run here.

    Raises:
        SetupError: where it cannot.
    """
    with held(folder) as state:
        _check_system()
        check_certificate(settings.config)
        check_free(settings.config)
        _raise_file_limit()
        yield Deployment(settings, configuration, state, env, extras)


def _check_system() -> None:
    """Find out whether processes can be watched here.

    Raises:
        SetupError: where pidfd_open(2) is missing or forbidden.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        words = "this needs Linux 5.3 or newer; elsewhere run the parts in containers"
        raise SetupError(words, FAILED) from error


def _raise_file_limit() -> None:
    """Let the services open as many files as this user may: every connection is one, or two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

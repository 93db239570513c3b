"""`authz up`: Valkey, the service, the pages and Envoy on one machine, wired over Unix sockets.

Invariant: only the gateway and the metrics listen on the network. Everything else is a socket in
the state folder, which only this user can enter (README.md of this folder says what that does not
stop).
"""

import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from authz.config.load import Settings
from authz.local.deployment import NOTHING_ELSE, Deployment, Extras
from authz.local.listeners import check_certificate, check_free
from authz.local.state import DEFAULT_NAME, FAILED, SetupError, held
from authz.process.group import STOPPED, ServiceGroup, Signals, WhenReady, loop_signals
from authz.process.output import Console
from authz.process.service import ServiceTiming

Say = Callable[[str], None]


def default_folder(configuration: Path) -> Path:
    """Return where the state of an authz.yaml is kept unless another folder is named."""
    return configuration.absolute().parent / DEFAULT_NAME


async def once_ready() -> int:
    """End the run as soon as everything is ready: the `when_ready` of `--once-ready`."""
    return STOPPED


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
    """Run everything until a signal, or `when_ready`, ends it.

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
    with _speaking(say) as speak:
        try:
            with held(folder) as state:
                _check_system()
                check_certificate(settings.config)
                check_free(settings.config)
                _raise_file_limit()
                what = Deployment(settings, configuration, state, env, extras)
                services = what.services(patient=patient)

                def reloaded() -> None:
                    for name in what.would_change():
                        speak(f"{name} keeps its configuration until `authz up` is started again")

                supervisor = ServiceGroup(
                    services, state.logs, speak, timing=timing, signals=signals, reloaded=reloaded
                )
                return await supervisor.run(when_ready, lambda: speak(what.summary()))
        except SetupError as error:
            speak(str(error))
            return error.code


@contextmanager
def _speaking(say: Say | None) -> Iterator[Say]:
    if say is not None:
        yield say
        return
    console = Console(sys.stdout)
    try:
        yield console.say
    finally:
        console.close()


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

"""Which transports there are, in the order in which `service.transport: auto` takes them.

Standard library only: the process that watches one worker imports it.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from authz.process.supervisor import StartError
from authz.server import pyvoy
from authz.server.worker_control import WorkerSettings

# What runs a worker, and what its environment has besides ours; given where it finds modules, or
# None for where this process does.
Command = Callable[[WorkerSettings, Sequence[str] | None], tuple[Sequence[str], Mapping[str, str]]]


def _ngh2(_: WorkerSettings, path: Sequence[str] | None) -> tuple[Sequence[str], Mapping[str, str]]:
    if find_spec("ngh2") is None:
        raise StartError("ngh2: not installed")
    return _program("ngh2", path)


def _grpcio(
    _: WorkerSettings, path: Sequence[str] | None
) -> tuple[Sequence[str], Mapping[str, str]]:
    return _program("grpcio", path)


def _program(name: str, path: Sequence[str] | None) -> tuple[Sequence[str], Mapping[str, str]]:
    # Where this process finds its modules: a compiled tree's worker is compiled too.
    found = os.pathsep.join(filter(None, sys.path if path is None else path))
    # -P: a file in the working folder must not stand in for a module of ours.
    return (sys.executable, "-P", "-m", "authz.server.worker_program", name), {"PYTHONPATH": found}


COMMANDS: Final[Mapping[str, Command]] = {
    "ngh2": _ngh2,
    "pyvoy": pyvoy.command,
    "grpcio": _grpcio,
}


@dataclass(frozen=True, slots=True)
class Program:
    """Describe what runs a worker.

    Attributes:
        transport: its transport.
        argv: its command.
        environment: what its environment has besides ours.
        passed_over: why a better transport is not there; empty where none is better.
    """

    transport: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    passed_over: str = ""


def choose_program(
    wanted: str, worker: WorkerSettings, path: Sequence[str] | None = None
) -> Program:
    """Return what runs a worker on the first transport that is installed, grpcio aside.

    One worker on grpcio needs no process of its own.

    Args:
        wanted: `service.transport`.
        worker: the worker.
        path: where it finds modules; None for where this process does.

    Raises:
        StartError: where none is.
    """
    missing = list[str]()
    for name in candidates(wanted):
        if name == "grpcio":
            break
        try:
            argv, environment = COMMANDS[name](worker, path)
        except StartError as error:
            missing.append(str(error))
        else:
            return Program(name, tuple(argv), environment, "; ".join(missing))
    raise StartError("; ".join(missing))


def candidates(wanted: str) -> Sequence[str]:
    """Return the transports to try for `service.transport`, the best first."""
    return tuple(COMMANDS) if wanted == "auto" else (wanted,)

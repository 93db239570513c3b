"""What a test needs besides Python: an Envoy, a Redis, a browser, a Docker engine, another process.

It is found by what the test and its fixtures reach, so that nobody has to remember a marker: every
function of tests/ whose name their code uses is followed, and the ones below start something.
"""

import inspect
import os
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, Final

# By where it is defined: what a function starts.
STARTS: Final[dict[str, frozenset[str]]] = {
    "tests.support.envoy.running_envoy": frozenset({"envoy"}),
    "tests.support.envoy.validate": frozenset({"envoy"}),
    "tests.support.valkey.valkey": frozenset({"redis"}),
    "tests.support.valkey.ValkeyServer": frozenset({"redis"}),
    # The service is asked for the faster transport, which is an Envoy too.
    "tests.support.service.running_service": frozenset({"process", "envoy"}),
    "tests.support.demo_environment.RunningEnvironment": frozenset({"process", "envoy", "redis"}),
    "tests.support.chromium.chromium": frozenset({"browser"}),
    "playwright.async_api.async_playwright": frozenset({"browser"}),
    "tests.compose.engine.engine": frozenset({"engine"}),
    "authz.local.up.up": frozenset({"process"}),
    "authz.local.envoy.envoy_service": frozenset({"envoy"}),
    "authz.local.valkey.valkey": frozenset({"redis"}),
    "authz.notify.notifier.Notifier": frozenset({"process"}),
    "authz.process.group.ServiceGroup": frozenset({"process"}),
    "authz.process.supervisor.ProcessSupervisor": frozenset({"process"}),
    "authz.process.child.ChildProcess": frozenset({"process"}),
    "authz.server.worker_pool.WorkerPool": frozenset({"process"}),
    "subprocess.Popen": frozenset({"process"}),
    "subprocess.run": frozenset({"process"}),
    "asyncio.subprocess.create_subprocess_exec": frozenset({"process"}),
    "posix.fork": frozenset({"process"}),
}
NEEDS: Final = frozenset({"envoy", "redis", "browser", "engine", "process"})
_PROGRAMS: Final = {
    "envoy": "envoy",
    "valkey-server": "redis",
    "redis-server": "redis",
    "chromium": "browser",
    "docker": "engine",
    "dockerd": "engine",
    "docker-compose": "engine",
}


# What was read of a function or class, which is kept, so that its id stays its own.
_READ: Final[dict[int, tuple[object, frozenset[str], tuple[object, ...]]]] = {}
# Of these, what starts nothing, however far it is followed.
_HARMLESS: Final[set[int]] = set()


def needs(functions: Iterable[object]) -> frozenset[str]:
    """Return what a test needs.

    Args:
        functions: its own and those of its fixtures.
    """
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [plain(each) for each in functions]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or id(each) in _HARMLESS:
            continue
        seen.add(id(each))
        if id(each) not in _READ:
            reached = tuple(plain(other) for other in _reached(each))
            _READ[id(each)] = each, STARTS.get(_name(each), frozenset()), reached
        _, starts, reached = _READ[id(each)]
        found |= starts
        waiting += reached
    if not found:
        _HARMLESS.update(seen)
    return frozenset(found)


def plain(each: object) -> object:
    """Return what is behind decorators, partial applications and methods."""
    while True:
        if isinstance(each, partial):
            each = each.func
        elif isinstance(each, property):
            each = each.fget
        elif isinstance(each, types.MethodType | staticmethod | classmethod):
            each = each.__func__
        elif inspect.isfunction(each) and hasattr(each, "hypothesis"):
            each = each.hypothesis.inner_test
        elif "__wrapped__" in getattr(each, "__dict__", {}):
            each = each.__dict__["__wrapped__"]
        else:
            return each


def _name(each: object) -> str:
    name = getattr(each, "__qualname__", getattr(each, "__name__", ""))
    return f"{getattr(each, '__module__', '')}.{name}"


def _reached(each: object) -> list[object]:
    """Return what the code of a function or class of ours names."""
    if not str(getattr(each, "__module__", "")).startswith("tests."):
        return []
    if inspect.isclass(each):
        return [*vars(each).values(), *each.__mro__[1:]]
    if not inspect.isfunction(each):
        return []
    names = set(_names(each.__code__))
    found = [each.__globals__[name] for name in names if name in each.__globals__]
    modules = [value for value in found if isinstance(value, types.ModuleType)]
    found += [getattr(where, name) for where in modules for name in names if hasattr(where, name)]
    return found + [cell.cell_contents for cell in each.__closure__ or () if _filled(cell)]


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)


class StartedProgramError(Exception):
    """A test starts a program although it was selected as one that starts none."""


def started(program: object, arguments: Sequence[object]) -> str:
    """Return the need that a program is of."""
    first = program if isinstance(program, str | bytes | os.PathLike) else arguments[0]
    return _PROGRAMS.get(PurePath(os.fsdecode(first)).name, "process")  # type: ignore[arg-type]


def forbid_programs() -> None:
    """Let every test fail from now on that starts a program (PEP 578)."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            need = started(arguments[0], arguments[1])
            words = f"{os.environ.get('PYTEST_CURRENT_TEST')} starts {arguments[1]}"
            raise StartedProgramError(f"{words}: tests/support/needs.py lacks `{need}` for it")

    sys.addaudithook(hook)

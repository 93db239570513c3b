"""The `docker compose` line that does in a container what a command cannot do on its host.

In a folder of `authz init` authz.yaml names files and hosts that only containers have. Files that a
command reads or writes are on the host all the same: they go through its standard input and output.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from authz.cli.common import AskedCommand, asked_command
from authz.config.load import load
from authz.config.location import (
    COMPOSE,
    DOCTOR,
    FOLDER,
    MOUNTED,
    NAME,
    find_configuration,
    has_doctor,
    init_folder,
)
from authz.config.problems import ConfigError

_INPUT: Final = "/dev/stdin"
_RUN: Final = "exec authz authz"
# How what is asked of a command is asked there; the others as `_RUN`.
_HOW: Final[Mapping[str, str]] = {
    "serve": "up -d",
    "pages": "up -d",
    "up": "up -d",
    "check-config": "run --rm authz",
    "connections": "exec -T authz authz",  # it reads logs from its standard input
}
# What asks the MCP servers, which no other container of ours reaches.
_ASKS_SERVERS: Final = frozenset({"doctor", "tools"})
# Options that name a file of the host to read, and what stands in its place.
_READ: Final[Mapping[str, str]] = {
    "--token-file": "-",
    "--log": _INPUT,
    "--file": _INPUT,
}
# What reads no file that authz.yaml names: what fails there fails in a container, too.
_OF_THE_HOST: Final = frozenset({"add-server"})
_WRITTEN: Final = frozenset({"-o", "--output"})
_CONFIGURATION: Final = frozenset({"-c", "--config"})
_STATE: Final = "--state"
_ARGUMENTS: Final = "--arguments"


@dataclass(slots=True)
class _Rewritten:
    """Collect the words of the line."""

    words: list[str] = field(default_factory=list)
    read: str = ""
    written: str = ""

    def take(self, option: str, value: str, place: str) -> None:
        """Read a file of the host by standard input; only one can be."""
        if value == "-":
            self.words += [option, value]
            self.read = self.read or " "
        elif self.read:
            self.words += [option, value]
        else:
            self.words += [option, place]
            self.read = f" < {shlex.quote(value)}"


def print_compose_line(ctx: click.Context) -> bool:
    """Say how a container does what failed here, where files and hosts alone are in the way.

    Returns:
        Whether that was said.
    """
    asked = asked_command(ctx)
    if asked is None or not asked.words or asked.words[0] in _OF_THE_HOST:
        return False
    if not is_right_without_files(asked.config):
        return False
    line = compose_line(asked)
    if line is None:
        return False
    message = "what authz.yaml names is in containers here; where they run, this does it"
    print(f"authz: {message}:\n  {line}", file=sys.stderr)
    return True


def compose_line(asked: AskedCommand) -> str | None:
    """Return the line that does the same in a container; None where authz.yaml is not of `init`."""
    config, words = asked.config, asked.words
    folder = init_folder(config.parent)
    if folder is None or not (folder / COMPOSE).is_file():
        return None
    how = _HOW.get(words[0], _RUN)
    if words[0] in _ASKS_SERVERS and has_doctor(folder):
        how = f"run --rm {DOCTOR}"
    start = f"docker compose{_elsewhere(folder)} {how}"
    if how == _HOW["up"]:
        return start
    found = _rewritten(words, config, asked.context)
    if words[0] == "tools" and "--pin" in words and not found.written:
        found.words += ["-o", "-"]
        found.written = f" > {shlex.quote(_pins(config, folder, words))}"
    moved = found.read or found.written
    if moved:
        start = start.replace("exec authz", "exec -T authz")
        start = start.replace(f"run --rm {DOCTOR}", f"run --rm -T {DOCTOR}")
    where = f"-c {_container_path(config, folder)}"
    line = f"{start} {shlex.join(found.words)} {where}{found.read.rstrip()}{found.written}"
    return " ".join(line.split())


def is_right_without_files(config: Path) -> bool:
    """Tell whether files that authz.yaml names are all that is in its way."""
    try:
        load(config, os.environ, secrets=False)
    except ConfigError:
        return False
    return True


def _elsewhere(folder: Path) -> str:
    here = Path.cwd()
    if folder == here.absolute():
        return ""
    shown = os.path.relpath(folder / COMPOSE, here)
    return f" -f {shlex.quote(shown)}"


def _container_path(config: Path, folder: Path) -> str:
    """Return where the container has authz.yaml: its folder is mounted, or the file alone."""
    inside = config.absolute().parent == folder / FOLDER
    return f"{MOUNTED}/{config.name if inside else NAME}"


def _rewritten(words: Sequence[str], config: Path, ctx: click.Context) -> _Rewritten:
    found, rest = _Rewritten(), iter(words)
    takes_value = {
        name
        for each in _options(ctx)
        if isinstance(each, click.Option) and not each.is_flag
        for name in each.opts
    }
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in takes_value:
            if not _is_configuration(word, config):
                found.words.append(word)
            continue
        _option(found, name, value if equals else next(rest, ""))
    return found


def _options(ctx: click.Context | None) -> Iterator[click.Parameter]:
    """Yield the parameters of a command and of those that it is a command of."""
    while ctx is not None:
        yield from ctx.command.params
        ctx = ctx.parent


def _option(found: _Rewritten, name: str, value: str) -> None:
    if name in _CONFIGURATION or name == _STATE:
        return
    if name in _READ:
        found.take(name, value, _READ[name])
    elif name == _ARGUMENTS and value.startswith("@"):
        found.take(name, value[1:], f"@{_INPUT}")
    elif name in _WRITTEN and value != "-":
        found.words += [name, "-"]
        found.written = f" > {shlex.quote(value)}"
    else:
        found.words += [name, value]


def _is_configuration(word: str, config: Path) -> bool:
    """Tell whether a word names the authz.yaml that is meant, or a folder with it."""
    return find_configuration(Path(word)).absolute() == config.absolute()


def _pins(config: Path, folder: Path, words: Sequence[str]) -> str:
    """Return where the host has the file of a server's approved tools."""
    settings = load(config, os.environ, secrets=False)
    servers = settings.config.servers
    for name in words:
        pins = servers[name].pins if name in servers else None
        if pins is not None and pins.file.startswith(f"{MOUNTED}/"):
            host = folder / FOLDER / pins.file.removeprefix(f"{MOUNTED}/")
            return os.path.relpath(host)
    named = next((name for name in words if name in servers), "server")
    return f"{named}.pins.json"

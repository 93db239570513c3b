"""What the running programs have in force, compared with authz.yaml as it is written.

Programs are asked where authz.yaml has their metrics; in containers of `authz init`, each by its
service's name too.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from authz.config.changes import file_mount
from authz.config.digest import ConfigDigest, parse_digest
from authz.config.load import Settings
from authz.config.model import Config
from authz.config.value_types import UNSPECIFIED, Tcp
from authz.doctor.finding import Finding, note, ok, problem, warning
from authz.local import probe
from authz.server.reloader import REPLACED, SINGLE_FILE

PART: Final = "running"
SERVICE: Final = "authz serve"
PAGES: Final = "authz pages"
# Their names in docker-compose.yml of `authz init`.
_CONTAINERS: Final = {SERVICE: "authz", PAGES: "authz-pages"}
_DIGEST: Final = re.compile(r"[0-9a-f]{12}(-[0-9a-f]{12})?")
_PATIENCE: Final = 3.0
_LONGEST: Final = 300  # characters of a note that are shown
_LOG: Final = "its log says why: reload_refused, config_not_in_force; SIGHUP has it read again"


@dataclass(frozen=True, slots=True)
class RunningProgram:
    """State what one program runs.

    Attributes:
        name: `authz serve` or `authz pages`; of one of several workers with its number.
        config: the digest that is in force; empty where it does not say.
        version: of authz; empty where it does not say.
        notes: what it says of itself; `config`: why what is written is not in force.
        unknown: why nothing is known of it; empty where something is.
    """

    name: str
    config: str = ""
    version: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""

    def problem(self, written: ConfigDigest) -> str:
        """Return what is wrong with what it runs; empty where it runs what is written."""
        if self.unknown:
            return f"it is not known what it runs: {self.unknown}"
        if not self.config:
            return "it does not say what it runs: an older release"
        running, said = parse_digest(self.config), self.notes.get("config", "")
        if running.agrees(written):
            return json.dumps(said) if said else ""
        what = "authz.yaml" if running.file != written.file else "a file that authz.yaml names"
        words = f"it runs {self.config}, and {what} is another one now ({written})"
        return f"{words}: {json.dumps(said)}" if said else words


async def ask_programs(config: Config) -> list[RunningProgram]:
    """Ask the programs of a deployment what they run; each worker is one."""
    places = {SERVICE: config.telemetry.metrics}
    if config.front_door is not None and config.telemetry.pages_metrics is not None:
        places[PAGES] = config.telemetry.pages_metrics
    answers = await asyncio.gather(*(_ask(name, place) for name, place in places.items()))
    found = [program for programs in answers for program in programs]
    if config.front_door is not None and PAGES not in places:
        found.append(RunningProgram(PAGES, unknown="write telemetry.pages_metrics"))
    return found


async def _ask(name: str, place: Tcp) -> list[RunningProgram]:
    """Ask one program at its places, until one answers."""
    hosts = [UNSPECIFIED.get(place.host, place.host)]
    hosts += [_CONTAINERS[name]] if place.host in UNSPECIFIED else []
    for host in hosts:
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await probe.http((host, place.port), "/readyz")
            said = json.loads(answer.body)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(said, dict) and isinstance(said.get("parts"), dict):
            return list(_programs(name, said))
    return [RunningProgram(name, unknown=f"nobody answers at {place}")]


def _programs(name: str, said: Mapping[str, object]) -> Iterator[RunningProgram]:
    notes, version = _words(said.get("notes")), _word(said.get("version"))
    workers = _words(said.get("configs"))
    yield RunningProgram(name, _digest(said.get("config")), version, notes)
    for number, config in workers.items():
        why = "" if config else "it does not answer"
        yield RunningProgram(f"{name}, worker {number}", _digest(config), version, unknown=why)


def _words(said: object) -> Mapping[str, str]:
    if not isinstance(said, dict):
        return {}
    return {_word(name): _word(words) for name, words in said.items()}


def _digest(said: object) -> str:
    return said if isinstance(said, str) and _DIGEST.fullmatch(said) else ""


def _word(said: object) -> str:
    """Return a text from elsewhere, short and printable."""
    text = said if isinstance(said, str) else ""
    return "".join(each if each.isprintable() else " " for each in text)[:_LONGEST]


def mount_problem(path: Path) -> tuple[str, bool]:
    """Return what is wrong with the way authz.yaml is mounted, and whether it has done harm."""
    mount = file_mount(path)
    if mount is None:
        return "", False
    return (REPLACED, True) if mount.is_replaced else (SINGLE_FILE, False)


async def examine(settings: Settings, path: Path) -> list[Finding]:
    """Compare what runs with what is written, and look at how authz.yaml is mounted."""
    words, harmful = mount_problem(path)
    fix = "mount the folder of authz.yaml (docs/upgrade.md), and create the containers anew"
    found = [(problem if harmful else warning)(PART, "single_file", words, fix)] if words else []
    return found + compare(await ask_programs(settings.config), settings.digest)


def compare(programs: Sequence[RunningProgram], written: ConfigDigest) -> list[Finding]:
    """Return a finding for each program."""
    return [_finding(program, written) for program in programs]


def _finding(program: RunningProgram, written: ConfigDigest) -> Finding:
    words = program.problem(written)
    if not words:
        return ok(PART, "in_force", f"{program.name} runs authz.yaml as it is written ({written})")
    if program.unknown or not program.config:
        fix = "start it, or ask where telemetry.metrics and telemetry.pages_metrics are reached"
        return note(PART, "unknown", f"{program.name}: {words}", fix)
    return problem(PART, "not_in_force", f"{program.name}: {words}", _LOG)

"""What the running programs have in force, compared with authz.yaml as it is written.

Programs are asked where authz.yaml has their metrics, at every address of a name; in containers of
`authz init`, where they listen on all addresses, by their services' names first.
"""

import asyncio
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from authz.config.addresses import AddressError, read_tcp
from authz.config.changes import REPLACED, SINGLE_FILE, file_mount
from authz.config.digest import ConfigDigest, parse_digest
from authz.config.endpoints import UNSPECIFIED, Tcp
from authz.config.load import Settings
from authz.config.model import Config
from authz.config.restarts import PAGES, SERVE
from authz.config.yaml_loader import UnreadableError, read_tree
from authz.doctor.finding import Finding, note, ok, problem, warning
from authz.local import probe

PART: Final = "running"
# Their names in docker-compose.yml of `authz init`.
_CONTAINERS: Final = {SERVE: ("authz", "authz-2"), PAGES: ("authz-pages",)}
# Where they are asked if authz.yaml cannot be read: as `authz init` has it.
_USUAL: Final = {SERVE: Tcp("0.0.0.0", 9464), PAGES: Tcp("0.0.0.0", 9465)}  # noqa: S104 - as above
_MOST_ADDRESSES: Final = 32
_DIGEST: Final = re.compile(r"[0-9a-f]{12}(-[0-9a-f]{12})?")
_PATIENCE: Final = 3.0
_MOST_PARTS: Final = 32
_LONGEST: Final = 300  # characters of a note that are shown
_LOG: Final = "its log says why: reload_refused, config_not_in_force; SIGHUP has it read again"


@dataclass(frozen=True, slots=True)
class RunningProgram:
    """State what one program runs.

    Attributes:
        name: `authz serve` or `authz pages`; of one of several replicas with its address, of one of
            several workers with its number.
        config: the digest that is in force; empty where it does not say.
        version: of authz; empty where it does not say.
        notes: what it says of itself; `config`: why what is written is not in force.
        unknown: why nothing is known of it; empty where something is.
        parts: each part and why it is not ready, empty where it is: as readiness says.
    """

    name: str
    config: str = ""
    version: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def trouble(self) -> Mapping[str, str]:
        """Return what is wrong with its parts, those that are ready all the same among them."""
        said = [*self.parts.items(), *self.notes.items()]
        told = [(part, words) for part, words in said if words and part != "config"]
        return dict(told[:_MOST_PARTS])

    def problem(self, written: ConfigDigest | None) -> str:
        """Return what is wrong with what it runs; empty where it runs what is written.

        Args:
            written: of authz.yaml; None where that has an error.
        """
        if self.unknown:
            return f"it is not known what it runs: {self.unknown}"
        if not self.config:
            return "it does not say what it runs: an older release"
        if written is None:
            return f"it runs {self.config}, and goes on with it: authz.yaml has an error"
        running, said = parse_digest(self.config), self.notes.get("config", "")
        if running.agrees(written):
            return json.dumps(said) if said else ""
        what = "authz.yaml" if running.file != written.file else "a file that authz.yaml names"
        words = f"it runs {self.config}, and {what} is another one now ({written})"
        return f"{words}: {json.dumps(said)}" if said else words


@dataclass(frozen=True, slots=True)
class ProgramPlaces:
    """Say where the programs of a deployment answer.

    Attributes:
        serve: of `authz serve`.
        pages: of `authz pages`; None where authz.yaml does not say.
        has_pages: whether there is such a program; None where that is not known.
    """

    serve: Tcp
    pages: Tcp | None
    has_pages: bool | None


def places_of(config: Config) -> ProgramPlaces:
    """Return where authz.yaml has its programs answer."""
    telemetry = config.telemetry
    return ProgramPlaces(telemetry.metrics, telemetry.pages_metrics, config.front_door is not None)


def places_in(text: str) -> ProgramPlaces:
    """Return where programs answer by an authz.yaml that has an error, as far as it says so."""
    try:
        document = read_tree(text).data
    except UnreadableError:
        document = None
    if not isinstance(document, dict):
        return ProgramPlaces(_USUAL[SERVE], _USUAL[PAGES], None)
    found = document.get("telemetry")
    telemetry = found if isinstance(found, dict) else {}
    serve = _place(telemetry.get("metrics")) or _USUAL[SERVE]
    pages = _place(telemetry.get("pages_metrics")) or _USUAL[PAGES]
    return ProgramPlaces(serve, pages, None)


def _place(said: object) -> Tcp | None:
    try:
        return read_tcp("telemetry", said) if isinstance(said, str) else None
    except AddressError:
        return None


async def ask_programs(places: ProgramPlaces, replicas: Sequence[Tcp] = ()) -> list[RunningProgram]:
    """Ask the programs of a deployment what they run; each worker is one.

    Args:
        places: where they answer.
        replicas: where further ones of `authz serve` do.
    """
    asked = [_ask(SERVE, (places.serve, *replicas))]
    if places.pages is not None and places.has_pages is not False:
        asked.append(_ask(PAGES, (places.pages,)))
    found = [program for programs in await asyncio.gather(*asked) for program in programs]
    if places.has_pages and places.pages is None:
        found.append(RunningProgram(PAGES, unknown="write telemetry.pages_metrics"))
    if places.has_pages is None:
        found = [each for each in found if each.name != PAGES or not each.unknown]
    return found


async def _ask(name: str, places: Sequence[Tcp]) -> list[RunningProgram]:
    """Ask the replicas of one program; of one that does not answer nothing is known."""
    found = dict[str, Mapping[str, object]]()
    silent = list[Tcp]()
    for number, place in enumerate(places):
        answers = await _answers(name, place)
        silent += [] if answers else [place]
        seen = {each.get("instance") for each in found.values()} - {None}
        found |= {
            f"{at}:{place.port}" if number else at: each
            for at, each in answers.items()
            if each.get("instance") not in seen
        }
    programs = list[RunningProgram]()
    for at, said in found.items():
        label = f"{name} at {at}" if len(found) + len(silent) > 1 else name
        programs += _programs(label, said)
    for place in silent:
        label = f"{name} at {place}" if len(found) + len(silent) > 1 else name
        programs.append(RunningProgram(label, unknown=f"nobody answers at {place}"))
    return programs


async def _answers(name: str, place: Tcp) -> dict[str, Mapping[str, object]]:
    """Return what answers at a place, by host: each process once, however many addresses it has."""
    loopback = UNSPECIFIED.get(place.host)
    # On all addresses: that of a container, whose name tells it from another; else this machine.
    groups = [(place.host,)] if loopback is None else [_CONTAINERS[name], (loopback,)]
    for hosts in groups:
        found = dict[str, Mapping[str, object]]()
        for host in hosts:
            addresses = await _addresses(host, place.port)
            said = await asyncio.gather(*(_readiness(each, place.port) for each in addresses))
            answered = _distinct(dict(zip(addresses, said, strict=True)))
            one = len(answered) == 1
            found |= {host if one else address: each for address, each in answered.items()}
        if found:
            return _distinct(found)
    return {}


def _distinct(
    answers: Mapping[str, Mapping[str, object] | None],
) -> dict[str, Mapping[str, object]]:
    """Return the answers that there are, one of each process."""
    found, seen = dict[str, Mapping[str, object]](), set[str]()
    for at, said in answers.items():
        if said is None:
            continue
        instance = _word(said.get("instance")) or at
        if instance not in seen:
            seen.add(instance)
            found[at] = said
    return found


async def _addresses(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(each[4][0]) for each in found})[:_MOST_ADDRESSES]


async def _readiness(host: str, port: int) -> Mapping[str, object] | None:
    """Return what a program says of itself; None where nobody does."""
    try:
        async with asyncio.timeout(_PATIENCE):
            answer = await probe.http((host, port), "/readyz")
        said = json.loads(answer.body)
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(said, dict) and isinstance(said.get("parts"), dict)
    return said if known else None


def _programs(name: str, said: Mapping[str, object]) -> Iterator[RunningProgram]:
    notes, version = _words(said.get("notes")), _word(said.get("version"))
    workers = _words(said.get("configs"))
    parts = _words(said.get("parts"))
    yield RunningProgram(name, _digest(said.get("config")), version, notes, parts=parts)
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
    return found + compare(await ask_programs(places_of(settings.config)), settings.digest)


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

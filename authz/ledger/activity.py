"""What programs decided lately and how they are, in Redis, for the operators' console.

Each program adds what it counted every few seconds, beside its decisions: a report that is lost is
not sent again, so that nothing counts twice, and the console shows a little less. Counts are kept
by minute for the last hour and by ten minutes for the last day.

Invariant: what one report adds is there once or not at all, and every key expires
(tests/ledger/test_activity.py); what another wrote there is read as nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from authz.core.strict_json import StrictJsonError, loads
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command
from authz.ledger.script import load_script, run_script

_KIND: Final = "activity"
_REPORTS: Final = "programs"
_REPORTS_STEP: Final = 600  # seconds; a program that has ended is listed for one or two of them
_SEPARATOR: Final = "\x1f"
_LONGEST: Final = 8192  # bytes of what a program says
_LONGEST_WORDS: Final = 300
_MOST_PARTS: Final = 32
_MOST_PROGRAMS: Final = 128
_MOST_UPSTREAMS: Final = 64
_LONGEST_NAME: Final = 72
_MOST_DIGITS: Final = 15

_ADD: Final = load_script("authz.ledger", "add_activity.lua")
_READ: Final = load_script("authz.ledger", "read_activity.lua")


class Resolution(Enum):
    """Name how finely decisions are counted: seconds of a step, and how many there are."""

    HOUR = (60, 60)
    DAY = (600, 144)

    @property
    def step(self) -> int:
        """Return the seconds of a step."""
        return self.value[0]

    @property
    def steps(self) -> int:
        """Return how many steps there are."""
        return self.value[1]

    @property
    def lifetime(self) -> int:
        """Return for how many seconds the counts of a step are kept."""
        return self.step * (self.steps + 2)


class UpstreamState(Enum):
    """Say how an upstream is, by Envoy's figures."""

    WELL = "well"
    AWAY = "away"  # connections fail, and none was made since
    UNUSED = "unused"  # none was tried


class DecisionKind(NamedTuple):
    """Name decisions that are counted together: the server's name and the reason's label."""

    server: str
    reason: str


@dataclass(frozen=True, slots=True)
class CountedStep:
    """Hold what was decided in one step of time.

    Attributes:
        at: where it begins, seconds since the epoch.
        counts: how many decisions of each kind.
    """

    at: int
    counts: Mapping[DecisionKind, int]


@dataclass(frozen=True, slots=True)
class ProgramReport:
    """Hold what one process says of itself.

    Attributes:
        program: `SERVE` or `PAGES` of config/restarts.
        host: the machine's or container's name.
        worker: its number among several; -1 where it is alone.
        instance: a word of this process.
        at: when it said so, seconds since the epoch.
        version: of authz.
        config: the digest of the configuration in force.
        parts: each part and why it is not ready; empty where it is.
        notes: what is wrong with parts that are ready all the same.
        mode: who counts limits; empty where the program counts none.
        certificate_until: when the certificate that Envoy serves ends, seconds since the epoch; 0
            where that is not known.
        upstreams: how the upstreams of the Envoy beside it are; empty where it does not know.
    """

    program: str
    host: str
    worker: int
    instance: str
    at: int
    version: str
    config: str
    parts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mode: str = ""
    certificate_until: int = 0
    upstreams: Mapping[str, UpstreamState] = field(default_factory=lambda: MappingProxyType({}))


class ActivityStore:
    """The activity of one deployment; every method may raise UnavailableError."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        """Take what sends one command to Redis, and the names there."""
        self._command = command
        self._keys = keys

    async def add(self, report: ProgramReport, counts: Mapping[DecisionKind, int]) -> None:
        """Add what a program counted since its last report, and what it says of itself."""
        values = list[str | int]()
        for kind, count in counts.items():
            values += [f"{kind.server}{_SEPARATOR}{kind.reason}", count]
        keys = (
            *(self._counts(each, report.at) for each in Resolution),
            self._reports(report.at),
        )
        lifetimes = [each.lifetime * 1000 for each in Resolution]
        await run_script(
            self._command,
            _ADD,
            keys,
            *lifetimes,
            3 * _REPORTS_STEP * 1000,
            report.instance,
            _encode(report),
            *values,
        )

    async def decisions(self, resolution: Resolution, now: float) -> tuple[CountedStep, ...]:
        """Return what was decided in each step, the oldest first, the one of now the last."""
        last = int(now) // resolution.step * resolution.step
        first = last - resolution.step * (resolution.steps - 1)
        times = range(first, last + 1, resolution.step)
        keys = tuple(self._counts(resolution, at) for at in times)
        found = await run_script(self._command, _READ, keys)
        return tuple(
            CountedStep(at, _counts(fields)) for at, fields in zip(times, found, strict=True)
        )

    async def programs(self, now: float) -> tuple[ProgramReport, ...]:
        """Return what programs say of themselves, each once, those that ended lately too."""
        keys = (self._reports(now - _REPORTS_STEP), self._reports(now))
        found = dict[str, ProgramReport]()
        for fields in await run_script(self._command, _READ, keys):
            for text in fields[1::2]:
                report = _decode(text)
                if report is not None:
                    found[report.instance] = report
        latest = sorted(found.values(), key=lambda each: each.at, reverse=True)[:_MOST_PROGRAMS]
        return tuple(sorted(latest, key=lambda each: (each.program, each.host, each.worker)))

    def _counts(self, resolution: Resolution, at: float) -> bytes:
        return self._keys.record(_KIND, f"{resolution.step}:{int(at) // resolution.step}")

    def _reports(self, at: float) -> bytes:
        return self._keys.record(_REPORTS, str(int(at) // _REPORTS_STEP))


def _counts(fields: Sequence[bytes]) -> Mapping[DecisionKind, int]:
    found = dict[DecisionKind, int]()
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        server, separator, reason = name.decode("utf-8", "replace").partition(_SEPARATOR)
        if separator and value.isdigit() and len(value) <= _MOST_DIGITS:
            found[DecisionKind(server, reason)] = int(value)
    return found


def _encode(report: ProgramReport) -> str:
    members = {
        "program": report.program,
        "host": report.host[:_LONGEST_WORDS],
        "worker": report.worker,
        "instance": report.instance,
        "at": report.at,
        "version": report.version,
        "config": report.config,
        "parts": _short(report.parts),
        "notes": _short(report.notes),
        "mode": report.mode,
        "certificate_until": report.certificate_until,
        "upstreams": {
            name[:_LONGEST_NAME]: state.value
            for name, state in list(report.upstreams.items())[:_MOST_UPSTREAMS]
        },
    }
    return json.dumps(members, separators=(",", ":"))


def _short(words: Mapping[str, str]) -> dict[str, str]:
    return {name: said[:_LONGEST_WORDS] for name, said in list(words.items())[:_MOST_PARTS]}


def _decode(text: bytes) -> ProgramReport | None:
    """Return a report; None for what is none, whoever wrote it."""
    try:
        members: Any = loads(text) if len(text) <= _LONGEST else None
    except StrictJsonError:
        return None
    match members:
        case {
            "program": str(program), "host": str(host), "worker": int(worker),
            "instance": str(instance), "at": int(at), "version": str(version),
            "config": str(config), "parts": dict(parts), "notes": dict(notes),
            "mode": str(mode), "certificate_until": int(until),
        }:  # fmt: skip
            return ProgramReport(
                program, host, worker, instance, at, version, config, _texts(parts),
                _texts(notes), mode, until, _states(members.get("upstreams")),
            )  # fmt: skip
    return None


def _states(found: object) -> Mapping[str, UpstreamState]:
    """Return states of upstreams; what an earlier release wrote has none."""
    if not isinstance(found, dict):
        return {}
    known = {each.value: each for each in UpstreamState}
    return {name: known[said] for name, said in found.items() if said in known}


def _texts(found: Mapping[str, object]) -> Mapping[str, str]:
    return {name: said for name, said in found.items() if isinstance(said, str)}

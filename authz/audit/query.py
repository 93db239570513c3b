"""Filter audit records, and print them as text or lines of JSON."""

import json
import re
from collections.abc import AsyncIterator, Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from authz.audit.record import (
    AuditEvent,
    AuditRecord,
    ChainLink,
    InvalidRecordError,
    read_record,
)
from authz.audit.store import TrailEntry, TrailStore
from authz.core.strict_json import StrictJsonError, loads

_LINE: Final = '{"id":"'
_MAC: Final = '","mac":"'
_RECORD: Final = '","record":'
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")
_NOT_OF_MAC: Final = re.compile(r"[^A-Za-z0-9_-]")
_MAX_LINE: Final = 64 * 1024
# Members that stand in front of a line, or say nothing to a person.
_IN_FRONT: Final = ("verdict", "reason", "server", "mcp_method", "tool", "target")
_HIDDEN: Final = frozenset({*_IN_FRONT, "limiter", "heads"})
_CHAINS: Final = frozenset({AuditEvent.ANCHOR, AuditEvent.END})
# Of which records name people, clients and log-ins as these themselves came.
NAMING_EVENTS: Final = frozenset({AuditEvent.DECISION, AuditEvent.REFUSALS, AuditEvent.LOG_IN})


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Match records; what is empty or None matches all.

    Attributes:
        person: the subject, or the account name in any letter case.
        client, server, tool, reason, outcome: the value of that field; `outcome` is the verdict.
        since, until: seconds since the epoch, both included.
        request_id: of one request.
        with_chains: whether records that only serve verification match, too.
    """

    person: str = ""
    client: str = ""
    server: str = ""
    tool: str = ""
    reason: str = ""
    outcome: str = ""
    request_id: str = ""
    since: float | None = None
    until: float | None = None
    with_chains: bool = False

    def matches(self, record: AuditRecord) -> bool:
        """Tell whether a record is asked for."""
        if record.event in _CHAINS and not self.with_chains:
            return False
        if self.since is not None and record.time < self.since:
            return False
        if self.until is not None and record.time > self.until:
            return False
        return self._is_persons(record.fields) and all(
            not wanted or record.fields.get(name, "") == wanted
            for name, wanted in (
                ("client_id", self.client),
                ("server", self.server),
                ("tool", self.tool),
                ("reason", self.reason),
                ("verdict", self.outcome),
                ("request_id", self.request_id),
            )
        )

    def _is_persons(self, fields: Mapping[str, str]) -> bool:
        if not self.person or fields.get("subject") == self.person:
            return True
        account = fields.get("account", "")
        return bool(account) and account.casefold() == self.person.casefold()


_ANY: Final = AuditFilter()


def matching_record(wanted: AuditFilter, entry: TrailEntry) -> AuditRecord | None:
    """Return the record of an entry, where it is asked for; None also for what is no record."""
    try:
        record = read_record(entry.text)
    except InvalidRecordError:
        return None
    return record if wanted.matches(record) else None


async def latest_records(
    trail: TrailStore, events: Container[AuditEvent], most: int | None = None
) -> AsyncIterator[AuditRecord]:
    """Yield the records of some events, newest first.

    Args:
        trail: the audit trail.
        events: which.
        most: how many entries are looked through, of whatever event; None for all.

    Raises:
        UnavailableError: where Redis does not answer.
    """
    seen = 0
    async for entry in trail.backwards():
        record = matching_record(_ANY, entry)
        if record is not None and record.event in events:
            yield record
        seen += 1
        if seen == most:
            break


def as_json_line(entry: TrailEntry) -> str:
    """Return an entry as one line of JSON, with the record as it is stored.

    In entries that authz did not write, `?` replaces what is not printable ASCII.
    """
    text = _NOT_PRINTABLE.sub("?", entry.text.decode("ascii", "replace"))
    mac = _NOT_OF_MAC.sub("?", entry.mac)
    return f"{_LINE}{entry.id}{_MAC}{mac}{_RECORD}{text}}}"


def read_json_line(line: str) -> TrailEntry:
    """Read what `as_json_line` wrote.

    Raises:
        InvalidRecordError: where the line is none of it.
    """
    line = line.rstrip("\r\n")
    head, found, text = line.partition(_RECORD)
    entry_id, has_mac, mac = head.removeprefix(_LINE).partition(_MAC)
    if not (found and has_mac and head.startswith(_LINE) and text.endswith("}")):
        raise InvalidRecordError("not a line of `authz audit --json`")
    if len(line) > _MAX_LINE or not (entry_id + mac).isprintable():
        raise InvalidRecordError("not a line of `authz audit --json`")
    return TrailEntry(entry_id, text[:-1].encode("utf-8", "replace"), mac)


def as_text(record: AuditRecord) -> str:
    """Return one line for a terminal, in which nothing of a record is a control character."""
    fields = record.fields
    what = [fields.get(name, "") for name in _IN_FRONT]
    shown = [_word(each) for each in what if each]
    if record.event is not AuditEvent.DECISION:
        shown.insert(0, record.event.value)
    rest = [f"{name}={_word(value)}" for name, value in fields.items() if name not in _HIDDEN]
    return " ".join([format_moment(record.time), *shown, *map(_name, rest)])


def format_moment(seconds: float) -> str:
    """Return a moment in UTC; a number where no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _name(text: str) -> str:
    """Escape the names of fields too: a forged record may have any."""
    return text if text.isascii() and text.isprintable() else _quoted(text)


def _word(value: str) -> str:
    """Return a value as one word, or as a JSON string, which is ASCII without controls."""
    plain = value.isascii() and value.isprintable() and not set(value) & set(' "=\\')
    return value if plain and value else _quoted(value)


def _quoted(text: str) -> str:
    return json.dumps(text)


class LoggedHead(NamedTuple):
    """Tell where a chain ended at a moment, as the log says."""

    time: float
    chain: str
    link: ChainLink


def read_heads(lines: Iterator[str]) -> Iterator[LoggedHead]:
    """Yield the events `audit_head` of a log in JSON."""
    for line in lines:
        if "audit_head" not in line or len(line) > _MAX_LINE:
            continue
        try:
            found = loads(line.strip().encode())
        except StrictJsonError:
            continue
        if not isinstance(found, dict) or found.get("event") != "audit_head":
            continue
        match found:
            case {
                "time": int() | float() as moment,
                "chain": str(chain),
                "n": int(n),
                "mac": str(mac),
            }:
                yield LoggedHead(moment, chain, ChainLink(n, mac))
            case _:
                continue
